"""The operators' listener: metrics, health, readiness, and the admin API behind its token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web

from gateway.core.errors import AdminForbidden, FieldInvalid, GatewayError, KeyUnknown, MethodNotAllowed, UrlUnknown
from gateway.journey import Rooms
from gateway.store.reports import Told
from gateway.web.admin_pages import PREFIX, content_of
from gateway.web.rendering import JSON, error_body, error_headers


@dataclass(slots=True)
class Desk:
    """What operators can ask for. `exposition` is the metrics and their content type; `obstacles` says why the
    gateway should get no traffic now; without a `token` the admin API is closed."""

    rooms: Rooms
    exposition: Callable[[], tuple[bytes, str]]
    obstacles: Callable[[], list[str]]
    token: str = ""
    reload: Callable[[], Awaitable[list[str]]] | None = None
    """Takes the configuration's file up anew, and tells what is wrong with it; None where there is no file."""


class AdminPlane:
    """`/metrics` for Prometheus, `/healthz` while the process lives, `/readyz` while it wants traffic, `/admin/v1`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._pages: dict[str, Callable[[], web.Response]] = {
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
            return await self._administer(request, path)
        page = self._pages.get(path)
        if page is None:
            raise UrlUnknown(f"The admin listener has {', '.join(self._pages)} and {PREFIX}.")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("This page is read with GET.", allow="GET")
        return page()

    async def _administer(self, request: web.BaseRequest, path: str) -> web.Response:
        check_token(request.headers, self._desk.token)
        if path == PREFIX + "reload":
            return await self._reload(request.method)
        if request.method != "GET":
            raise MethodNotAllowed("This page is read with GET.", allow="GET")
        return _json(200, await content_of(path, self._desk.rooms, request.rel_url.query))

    async def _reload(self, method: str) -> web.Response:
        if method != "POST":
            raise MethodNotAllowed("The configuration is taken up anew with POST.", allow="POST")
        if self._desk.reload is None:
            raise FieldInvalid("This gateway was started without a configuration file.")
        problems = await self._desk.reload()
        return _json(400 if problems else 200, {"taken_up": not problems, "problems": problems})

    def _metrics(self) -> web.Response:
        text, content_type = self._desk.exposition()
        return web.Response(body=text, headers={"content-type": content_type})

    def _health(self) -> web.Response:
        return _json(200, {"status": "alive"})

    def _readiness(self) -> web.Response:
        obstacles = self._desk.obstacles()
        if obstacles:
            return _json(503, {"status": "not ready", "because": obstacles})
        return _json(200, {"status": "ready"})


def check_token(headers: Mapping[str, str], token: str) -> None:
    """Raises AdminForbidden where no token is configured, KeyUnknown for another one than that."""
    if not token:
        raise AdminForbidden("The admin API is closed: set admin.token to open it.")
    given = headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
        raise KeyUnknown("Send the admin token as 'Authorization: Bearer TOKEN'.")


def _json(status: int, told: Told) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(told), headers=dict([JSON]))
