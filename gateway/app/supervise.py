"""Several workers as one gateway: one port, one listener for operators, one end.

This process passes no request on. It reserves the port, keeps the workers (gateway.runtime.workers) and answers
operators for all of them (gateway.app.admin_aggregator).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import msgspec

from gateway.app.admin_aggregator import AdminAggregator, WorkerEvents
from gateway.core.address import Address
from gateway.runtime.control_channel import Order
from gateway.runtime.core_dumps import disable_core_dumps
from gateway.runtime.listening import listen
from gateway.runtime.shutdown import Shutdown
from gateway.runtime.system_clock import id_maker
from gateway.runtime.tasks import BackgroundTasks, wait_first
from gateway.runtime.workers import PoolConfig, WorkerPool
from gateway.telemetry.log import Log, configure
from gateway.web.admin_routes import AdminRoutes
from gateway.web.http_connection import ADMIN_CLIENTS, Listener


class SupervisorConfig(msgspec.Struct, frozen=True):
    """What is to be run: workers under one configuration, at these addresses."""

    config: str
    workers: int
    listen: Address
    admin: Address


def supervise(config: SupervisorConfig, command: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT, then let every worker drain. The exit status. `command` runs a worker once its
    WorkerSpec is appended. Raises OSError where an address cannot be taken."""
    disable_core_dumps()
    return asyncio.run(_supervise(config, command, configure()))


async def _supervise(config: SupervisorConfig, command: Sequence[str], log: Log) -> int:
    reserved = await _reserve(config.listen)
    data = _address(config.listen, reserved)
    events = WorkerEvents(log)
    tasks = BackgroundTasks(log.defect, events.task_failed)
    pool = WorkerPool(PoolConfig(command, config.workers, data.port), events, tasks, log.defect)
    aggregator = AdminAggregator(pool, config.workers, events, log)
    listener = Listener(AdminRoutes(aggregator.handlers).handle, id_maker(), ADMIN_CLIENTS)
    server = await listen(listener, config.admin)
    shutdown = Shutdown()

    def log_signal(name: str, effect: str) -> None:
        aggregator.draining = True
        log.info("signal", name=name, effect=effect)

    async def stop() -> None:
        await shutdown.requested.wait()
        reserved.close()
        pool.order(Order.DRAIN)
        await shutdown.aborted.wait()
        pool.order(Order.ABORT)

    shutdown.on_signals(log_signal)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, pool.order, Order.RELOAD)
    tasks.keep_running("stop the workers", stop)
    running = tasks.start("keep the workers", pool.run())
    await wait_first(pool.complete.wait(), asyncio.wait([running]))
    if pool.complete.is_set():
        log.info("serving", listen=str(data), admin=str(_address(config.admin, server)), workers=config.workers)
    status = await running
    server.close()
    await listener.close()
    await tasks.close()
    log.info("stopped")
    return status


async def _reserve(address: Address) -> asyncio.Server:
    """Sockets that have the port and take no connection; workers share it (SO_REUSEPORT). Raises OSError."""
    # One that does not share comes first: another gateway that has the port is noticed, not joined.
    alone = await listen(asyncio.Protocol, address)
    port = alone.sockets[0].getsockname()[1]
    alone.close()
    return await listen(asyncio.Protocol, Address(address.host, port), shared=True, start_serving=False)


def _address(address: Address, server: asyncio.Server) -> Address:
    return Address(address.host, server.sockets[0].getsockname()[1])
