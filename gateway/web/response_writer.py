"""The client's side of an answer over HTTP/1.1: pieces go to the socket in the callback that brought them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from aiohttp import web

from gateway.core.endpoints import Dialect
from gateway.core.errors import ClientGone, GatewayError, RequestMalformed, ShuttingDown, UpgradeRequired
from gateway.core.response import Headers
from gateway.runtime.tasks import BackgroundTasks
from gateway.web.errors import SERVER, error_body, error_event, error_headers
from gateway.web.http_connection import HttpConnection

_COMMENT = b": keep-alive\n"
"""Without a blank line, which some clients take for the end of an event; so it may only stand between two events."""

_Response = TypeVar("_Response", bound=web.StreamResponse)


class HttpResponseWriter:
    """A `gateway.core.response.ResponseWriter`. `response` is what the connection is to end with, once it is set.

    aiohttp writes the head and the end; what is between is framed here (RFC 9112, section 7.1) and
    written to the transport, since its own `write` is a coroutine and costs a task switch a chunk.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        request_id: str,
        dialect: Dialect,
        tasks: BackgroundTasks,
        *,
        closing: bool,
        always: Headers = (),
    ) -> None:
        """`always` are headers of whatever answer it becomes."""
        self.response: web.StreamResponse | None = None
        self.started = False
        self._request = request
        self._connection: HttpConnection = request.protocol  # type: ignore[assignment]  # Listener makes no other.
        self._request_id = request_id
        self._dialect = dialect
        self._tasks = tasks
        self._closing = closing
        self._always = always
        self._chunked = request.version >= (1, 1)
        self._streams_events = False
        self._loop = asyncio.get_running_loop()
        self._alive: asyncio.TimerHandle | None = None
        self._written_at = 0.0
        self._last_bytes = b""

    @property
    def gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    @property
    def congested(self) -> bool:
        return self._connection.congested

    def on_writable(self, resume: Callable[[], None]) -> None:
        self._connection.resume = resume

    def keep_alive(self, every_s: float, headers: Callable[[], Headers]) -> None:
        if every_s > 0:
            self._written_at = self._loop.time()
            self._alive = self._loop.call_later(every_s, self._stay_alive, every_s, headers)

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        self._stop_timers()
        self.started = True
        self.response = self._with_head(web.Response(status=status, body=body), headers)

    async def start(self, status: int, headers: Headers) -> None:
        if self.started:
            return
        self.started = True
        self.response = self._with_head(web.StreamResponse(status=status), headers)
        self._streams_events = dict(headers).get("content-type", "").lower().startswith("text/event-stream")
        if self._streams_events:
            self.response.headers["cache-control"] = "no-cache"
            # nginx buffers streams unless this header forbids it (ngx_http_proxy_module).
            self.response.headers["x-accel-buffering"] = "no"
        if self._chunked:
            self.response.enable_chunked_encoding()
        else:
            self.response.force_close()
        try:
            await self.response.prepare(self._request)
        except ConnectionError:
            raise ClientGone("The client left before its answer began.") from None

    def write(self, data: bytes) -> None:
        transport = self._request.transport
        if data and transport is not None:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            self._written_at = self._loop.time()
            self._last_bytes = data[-4:]

    def finish(self) -> None:
        self._stop_timers()

    def fail(self, error: GatewayError) -> None:
        self._stop_timers()
        if not self.started:
            # A body that has not come whole is not waited for, and after a broken one it is not known where the next
            # request begins.
            is_unread = not self._request.content.is_eof()
            closes = isinstance(error, ShuttingDown | RequestMalformed | UpgradeRequired)
            self._closing = self._closing or is_unread or closes
            self.send(error.status, error_headers(error), error_body(error, self._dialect))
            return
        if self._streams_events:
            event = error_event(error, self._dialect)
            self.write(event if self._between_events else b"\n\n" + event)
        # What was written still goes out; the chunked coding's last chunk never does.
        self._connection.force_close()

    @property
    def _between_events(self) -> bool:
        return not self._last_bytes or self._last_bytes.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))

    def _stay_alive(self, every_s: float, headers: Callable[[], Headers]) -> None:
        due = self._written_at + every_s
        now = self._loop.time()
        if now >= due:
            due = now + every_s
            if not self.started and self._request.content.is_eof():
                # A client that still sends its body does not wait yet. The task ends at once: aiohttp's `prepare` is a
                # coroutine, but waits for nothing.
                event_stream = (*headers(), ("content-type", "text/event-stream; charset=utf-8"))
                self._tasks.start("keep-alive", self._begin_with_comment(event_stream))
            elif self._streams_events and self._between_events and not self.congested:
                self._write_comment()
        self._alive = self._loop.call_at(due, self._stay_alive, every_s, headers)

    async def _begin_with_comment(self, headers: Headers) -> None:
        if not self.started:
            with suppress(ClientGone):
                await self.start(200, headers)
            self._write_comment()

    def _write_comment(self) -> None:
        before = self._last_bytes
        self.write(_COMMENT)
        self._last_bytes = before

    def _stop_timers(self) -> None:
        """Nothing more is written on a timer, and the source is not resumed any more."""
        self._connection.resume = None
        if self._alive is not None:
            self._alive.cancel()
            self._alive = None

    def _with_head(self, response: _Response, headers: Headers) -> _Response:
        before = ""
        for name, value in (*self._always, *headers):
            # The lines of one header follow one another.
            if name == before:
                response.headers.add(name, value)
            else:
                response.headers[name] = value
            before = name
        response.headers["x-request-id"] = self._request_id
        if self._dialect is Dialect.ANTHROPIC:
            # Anthropic's libraries show it with an error.
            response.headers.setdefault("request-id", self._request_id)
        response.headers["server"] = SERVER
        if self._closing:
            response.force_close()
        return response
