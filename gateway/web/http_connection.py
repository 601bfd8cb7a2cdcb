"""The connections of clients. One tells its response writer when the client reads too slowly, and when it reads
again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from gateway.core.errors import InternalError, RequestMalformed
from gateway.web.errors import error_body, error_headers

SERVER = "inducta-gateway"

_HEAD_MAX = 32 * 1024
"""Bytes of one header: tokens in Authorization are longer than aiohttp's default of 8 KiB allows."""

_UNREAD_BYTES = 64 * 1024
"""Of a body that is taken more slowly than it comes: from twice as much on, the client is held back."""

_KEEPALIVE_S = 75.0
"""How long an idle connection stays, as nginx has it (`keepalive_timeout`)."""

_LAST_WRITE_S = 5.0
"""How long clients may take, when everything closes, to read what was written for them already."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpConnection(web.RequestHandler):
    """aiohttp's connection, with the write side's pauses made known at once, without a task."""

    congested = False
    resume: Callable[[], None] | None = None
    new_id: Callable[[], str]

    def pause_writing(self) -> None:
        self.congested = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.congested = False
        super().resume_writing()
        if self.resume is not None:
            self.resume()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP gets a JSON error too, and no traceback."""
        # Behind its first line the parser's message has the bytes at fault.
        what = (message or "it could not be parsed").partition("\n")[0].rstrip(" :.")
        error = (
            RequestMalformed(f"The request is not valid HTTP: {what}.")
            if status < 500
            else InternalError("The gateway failed.")
        )
        headers = dict(error_headers(error)) | {"server": SERVER, "x-request-id": self.new_id(), "connection": "close"}
        response = web.Response(status=error.status, body=error_body(error), headers=headers)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that breaks off is the client's fault, and it got an error: no defect of ours."""
        if not isinstance(kw.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kw)


class Listener(web.Server):
    """Makes a HttpConnection for each connection; a client that leaves cancels its request."""

    def __init__(self, handler: Handler, new_id: Callable[[], str]) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._new_id = new_id
        self._event_loop = asyncio.get_running_loop()
        self._open: set[web.RequestHandler] = set()
        self._empty = asyncio.Event()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open.add(handler)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open.discard(handler)
        if not self._open:
            self._empty.set()

    async def close(self) -> None:
        """Close idle connections at once, the others with what is still to be sent on them."""
        self.pre_shutdown()
        await self.shutdown(timeout=1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_S):
                while self._open:
                    self._empty.clear()
                    await self._empty.wait()

    def __call__(self) -> HttpConnection:
        connection = HttpConnection(
            self,
            loop=self._event_loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for no log of its own.
            keepalive_timeout=_KEEPALIVE_S,
            max_line_size=_HEAD_MAX,
            max_field_size=_HEAD_MAX,
            read_bufsize=_UNREAD_BYTES,
        )
        connection.new_id = self._new_id
        return connection
