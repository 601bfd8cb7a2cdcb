"""Runs several workers as one gateway: one port, one admin listener, one exit status.

Requests do not pass through this process. It reserves the port, starts and replaces the workers
(gateway.runtime.workers), and answers operators for all of them (gateway.app.admin_aggregator).
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import msgspec

from gateway.app.admin_aggregator import AdminAggregator, WorkerEvents
from gateway.core.address import Address, listed
from gateway.runtime.control_channel import Order
from gateway.runtime.core_dumps import disable_core_dumps
from gateway.runtime.listening import address_taken, listen, listen_on_all
from gateway.runtime.shutdown import Shutdown
from gateway.runtime.system_clock import id_maker
from gateway.runtime.tasks import BackgroundTasks, wait_first
from gateway.runtime.turn import Turn
from gateway.runtime.workers import PoolConfig, WorkerPool
from gateway.telemetry.log import Log, configure
from gateway.web.admin_routes import AdminRoutes
from gateway.web.listener import ADMIN_CLIENTS, Listener
from gateway.web.shared_answers import SharedAnswers


class SupervisorConfig(msgspec.Struct, frozen=True):
    """What a supervisor runs: workers under one configuration, at these addresses."""

    config: str
    workers: int
    listen: tuple[Address, ...]
    admin: Address


def supervise(config: SupervisorConfig, command: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT, then drain every worker. Returns the exit status. `command` runs a worker once its
    WorkerSpec is appended. Raises OSError if an address is in use."""
    disable_core_dumps()
    return asyncio.run(_supervise(config, command, configure()))


async def _supervise(config: SupervisorConfig, command: Sequence[str], log: Log) -> int:
    reserved = await _reserve(config.listen)
    data = tuple(map(address_taken, config.listen, reserved))
    events = WorkerEvents(log)
    tasks = BackgroundTasks(log.defect, events.task_failed)
    ports = tuple(address.port for address in data)
    pool = WorkerPool(PoolConfig(command, config.workers, ports), events, tasks, log.defect)
    aggregator = AdminAggregator(pool, config.workers, events, log)
    handlers = aggregator.handlers
    shared = SharedAnswers(handlers.admin_api, handlers.refuse_stranger, tasks, time.monotonic)
    routes = AdminRoutes(handlers._replace(admin_api=shared.answer), log.defect)
    listener = Listener(routes.handle, id_maker(), ADMIN_CLIENTS, Turn())
    server = await listen(listener, config.admin)
    shutdown = Shutdown()

    def log_signal(name: str, effect: str) -> None:
        aggregator.draining = True
        log.info("signal", name=name, effect=effect)

    async def stop() -> None:
        await shutdown.requested.wait()
        for server in reserved:
            server.close()
        pool.order(Order.DRAIN)
        await shutdown.aborted.wait()
        pool.order(Order.ABORT)

    shutdown.on_signals(log_signal)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, pool.order, Order.RELOAD)
    tasks.keep_running("stop the workers", stop)
    running = tasks.start("keep the workers", pool.run())
    await wait_first(pool.complete.wait(), asyncio.wait([running]))
    if pool.complete.is_set():
        admin = str(address_taken(config.admin, server))
        log.info("serving", listen=listed(data), admin=admin, workers=config.workers)
    status = await running
    server.close()
    await listener.close()
    await tasks.close()
    log.info("stopped")
    return status


async def _reserve(addresses: Sequence[Address]) -> list[asyncio.Server]:
    """Sockets that reserve the ports and accept no connection; workers share them (SO_REUSEPORT). Raises OSError."""
    # Those that do not share come first: another gateway that has a port is noticed, not joined.
    alone = await listen_on_all(asyncio.Protocol, addresses)
    taken = list(map(address_taken, addresses, alone))
    for server in alone:
        server.close()
    return [await listen(asyncio.Protocol, address, shared=True, start_serving=False) for address in taken]
