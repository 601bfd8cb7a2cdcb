"""A request that another process answers: read as plain values, and its answer shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from gateway.core.response import Headers

_ASKED = {"authorization", "content-type", "accept"}
_NOT_SHOWN = {"connection", "content-length", "date", "server"}
"""What belongs to a connection, and is said anew on the next one."""


class Asked(NamedTuple):
    """`target` is the path with its query."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""


class Reply(NamedTuple):
    status: int
    headers: Headers
    body: bytes


def passed_to(answer: Callable[[Asked], Awaitable[Reply]]) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    """A handler that lets somebody else answer."""

    async def handle(request: web.BaseRequest) -> web.Response:
        headers = [(name.lower(), value) for name, value in request.headers.items() if name.lower() in _ASKED]
        reply = await answer(Asked(request.method, request.rel_url.raw_path_qs, headers, await request.read()))
        shown = {name: value for name, value in reply.headers if name not in _NOT_SHOWN}
        return web.Response(status=reply.status, headers=shown, body=reply.body)

    return handle
