"""A receiver of webhooks on a loopback port, which remembers what it was sent and answers as it is told.

It checks signatures by itself, as the specification of Standard Webhooks says, without the gateway's code.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

from tests.whole_gateway import PATIENCE_S, Json

SECRET = "whsec_" + b64encode(b"a secret of a test, 32 bytes it is").decode()


class Delivery(NamedTuple):
    """One attempt, and the status that it was answered with."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Json:
        parsed: Json = json.loads(self.body)
        return parsed

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def is_signed(self) -> bool:
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.digest(b64decode(SECRET.removeprefix("whsec_")), signed, "sha256")
        return self.headers["webhook-signature"] == f"v1,{b64encode(digest).decode()}"


class WebhookReceiver:
    """`status` says what the n-th attempt is answered with, from 1 on."""

    def __init__(self, status: Callable[[int], int]) -> None:
        self.attempts: list[Delivery] = []
        self.port = 0
        self._status = status
        self._came = asyncio.Condition()

    @property
    def taken(self) -> list[Delivery]:
        """Those that were answered with success."""
        return [each for each in self.attempts if 200 <= each.status < 300]

    def channel(self, **changes: Any) -> Json:
        """A receiver of `notify` that leads here."""
        written = {"url": f"http://127.0.0.1:{self.port}/hook-Xb7Tq2Lm9Rz4", "format": "json", "secret": SECRET}
        return {**written, **changes}

    async def until(self, happened: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(patience_s), self._came:
            await self._came.wait_for(happened)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self._status(len(self.attempts) + 1)
        async with self._came:
            self.attempts.append(Delivery(request.path_qs, lower(request.headers), body, status))
            self._came.notify_all()
        return web.Response(status=status, headers={"location": "/elsewhere"} if 300 <= status < 400 else {})


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@asynccontextmanager
async def webhook_receiver(status: Callable[[int], int] = lambda _attempt: 204) -> AsyncIterator[WebhookReceiver]:
    receiver = WebhookReceiver(status)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    receiver.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield receiver
    finally:
        await runner.cleanup()
