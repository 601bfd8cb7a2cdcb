from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import uvloop

from gateway.upstream.client import HttpClient
from tests.contract.upstream.asking import new_client
from tests.contract.upstream.playbook import Server, Step

Play = Callable[..., Awaitable[Server]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The promises hold on the loop that the gateway runs on and on Python's own."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    async with AsyncExitStack() as playing:

        async def start(*scripts: list[Step], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Server:
            server = Server([tuple(script) for script in scripts], tls)
            await server.start(host)
            playing.push_async_callback(server.stop)
            return server

        yield start


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = new_client()
    yield made
    await made.close()
