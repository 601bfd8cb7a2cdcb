"""Runs one gateway in this process until it has to stop: alone, or as one of several workers.

A single gateway opens both listeners and handles signals. A worker shares the port and opens no admin listener: its
supervisor passes operators' requests on to it. It drains when the supervisor orders it or is gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import NamedTuple

import uvloop

from gateway.app.gateway import Gateway
from gateway.app.loaded_snapshot import LoadedSnapshot
from gateway.app.process_settings import ProcessSettings
from gateway.app.reload import Reloader
from gateway.app.worker_control import control_handlers
from gateway.core.address import Address, listed
from gateway.runtime.control_channel import ControlChannel, ControlServer, Order
from gateway.runtime.core_dumps import disable_core_dumps
from gateway.runtime.descriptors import allow_many_connections
from gateway.runtime.garbage import GarbageSearch
from gateway.runtime.shutdown import Shutdown
from gateway.runtime.workers import WorkerSpec
from gateway.telemetry.log import Log, configure


class Announce(NamedTuple):
    """What is printed at a terminal, in addition to the log."""

    serving: Callable[[LoadedSnapshot, Address, Address], None]
    """Called once the gateway listens, with the first address for clients and that for operators."""
    draining: Callable[[int, ProcessSettings], None]
    """Called when it has to stop, with the number of requests in flight."""


_STDIN = 0
"""A worker's end of the control channel."""


class Source(NamedTuple):
    """The source of what is served: a context that lasts as long as the gateway, and the file to be watched, if any."""

    loaded: AbstractAsyncContextManager[LoadedSnapshot]
    path: str | None = None


def run_gateway(source: Source, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises OSError where an address cannot be taken, and what
    the source raises."""
    disable_core_dumps()
    allow_many_connections()
    uvloop.run(_run_gateway(source, configure(is_shared=False), announce))


def run_worker(spec: WorkerSpec, path: str, loaded: LoadedSnapshot) -> None:
    """`path` is the file that it was loaded from. Raises OSError where a port cannot be listened on."""
    disable_core_dumps()
    allow_many_connections()
    uvloop.run(_run_worker(spec, path, loaded, configure(worker=spec.worker)))


async def _run_gateway(source: Source, log: Log, announce: Announce) -> None:
    shutdown = Shutdown()
    shutdown.on_signals(lambda name, effect: log.info("signal", name=name, effect=effect))
    async with source.loaded as loaded:
        gateway = Gateway(loaded, log)
        if source.path is not None:
            Reloader(source.path, gateway, log, loaded.settings).start()
        data, admin = await gateway.start()
        log.info("serving", listen=listed(data), admin=str(admin))
        announce.serving(loaded, data[0], admin)
        await _until(shutdown, gateway, lambda: announce.draining(gateway.in_flight, loaded.settings))
    log.info("stopped")


async def _run_worker(spec: WorkerSpec, path: str, loaded: LoadedSnapshot, log: Log) -> None:
    shutdown = Shutdown()
    shutdown.on_signals_of_a_group()
    gateway = Gateway(loaded, log)
    reloader = Reloader(path, gateway, log, loaded.settings)
    reloader.start()
    channel = await ControlChannel.over(socket.socket(fileno=_STDIN))
    orders = {Order.DRAIN: shutdown.request, Order.ABORT: shutdown.abort, Order.RELOAD: reloader.ask}
    control = ControlServer(channel, orders, control_handlers(gateway), gateway.tasks, log.defect)
    data = await gateway.start_on_shared_ports(spec.ports, speaks=spec.worker == 1)
    log.info("worker serving", listen=listed(data), pid=os.getpid())
    control.ready()
    gateway.tasks.keep_running("follow the supervisor", control.run)
    await _until(shutdown, gateway)
    log.info("worker stopped")


async def _until(shutdown: Shutdown, gateway: Gateway, on_drain: Callable[[], None] | None = None) -> None:
    """Serve until a stop is requested, then drain."""
    garbage = GarbageSearch(lambda: gateway.in_flight, monotonic)
    gateway.tasks.keep_running("search for garbage", garbage.run)
    await shutdown.requested.wait()
    if on_drain is not None:
        on_drain()
    await gateway.drain(shutdown.aborted)
