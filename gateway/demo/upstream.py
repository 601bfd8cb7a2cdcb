"""The demo upstream as a server: within a test's event loop, or as a process of its own.

async with DemoUpstream(Script(chunks=3)) as upstream:
    … upstream.base_url … upstream.truth.total.completed
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import Self

from gateway.demo.reply import Desk
from gateway.demo.script import Script
from gateway.demo.truth import Truth
from gateway.demo.wire import Wire

DEFAULT_MODEL = "openai/gpt-oss-120b"
BACKLOG = 4_096


class DemoUpstream:
    """`port` 0 takes a free one, which `port` then tells. `seed` makes its dice repeatable."""

    def __init__(
        self,
        script: Script = Script(),  # noqa: B008 - frozen, so that one default can be shared.
        *,
        models: tuple[str, ...] = (DEFAULT_MODEL,),
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
    ) -> None:
        self.script = script
        self.host = host
        self.port = port
        self.truth = Truth(time.monotonic)
        self.desk = Desk(models, random.Random(seed))
        self._in_line: deque[Script] = deque()
        self._connections: set[asyncio.Transport] = set()

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def take_script(self) -> Script:
        return self._in_line.popleft() if self._in_line else self.script

    def line_up(self, scripts: list[Script]) -> None:
        """Each serves one request, in order; the last one stands."""
        *first, self.script = scripts
        self._in_line = deque(first)

    def connected(self, transport: asyncio.Transport) -> None:
        self._connections.add(transport)
        self.truth.connected()

    def disconnected(self, transport: asyncio.Transport) -> None:
        self._connections.discard(transport)
        self.truth.disconnected()

    async def start(self) -> None:
        """Listen; after `stop`, on the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Wire(self), self.host, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections and break those that are open."""
        self._server.close()
        for transport in list(self._connections):
            transport.abort()
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
