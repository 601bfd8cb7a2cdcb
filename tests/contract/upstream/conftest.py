from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
import uvloop

from gateway.upstream.client import HttpWire
from tests.contract.upstream.playbook import Server, Step

Play = Callable[..., Awaitable[Server]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The promises hold on the loop that the gateway runs on and on Python's own."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    servers: list[Server] = []

    async def start(*scripts: list[Step], tls: object = None, host: str = "127.0.0.1") -> Server:
        server = Server([tuple(script) for script in scripts], tls)  # type: ignore[arg-type]
        await server.start(host)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def wire() -> AsyncIterator[HttpWire]:
    made = HttpWire()
    yield made
    await made.close()
