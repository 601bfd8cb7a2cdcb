"""The operators' listener: metrics, health, readiness, and the admin API behind its token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiohttp import web

from gateway.core.errors import GatewayError, MethodNotAllowed, UrlUnknown
from gateway.web.errors import JSON, error_body, error_headers

PREFIX = "/admin/v1/"


class Desk(NamedTuple):
    """What operators can ask for."""

    exposition: Callable[[], Awaitable[tuple[bytes, str]]]
    """The metrics and their content type."""

    ailments: Callable[[], Awaitable[list[str]]]
    """Why the gateway is to be started anew."""

    obstacles: Callable[[], Awaitable[list[str]]]
    """Why the gateway should get no traffic now."""

    administer: Callable[[web.BaseRequest], Awaitable[web.Response]]
    """Answers what comes to the admin API. Raises a GatewayError for what it does not give."""


class AdminPlane:
    """`/metrics` for Prometheus, `/healthz` while the gateway lives, `/readyz` while it wants traffic, `/admin/v1`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._pages: dict[str, Callable[[], Awaitable[web.Response]]] = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except GatewayError as error:
            return web.Response(status=error.status, body=error_body(error), headers=dict(error_headers(error)))

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        if path.startswith(PREFIX):
            return await self._desk.administer(request)
        page = self._pages.get(path)
        if page is None:
            raise UrlUnknown(f"The admin listener has {', '.join(self._pages)} and {PREFIX}.")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("This page is read with GET.", allow="GET")
        return await page()

    async def _metrics(self) -> web.Response:
        text, content_type = await self._desk.exposition()
        return web.Response(body=text, headers={"content-type": content_type})

    async def _health(self) -> web.Response:
        return _state("alive", "not alive", await self._desk.ailments())

    async def _readiness(self) -> web.Response:
        return _state("ready", "not ready", await self._desk.obstacles())


def _state(good: str, bad: str, because: list[str]) -> web.Response:
    told = {"status": bad, "because": because} if because else {"status": good}
    return web.Response(status=503 if because else 200, body=msgspec.json.encode(told), headers=dict([JSON]))
