from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from contextlib import ExitStack

import pytest
import uvloop

from gateway.core.address import Address
from gateway.runtime.listening import ACCEPTED_PER_TURN, accept_faster, listen_on_all


async def test_what_cannot_be_listened_on_is_named_in_the_systems_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match="cannot be listened on") as failed:
            await listen_on_all(asyncio.Protocol, [Address("127.0.0.1", 0), address])
        assert failed.value.errno == errno.EADDRINUSE
        assert failed.value.strerror == f"{address} cannot be listened on: Address already in use"


def test_a_burst_of_connections_is_accepted_a_few_in_each_turn() -> None:
    burst, turn = 10 * ACCEPTED_PER_TURN, 0
    turns: list[int] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            turns.append(turn)

    async def attempt() -> None:
        nonlocal turn
        servers = await listen_on_all(Accepted, [Address("127.0.0.1", 0)], backlog=burst)
        servers += await accept_faster(Accepted, servers, backlog=burst)
        with ExitStack() as clients:
            for _ in range(burst):
                clients.enter_context(socket.create_connection(servers[0].sockets[0].getsockname()))
            while len(turns) < burst:
                turn += 1
                await asyncio.sleep(0)
        for server in servers:
            server.close()

    uvloop.run(attempt())
    accepted = Counter(turns)
    assert max(accepted.values()) == ACCEPTED_PER_TURN
    assert len(accepted) <= burst // ACCEPTED_PER_TURN + 1
