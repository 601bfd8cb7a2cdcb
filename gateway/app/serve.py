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
from gateway.core.address import Address
from gateway.settings import Settings
from gateway.telemetry.log import Log, configure

END_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Announce = Callable[[Settings, Address, Address], None]
"""Told once the gateway listens, with the addresses at which clients and operators are served."""


class Source(NamedTuple):
    """Where the settings come from: a context that lasts as long as the gateway, and the file to be
    watched, if there is one."""

    settings: AbstractAsyncContextManager[Settings]
    path: str | None = None


class Ending(NamedTuple):
    """When to stop, and whether to hurry."""

    stop: asyncio.Event
    hurry: asyncio.Event


def serve(source: Source, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises OSError where an address cannot be taken, and what
    the source raises."""
    allow_many_connections()
    uvloop.run(_serve(source, configure(), announce))


async def _serve(source: Source, log: Log, announce: Announce) -> None:
    ending = Ending(asyncio.Event(), asyncio.Event())

    def on_signal(name: str) -> None:
        again = ending.stop.is_set()
        log.info("signal", name=name, effect="the drain is cut short" if again else "drain")
        (ending.hurry if again else ending.stop).set()

    loop = asyncio.get_running_loop()
    for number in END_SIGNALS:
        loop.add_signal_handler(number, on_signal, number.name)
    async with source.settings as settings:
        gateway = Gateway(settings, log)
        watching = _watch(source.path, gateway, log, settings)
        data, admin = await gateway.start()
        log.info("serving", listen=str(data), admin=str(admin))
        announce(settings, data, admin)
        await run(gateway, ending, watching)
    log.info("stopped")


async def run(gateway: Gateway, ending: Ending, watching: asyncio.Task[None] | None) -> None:
    """Let a gateway that listens serve until the end, then drain it."""
    # What was built to last is left out of every later search for garbage.
    gc.collect()
    gc.freeze()
    await ending.stop.wait()
    if watching is not None:
        watching.cancel()
    await gateway.drain(ending.hurry)


def _watch(path: str | None, gateway: Gateway, log: Log, settings: Settings) -> asyncio.Task[None] | None:
    return Reloader(path, gateway, log, settings).begin() if path is not None else None


def allow_many_connections() -> None:
    """Each stream takes two file descriptors; the usual soft limit of 1,024 would end at 500 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
