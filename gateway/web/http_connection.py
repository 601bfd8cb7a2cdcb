"""The connections of clients. A connection reports to its response writer when the client reads too slowly, and when it
reads again.

aiohttp's parser accepts more than RFC 9112 lets a server accept: the difference is refused here, before a handler sees
it. Bodies arrive as they were sent: the reader decodes them, once the sender is known.

The parser also gives the last trailer of a body in chunks to the next request, as its first header: behind a proxy that
shares its connections, that would be another client's request. So a connection is kept after a body in chunks only if
that body's end is seen to have no trailers. It is not kept if the next request came right behind the chunks, and
neither after a request for another protocol, whose rest the parser reads where it cannot be watched.

Clients cannot use up what others need. A listener has a limited number of connections: for a new one the idle
connection that was used least recently is closed, or, if the oldest are all at work, the new one is refused. A client
that reads nothing of what was written for it is disconnected after a while, whether its answer is complete or not.
In one turn of the event loop a few requests begin; those beyond wait (runtime/turn_queue.py), and a request that was
sent ahead of an answer waits in another line than one of a client that waits for its answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from itertools import islice
from typing import Any, NamedTuple

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestPayloadError

from gateway.core.errors import (
    GatewayError,
    InternalError,
    Overloaded,
    RequestMalformed,
    TransferCodingUnsupported,
    VersionUnsupported,
)
from gateway.runtime.turn_queue import TurnQueue
from gateway.web.errors import SERVER, error_body, error_headers

_HEAD_MAX = 32 * 1024
"""Bytes of one header: tokens in Authorization are longer than aiohttp's default of 8 KiB allows."""

_UNFINISHED_HEAD_BYTES = 64 * 1024
"""Of a head whose end has not come: the headers that it may have are 4 MiB, and strangers can begin many."""

_UNREAD_BYTES = 64 * 1024
"""Of a body that is read more slowly than it comes: from twice as much on, the client has to wait."""

_FRAMING_BYTES = 64 * 1024
_FRAMING_SHARE = 16
"""What the framing of a chunked body may take: so many bytes, and so many more for each byte of content. A chunk of one
byte takes 6; extensions of chunks (RFC 9112, section 7.1.1) have no use here, and no bound of their own."""

_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_END_BYTES = len(_END_OF_CHUNKS)
"""How a body in chunks ends that has no trailers. No other body does: `0` alone is no line of a trailer."""

_LINGER_S = 5.0
"""How long a client that is refused within its body may send on, so that it reads why before the connection is closed:
as nginx has it (`lingering_timeout`). What it sends is dropped unread."""

_LAST_WRITE_S = 5.0
"""How long clients may take, when everything closes, to read what was written for them already."""

_BEGUN_PER_TURN = 16
"""Requests, whatever they ask for: twice as many as of all teams begin behind it (runtime/start_queue.py), so that a
request soon waits in the line of its team. To refuse as many takes 4 ms."""

_LOOKED_AT = 100
"""Connections, of those used least recently, of which one is sought that is idle: a full listener stays quick."""


class ClientLimits(NamedTuple):
    """`connections` at any time; `stalled_s` is how long a client may take nothing of what was written for it, as nginx
    has it (`send_timeout`); `idle_s` is how long a connection stays without a whole head, from its
    beginning or its last answer on (`keepalive_timeout`)."""

    connections: int
    stalled_s: float = 60.0
    idle_s: float = 75.0


ADMIN_CLIENTS = ClientLimits(connections=256)
"""Of the admin listener: apart from those of clients, so that a flood of these leaves operators and probes in."""


class HttpConnection(web.RequestHandler):
    """aiohttp's connection, with the write side's pauses made known at once, without a task."""

    congested = False
    pause: Callable[[], None] | None = None
    resume: Callable[[], None] | None = None
    new_id: Callable[[], str]
    nothing: asyncio.Future[None]
    """What to wait for where there is nothing to wait for: it is done."""
    response_began = False
    """Whether the answer to a request has begun, and has not ended."""
    stalled_s: float
    _socket: asyncio.Transport | None = None
    """The transport until it is closed: aiohttp forgets it before all that was written is sent."""
    _stall_timer: asyncio.TimerHandle | None = None
    _unsent = 0
    _chunked_content: StreamReader | None = None
    """The chunked body, of the request that is served, that is coming."""
    _bytes_of_it = 0
    is_last_answer = False
    """Whether the connection ends with the answer to the request that it has."""
    _body: StreamReader | None = None
    """Of the newest request that was parsed, until its end: from there on a head is received."""
    _is_chunked = False
    """Whether that body is in chunks."""
    _head_bytes = 0
    _received_last = b""
    """As many bytes as `_END_OF_CHUNKS` has."""

    def expect_chunks(self, content: StreamReader) -> None:
        """The body of the request that begins now comes in chunks."""
        self._chunked_content = None if content.is_eof() else content
        self._bytes_of_it = 0

    def data_received(self, data: bytes) -> None:
        messages = self._messages
        known, body = len(messages), self._body
        web.RequestHandler.data_received(self, data)  # By name: `super()` makes an object for each piece.
        if len(data) >= _END_BYTES:
            self._received_last = data[-_END_BYTES:]
        else:
            self._received_last = (self._received_last + data)[-_END_BYTES:]
        if len(messages) > known:
            self._head_bytes = 0
            for message, content in islice(messages, known, None):
                if body is not None and self._is_chunked:
                    self._serve_no_more()
                body = content
                self._is_chunked = isinstance(message, RawRequestMessage) and message.chunked
        elif body is None:
            self._head_bytes += len(data)
            if self._head_bytes > _UNFINISHED_HEAD_BYTES:
                self._refuse_head()
        if body is not None and body.is_eof():
            body = None
            if self._upgraded or (self._is_chunked and self._received_last != _END_OF_CHUNKS):
                self._serve_no_more()
        self._body = body
        if self._chunked_content is not None:
            self._judge_framing(self._chunked_content, len(data))

    def _judge_framing(self, content: StreamReader, size: int) -> None:
        """So many bytes more of the chunked body of the request that is served now."""
        self._bytes_of_it += size
        if content.is_eof():
            self._chunked_content = None
        elif self._bytes_of_it > _FRAMING_BYTES + _FRAMING_SHARE * content.total_bytes:
            self._chunked_content = None
            content.set_exception(RequestPayloadError("its chunks are mostly framing"))

    def _refuse_head(self) -> None:
        if not self.is_idle or self._socket is None:
            self._serve_no_more()
            return
        self._socket.write(_HEAD_TOO_LARGE)
        self.force_close()

    def _serve_no_more(self) -> None:
        """End the connection once what it has now is answered: nothing that was received behind it is served."""
        self.is_last_answer = True
        self.close()

    @property
    def has_more(self) -> bool:
        """Whether the client has sent further requests before it got this one's answer."""
        return bool(self._messages)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiter is not None

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp asks for it at the end of every body, and then the transport, whether or not it was paused.
        if self._reading_paused or resume_parser:
            super().resume_reading(resume_parser)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # only sockets come
        self._socket = transport
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._socket = None
        self._stop_stall_timer()
        super().connection_lost(exc)

    def force_close(self) -> None:
        super().force_close()
        self._expect_progress()

    async def start(self) -> None:
        try:
            await super().start()
        finally:
            self._expect_progress()

    def turn_away(self) -> None:
        """Refuse the client before it has sent anything."""
        assert self._socket is not None, "its connection was just made"
        self._socket.write(_TURNED_AWAY)
        self.force_close()

    def give_way(self) -> None:
        """End an idle connection and its descriptor, which a client that has not taken its last answer would keep."""
        self.force_close()
        if self._socket is not None and self._socket.get_write_buffer_size():
            self._socket.abort()

    def pause_writing(self) -> None:
        self.congested = True
        super().pause_writing()
        if self.pause is not None:
            self.pause()
        self._expect_progress()

    def resume_writing(self) -> None:
        self.congested = False
        super().resume_writing()
        if self._socket is not None and not self._socket.is_closing():
            self._stop_stall_timer()
        if self.resume is not None:
            self.resume()

    def _expect_progress(self) -> None:
        """Disconnect the client unless it takes some of what is written, again and again."""
        if self._socket is not None and self._stall_timer is None:
            self._unsent = self._socket.get_write_buffer_size()
            self._stall_timer = asyncio.get_running_loop().call_later(self.stalled_s, self._check_progress)

    def _check_progress(self) -> None:
        self._stall_timer = None
        if self._socket is None:
            return
        # While the client is behind, its source is paused and nothing is added.
        if self._socket.get_write_buffer_size() >= self._unsent:
            self._socket.abort()
        else:
            self._expect_progress()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP gets a JSON error too, and no traceback. Raises ConnectionError if an answer has begun."""
        if self.response_began:
            self.force_close()
            raise ConnectionError("no second answer can follow the first")
        # Behind its first line the parser's message has the bytes at fault.
        what = (message or "it could not be parsed").partition("\n")[0].rstrip(" :.")
        if status < 500:
            return self.refusal(RequestMalformed(f"The request is not valid HTTP: {what}."))
        return self.refusal(InternalError("The gateway failed."))

    def refusal(self, error: GatewayError) -> web.Response:
        """Ends the connection, too."""
        headers = dict(error_headers(error)) | {"server": SERVER, "x-request-id": self.new_id(), "connection": "close"}
        response = web.Response(status=error.status, body=error_body(error), headers=headers)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that breaks off is the client's fault, and it got an error: no defect of ours."""
        if not isinstance(kw.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **kw)


class ClientRequest(web.BaseRequest):
    """`fault` is why it is refused at once; `is_last` says that the client wants the connection to end with it."""

    connection: HttpConnection
    fault: GatewayError | None
    is_last: bool


def _fault_of(message: RawRequestMessage) -> GatewayError | None:
    """Why a request that the parser let through cannot be served."""
    version, headers = message.version, message.headers
    if version[0] != 1:
        return VersionUnsupported(f"HTTP/{version[0]}.{version[1]} is not served. Send HTTP/1.1.")
    if "#" in message.path:
        return RequestMalformed("The request is not valid HTTP: its target has a fragment ('#').")
    # What could not be parsed has headers of no kind.
    if "transfer-encoding" not in headers:
        return None
    if version < HttpVersion11:
        # A proxy in between that does not know chunks sees another end of the body (RFC 9112, section 6.1).
        return RequestMalformed("The request is not valid HTTP: HTTP/1.0 has no transfer-encoding.")
    codings = headers.getall("transfer-encoding")
    if len(codings) > 1 or codings[0].lower() != "chunked":
        named = ", ".join(codings)[:100]
        return TransferCodingUnsupported(f"The transfer-encoding {named!r} is not supported. Send chunked alone.")
    return None


Handler = Callable[[ClientRequest], Awaitable[web.StreamResponse]]


async def _refused(connection: HttpConnection, fault: GatewayError) -> web.StreamResponse:
    return connection.refusal(fault)


def _last_answer(error: GatewayError) -> bytes:
    """Of a connection that has no request."""
    body = error_body(error)
    headers = [*error_headers(error), ("server", SERVER), ("connection", "close"), ("content-length", str(len(body)))]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}\r\n".encode() + body


_TURNED_AWAY = _last_answer(
    Overloaded("All connections of the gateway are in use. Try again soon.", retry_after_ms=1000)
)
_HEAD_TOO_LARGE = _last_answer(RequestMalformed("The request is not valid HTTP: its head does not end."))


class Listener(web.Server):
    """Makes a HttpConnection for each connection; a client that leaves cancels its request. `refused` counts the
    connections that were turned away, and idle ones that were closed for others."""

    def __init__(self, handler: Handler, new_id: Callable[[], str], limits: ClientLimits) -> None:
        super().__init__(
            self._handle,  # type: ignore[arg-type]  # `_request` makes no other requests.
            request_factory=self._request,  # type: ignore[arg-type]  # This listener makes no other connections.
            handler_cancellation=True,
        )
        self.limits = limits
        self.refused = 0
        self._handler = handler
        self._new_id = new_id
        self._event_loop = asyncio.get_running_loop()
        self._begins = TurnQueue(_BEGUN_PER_TURN)
        self._open: dict[HttpConnection, None] = {}
        """By their last request, or their beginning: the least recent first."""
        self._empty = asyncio.Event()
        self._nothing: asyncio.Future[None] = self._event_loop.create_future()
        self._nothing.set_result(None)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: HttpConnection,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> ClientRequest:
        fault = _fault_of(message)
        if fault is not None:
            # An answer in a version that is not understood would be wrong, too.
            message = message._replace(version=HttpVersion11)
        if message.url.absolute:
            # Whom it names says nothing here, and aiohttp would fail to read some names.
            message = message._replace(url=message.url.relative())
        request = ClientRequest(message, payload, connection, writer, task, self._event_loop)
        request.connection, request.fault, request.is_last = connection, fault, message.should_close
        connection.response_began = False
        if message.chunked:
            connection.expect_chunks(payload)
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None
        return request

    def _handle(self, request: ClientRequest) -> Awaitable[web.StreamResponse]:
        if request.fault is not None:
            return _refused(request.connection, request.fault)
        if self._begins.try_begin():
            return self._handler(request)
        return self._handle_later(request)

    async def _handle_later(self, request: ClientRequest) -> web.StreamResponse:
        await self._begins.wait(f"{request.remote} {request.connection.has_more}")
        return await self._handler(request)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, HttpConnection), "this listener makes no other"
        if len(self._open) >= self.limits.connections:
            self.refused += 1
            if not self._close_idle():
                handler.turn_away()
                return
        self._open[handler] = None

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open.pop(handler, None)  # type: ignore[call-overload]  # This listener makes no other.
        if not self._open:
            self._empty.set()

    def _close_idle(self) -> bool:
        for connection in islice(self._open, _LOOKED_AT):
            if connection.is_idle:
                connection.give_way()
                del self._open[connection]
                return True
        return False

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
            keepalive_timeout=self.limits.idle_s,
            max_line_size=_HEAD_MAX,
            max_field_size=_HEAD_MAX,
            read_bufsize=_UNREAD_BYTES,
            auto_decompress=False,
            lingering_time=_LINGER_S,
        )
        connection.new_id = self._new_id
        connection.nothing = self._nothing
        connection.stalled_s = self.limits.stalled_s
        return connection
