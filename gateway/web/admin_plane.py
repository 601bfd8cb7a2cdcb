"""The operators' routes, on their own listener: metrics, health, readiness."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from gateway.core.errors import GatewayError, MethodNotAllowed, UrlUnknown
from gateway.web.rendering import JSON, error_body, error_headers

Exposition = Callable[[], tuple[bytes, str]]
"""The metrics as text, and its content type."""

Obstacles = Callable[[], list[str]]
"""Why the gateway should get no traffic now; nothing if it should."""


class AdminPlane:
    """`/metrics` for Prometheus, `/healthz` while the process lives, `/readyz` while it wants traffic."""

    def __init__(self, exposition: Exposition, obstacles: Obstacles) -> None:
        self._exposition = exposition
        self._obstacles = obstacles
        self._pages: dict[str, Callable[[], web.Response]] = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            page = self._pages.get(request.rel_url.raw_path)
            if page is None:
                raise UrlUnknown(f"The admin listener has {', '.join(self._pages)}.")
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed("This page is read with GET.", allow="GET")
            return page()
        except GatewayError as error:
            return web.Response(status=error.status, body=error_body(error), headers=dict(error_headers(error)))

    def _metrics(self) -> web.Response:
        text, content_type = self._exposition()
        return web.Response(body=text, headers={"content-type": content_type})

    def _health(self) -> web.Response:
        return _json(200, {"status": "alive"})

    def _readiness(self) -> web.Response:
        obstacles = self._obstacles()
        if obstacles:
            return _json(503, {"status": "not ready", "because": obstacles})
        return _json(200, {"status": "ready"})


def _json(status: int, told: dict[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(told), headers=dict([JSON]))
