"""Several workers as one gateway: one port, one listener for operators, one end.

This process passes no request on. It reserves the port, keeps the workers (gateway.app.crew) and tells
operators what they are together (gateway.app.board).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from gateway.app.board import Board
from gateway.app.clock import id_maker
from gateway.app.crew import Crew, Plan
from gateway.app.post import DRAIN, HURRY, RELOAD
from gateway.app.waiting import first
from gateway.core.address import Address
from gateway.telemetry.log import Log, configure
from gateway.web.admin_plane import AdminPlane
from gateway.web.http_connection import Listener


class Charter(msgspec.Struct, frozen=True):
    """What is to be run: workers under one configuration, at these addresses."""

    config: str
    workers: int
    listen: Address
    admin: Address


def supervise(charter: Charter, command: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT, then let every worker drain. The exit status. `command` runs a worker once its
    post is appended. Raises OSError where an address cannot be taken."""
    return asyncio.run(_supervise(charter, command, configure()))


async def _supervise(charter: Charter, command: Sequence[str], log: Log) -> int:
    with TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True) as folder:
        reserved = await _reserve(charter.listen)
        data = _address(charter.listen, reserved)
        crew = Crew(Plan(command, charter.workers, data.port, Path(folder)), log)
        board = Board(crew)
        listener = Listener(AdminPlane(board.desk).handle, id_maker())
        server = await asyncio.get_running_loop().create_server(listener, *charter.admin)

        def on_signal(name: str) -> None:
            again = board.draining
            log.info("signal", name=name, effect="the drain is cut short" if again else "drain")
            board.draining = True
            reserved.close()
            crew.end(HURRY if again else DRAIN)

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number.name)
        loop.add_signal_handler(signal.SIGHUP, crew.order, RELOAD)
        working = asyncio.create_task(crew.work())
        await first(crew.complete.wait(), asyncio.wait([working]))
        if crew.complete.is_set():
            log.info("serving", listen=str(data), admin=str(_address(charter.admin, server)), workers=charter.workers)
        status = await working
        server.close()
        await listener.close()
    log.info("stopped")
    return status


async def _reserve(address: Address) -> asyncio.Server:
    """Sockets that have the port and take no connection; workers share it (SO_REUSEPORT). Raises OSError."""
    loop = asyncio.get_running_loop()
    # One that shares with nobody comes first: another gateway that has the port is noticed, not joined.
    alone = await loop.create_server(asyncio.Protocol, *address)
    port = alone.sockets[0].getsockname()[1]
    alone.close()
    return await loop.create_server(asyncio.Protocol, address.host, port, reuse_port=True, start_serving=False)


def _address(address: Address, server: asyncio.Server) -> Address:
    return Address(address.host, server.sockets[0].getsockname()[1])
