"""The admin API's door: who may ask, what is read and what is done."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from gateway.core.errors import AdminForbidden, FieldInvalid, KeyUnknown, MethodNotAllowed
from gateway.pipeline import Services
from gateway.store.usage_report import JsonObject
from gateway.web.admin_pages import content_of
from gateway.web.admin_plane import PREFIX
from gateway.web.rendering import JSON


class AdminApi:
    """Everything under PREFIX. Without a token it is closed."""

    def __init__(self, services: Services, token: str) -> None:
        self.reload: Callable[[], Awaitable[list[str]]] | None = None
        """Takes the configuration's file up anew, and tells what is wrong with it; None where there is no file."""
        self._rooms = services
        self._token = token

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Raises a GatewayError for what it does not give."""
        check_token(request.headers, self._token)
        path = request.rel_url.raw_path
        if path == PREFIX + "reload":
            return await self._reload(request.method)
        if request.method != "GET":
            raise MethodNotAllowed("This page is read with GET.", allow="GET")
        return _json(200, await content_of(path, self._rooms, request.rel_url.query))

    async def _reload(self, method: str) -> web.Response:
        if method != "POST":
            raise MethodNotAllowed("The configuration is taken up anew with POST.", allow="POST")
        if self.reload is None:
            raise FieldInvalid("This gateway was started without a configuration file.")
        problems = await self.reload()
        return _json(400 if problems else 200, {"taken_up": not problems, "problems": problems})


def check_token(headers: Mapping[str, str], token: str) -> None:
    """Raises AdminForbidden where no token is configured, KeyUnknown for another one than that."""
    if not token:
        raise AdminForbidden("The admin API is closed: set admin.token to open it.")
    given = headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
        raise KeyUnknown("Send the admin token as 'Authorization: Bearer TOKEN'.")


def _json(status: int, told: JsonObject) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(told), headers=dict([JSON]))
