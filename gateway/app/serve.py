"""Run one gateway in this process until a signal ends it. A second signal cuts the drain short."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import uvloop

from gateway.app.gateway import Gateway
from gateway.app.reload import Reloader
from gateway.settings import Settings
from gateway.settings.kinds import Address
from gateway.telemetry.log import Log, configure

Announce = Callable[[Settings, Address], None]
"""Told once the gateway listens, with the address at which clients are served."""


class Source(NamedTuple):
    """Where the settings come from: a context that lasts as long as the gateway, and the file to be
    watched, if there is one."""

    settings: AbstractAsyncContextManager[Settings]
    path: str | None = None


def serve(source: Source, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises OSError where an address cannot be taken, and what
    the source raises."""
    _allow_many_connections()
    uvloop.run(_serve(source, configure(), announce))


async def _serve(source: Source, log: Log, announce: Announce) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal(name: str) -> None:
        log.info("signal", name=name, effect="the drain is cut short" if stop.is_set() else "drain")
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    async with source.settings as settings:
        gateway = Gateway(settings, log)
        watch = _watch(source.path, gateway, log, settings)
        data, admin = await gateway.start()
        log.info("serving", listen=str(data), admin=str(admin))
        announce(settings, data)
        # What was built to last is left out of every later search for garbage.
        gc.collect()
        gc.freeze()
        await stop.wait()
        if watch is not None:
            watch.cancel()
        await gateway.drain(hurry)
    log.info("stopped")


def _watch(path: str | None, gateway: Gateway, log: Log, settings: Settings) -> asyncio.Task[None] | None:
    if path is None:
        return None
    reloader = Reloader(path, gateway, log, settings)
    gateway.on_reload(reloader.reload)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    return loop.create_task(reloader.watch())


def _allow_many_connections() -> None:
    """Each stream takes two file descriptors; the usual soft limit of 1,024 would end at 500 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
