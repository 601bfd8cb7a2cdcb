"""Run one gateway in this process until a signal ends it. A second signal cuts the drain short."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import uvloop

from gateway.app.gateway import Gateway
from gateway.settings import Settings
from gateway.settings.kinds import Address
from gateway.telemetry.log import Log, configure

Announce = Callable[[Settings, Address], None]
"""Told once the gateway listens, with the address at which clients are served."""


def serve(prepared: AbstractAsyncContextManager[Settings], announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `prepared` gives the settings, and lasts as long as the
    gateway. Raises OSError where an address cannot be taken, and what `prepared` raises."""
    _allow_many_connections()
    uvloop.run(_serve(prepared, configure(), announce))


async def _serve(prepared: AbstractAsyncContextManager[Settings], log: Log, announce: Announce) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal(name: str) -> None:
        log.info("signal", name=name, effect="the drain is cut short" if stop.is_set() else "drain")
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    async with prepared as settings:
        gateway = Gateway(settings, log)
        data, admin = await gateway.start()
        log.info("serving", listen=str(data), admin=str(admin))
        announce(settings, data)
        # What was built to last is left out of every later search for garbage.
        gc.collect()
        gc.freeze()
        await stop.wait()
        await gateway.drain(hurry)
    log.info("stopped")


def _allow_many_connections() -> None:
    """Each stream takes two file descriptors; the usual soft limit of 1,024 would end at 500 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
