"""The client's side of an answer over HTTP/1.1: pieces go to the socket at the end of the turn that brought them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gateway.core.endpoints import Dialect
from gateway.core.errors import ClientGone, GatewayError
from gateway.core.response import AnswerSource, Headers
from gateway.runtime.timer_sweep import TimerSweep
from gateway.web.client_request import ClientRequest
from gateway.web.errors import error_body, error_event, error_fields
from gateway.web.response_head import CHUNKED, WITHOUT_LENGTH, field_lines

_COMMENT = b": keep-alive\n"
"""Without a blank line, which some clients take for the end of an event; so it may only be between two events."""

_ANTHROPIC = Dialect.ANTHROPIC  # Slow to reach through the class in Python 3.11.

_SHORT_BYTES = 1024
_CHUNK_HEADS = tuple([b"%x\r\n" % size for size in range(_SHORT_BYTES)])
"""The heads of short chunks, by their sizes: an event is short, and to write a head takes longer than to find it."""

_LAST_CHUNK = b"0\r\n\r\n"

_LOOKS = 8
"""How many times in the span after which silence is broken the writer looks whether it wrote. So a piece need not read
the clock, and a comment comes by a fifth of the span late at most: an eighth, and what a timer is late."""


class HttpResponseWriter:
    """A `gateway.core.response.ResponseWriter`.

    The head is written with the first bytes of the body, and what follows is framed here (RFC 9112, section 7.1):
    aiohttp's own `write` is a coroutine and costs a task switch a chunk.
    """

    __slots__ = (
        "_always",
        "_chunked",
        "_closing",
        "_connection",
        "_dialect",
        "_has_written",
        "_is_called_back",
        "_limit_lines",
        "_look_every_s",
        "_looks_at",
        "_request",
        "_request_id",
        "_silent_looks",
        "_source",
        "_streams_events",
        "_timers",
        "started",
    )

    _limit_lines: Callable[[], str]
    _look_every_s: float
    _silent_looks: int

    def __init__(
        self,
        request: ClientRequest,
        request_id: str,
        dialect: Dialect,
        *,
        closing: bool,
        timers: TimerSweep,
        always: Headers = (),
    ) -> None:
        """`always` are headers of whatever answer it becomes."""
        self.started = self._chunked = self._streams_events = self._has_written = False
        self._is_called_back = False
        """Whether a timer or a pause of the connection may call this writer or its source."""
        self._source: AnswerSource | None = None
        self._looks_at: float | None = None
        """The time for which a look for silence is noted."""
        self._timers = timers
        self._request = request
        self._connection = request.connection
        self._request_id = request_id
        self._dialect = dialect
        self._closing = closing
        self._always = always

    @property
    def gone(self) -> bool:
        transport = self._connection.transport
        return transport is None or transport.is_closing()

    @property
    def congested(self) -> bool:
        return self._connection.congested

    def control_source(self, source: AnswerSource) -> None:
        self._source = source
        self._connection.pause, self._connection.resume = source.pause, source.resume
        self._is_called_back = True
        if self._connection.congested:
            source.pause()

    def keep_alive(self, every_s: float, limit_lines: Callable[[], str]) -> None:
        if every_s > 0:
            self._is_called_back = True
            self._look_every_s, self._limit_lines, self._silent_looks = every_s / _LOOKS, limit_lines, 0
            self._look_later()

    def send(self, status: int, headers: Headers, body: bytes, limit_lines: str = "") -> None:
        self._send(status, field_lines(headers) + limit_lines, body)

    def _send(self, status: int, fields: str, body: bytes) -> None:
        if self._is_called_back:
            self._stop_timers()
        framing = "" if status in WITHOUT_LENGTH else f"content-length: {len(body)}\r\n"
        self._begin(status, fields, framing, body)

    def start(self, status: int, headers: Headers, limit_lines: str = "") -> None:
        if self.started:
            return
        if self.gone:
            raise ClientGone("The client left before its answer began.")
        self._streams_events = dict(headers).get("content-type", "").lower().startswith("text/event-stream")
        if self._streams_events:
            # nginx buffers streams unless the second one forbids it (ngx_http_proxy_module).
            headers = (*headers, ("cache-control", "no-cache"), ("x-accel-buffering", "no"))
        self._chunked = self._request.version >= (1, 1)
        self._closing = self._closing or not self._chunked
        self._begin(status, field_lines(headers) + limit_lines, CHUNKED if self._chunked else "", None)

    def write(self, data: bytes) -> None:
        connection = self._connection
        if data and connection.transport is not None:
            if self._chunked:
                size = len(data)
                head = _CHUNK_HEADS[size] if size < _SHORT_BYTES else b"%x\r\n" % size
                data = b"".join((head, data, b"\r\n"))
            connection.turn.hold(connection, data)
            self._has_written = True

    def flush(self) -> None:
        self._connection.write_held()

    def finish(self) -> None:
        self._stop_timers()
        if self._chunked:
            self._connection.write(_LAST_CHUNK)

    def fail(self, error: GatewayError) -> None:
        if not self.started:
            # A body that has not come whole is not waited for, and after a broken one it is not known where the next
            # request begins.
            self._closing = self._closing or error.ends_connection or not self._request.content.is_eof()
            dialect = self._dialect
            body = error.bodies.get(dialect) or error_body(error, dialect)
            self._send(error.status, error.fields or error_fields(error), body)
            return
        if self._streams_events:
            event = error_event(error, self._dialect)
            self.write(event if self._is_between_events() else b"\n\n" + event)
        self._stop_timers()
        # What was written still goes out; the chunked coding's last chunk never does.
        self._connection.force_close()

    def _is_between_events(self) -> bool:
        # Until there is a source, nothing but comments is written.
        return self._source is None or self._source.is_between_events()

    def _look_later(self) -> None:
        self._looks_at = self._timers.add(self, monotonic() + self._look_every_s)

    def expired(self) -> None:
        """Look for silence."""
        if self._has_written:
            self._has_written, self._silent_looks = False, 0
        else:
            self._silent_looks += 1
        if self._silent_looks >= _LOOKS:
            self._silent_looks = 0
            self._break_silence()
        self._look_later()

    def _break_silence(self) -> None:
        if not self.started and self._request.content.is_eof():
            # A client that still sends its body does not wait yet.
            self._begin_with_comment()
        elif self._streams_events and self._is_between_events() and not self.congested:
            self._write_comment()

    def _begin_with_comment(self) -> None:
        if not self.gone:
            self.start(200, [("content-type", "text/event-stream; charset=utf-8")], self._limit_lines())
            self._write_comment()

    def _write_comment(self) -> None:
        self.write(_COMMENT)
        self._has_written = False

    def _stop_timers(self) -> None:
        """Nothing more is written on a timer, and the source is neither paused nor resumed any more."""
        connection = self._connection
        connection.pause = connection.resume = None
        self._source = None  # It has this writer, and only a search for garbage would find both.
        if self._looks_at is not None:
            self._timers.discard(self, self._looks_at)
            self._looks_at = None

    def _begin(self, status: int, fields: str, framing: str, body: bytes | None) -> None:
        connection, request_id = self._connection, self._request_id
        if (body or framing is CHUNKED) and "\r\ncontent-type: " not in fields:
            fields += "\r\ncontent-type: application/octet-stream"
        if self._dialect is _ANTHROPIC and "\r\nrequest-id: " not in fields:
            # Anthropic's libraries show it with an error.
            fields += f"\r\nrequest-id: {request_id}"
        if self._always:
            fields += field_lines(self._always)
        if self._closing:
            connection.is_last_answer = True
        connection.begin_answer(status, f"{fields}\r\nx-request-id: {request_id}", framing, body)
        self.started = True


class HeadWriter(HttpResponseWriter):
    """The same of a `HEAD` request, whose answer has no body (RFC 9110, section 9.3.2)."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        """Nothing of it is sent."""

    def finish(self) -> None:
        self._stop_timers()

    def _begin(self, status: int, fields: str, framing: str, body: bytes | None) -> None:
        super()._begin(status, fields, framing, b"")
