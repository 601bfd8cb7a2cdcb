"""One client's connection. It tells the sink when the client reads too slowly, and when it reads again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.core.errors import InternalError, RequestMalformed
from gateway.web.rendering import error_body, error_headers

SERVER = "inducta-gateway"

_HEAD_MAX = 32 * 1024
"""Bytes of one header: tokens in Authorization are longer than aiohttp's default of 8 KiB allows."""

_KEEPALIVE_S = 75.0
"""How long an idle connection stays, as nginx has it (`keepalive_timeout`)."""


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Line(web.RequestHandler):
    """aiohttp's connection, with the write side's pauses made known at once, without a task."""

    congested = False
    relieved: Callable[[], None] | None = None

    def pause_writing(self) -> None:
        self.congested = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.congested = False
        super().resume_writing()
        if self.relieved is not None:
            self.relieved()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP gets a JSON error too, and no traceback."""
        error = (
            RequestMalformed(f"The request is not valid HTTP: {message or 'it could not be parsed'}.")
            if status < 500
            else InternalError("The gateway failed.")
        )
        headers = dict(error_headers(error)) | {"server": SERVER}
        response = web.Response(status=error.status, body=error_body(error), headers=headers)
        response.force_close()
        return response


class Listener(web.Server):
    """Makes a Line for each connection; a client that leaves cancels its request."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._event_loop = asyncio.get_running_loop()

    def __call__(self) -> Line:
        return Line(
            self,
            loop=self._event_loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for no log of its own.
            keepalive_timeout=_KEEPALIVE_S,
            max_line_size=_HEAD_MAX,
            max_field_size=_HEAD_MAX,
        )
