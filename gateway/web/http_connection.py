"""A connection of a client: serves one request after the other, each in the callback that brought it.

A request that has to wait for something gets a task there; one that is answered at once, as a refused key is, gets
none. Nor does one that waits for its turn: `begin` is called then. aiohttp's own way (`RequestHandler.start`) wakes a
task of the connection, which starts another for the request: two turns of the event loop before a handler runs. Of
aiohttp, the parser, the bodies and their flow control are used. The connection reports to its response writer when the
client reads too slowly, and when it reads again.

Bodies arrive as they were sent: the reader decodes them, once the sender is known.

The parser also gives the last trailer of a body in chunks to the next request, as its first header: behind a proxy that
shares its connections, that would be another client's request. So a connection is kept after a body in chunks only if
that body's end is seen to have no trailers. It is not kept if the next request came right behind the chunks, nor
after a request for another protocol, whose rest the parser reads where it cannot be watched.

A client that is behind with reading what was written for it is watched (web/slow_client.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.tcp_helpers import tcp_keepalive
from aiohttp.web_protocol import RequestPayloadError

from gateway.core.errors import GatewayError, InternalError, Overloaded, RequestMalformed
from gateway.core.response import Work
from gateway.runtime.tasks import start_owned
from gateway.runtime.timer_sweep import TimerSweep
from gateway.runtime.turn import Turn
from gateway.web.client_address import socket_address
from gateway.web.client_request import ClientRequest
from gateway.web.errors import error_body, error_fields
from gateway.web.ignored_upgrades import bytes_left
from gateway.web.response_head import response_head
from gateway.web.slow_client import SlowClient

_NO_MESSAGES: deque[Any] = deque(maxlen=0)
"""aiohttp's own queue of requests, which is not used. Each empty one would take 700 bytes."""

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
"""How a body in chunks ends that has no trailers. No other body does: `0` alone is no line of a trailer."""

_END_BYTES = len(_END_OF_CHUNKS)
_LAST = slice(-_END_BYTES, None)
"""As many bytes at the end of what was received."""

_LINGER_S = 5.0
"""How long a client that is refused within its body may send on, so that it reads why before the connection is closed:
as nginx has it (`lingering_timeout`). What it sends is dropped unread."""

Handler = Callable[[ClientRequest], Work | None]
"""Gives a request its answer; where it has to wait for something, returns the rest of that."""


_Head = tuple[RawRequestMessage, StreamReader]
"""A head, and the body that follows it."""


class HttpConnection(web.RequestHandler):
    """What is written for a client goes to `transport`, which is None once the connection ends: at once by `write`, by
    `turn` together with what others get in the same turn of the event loop."""

    pause: Callable[[], None] | None = None
    resume: Callable[[], None] | None = None
    response_began = False
    """Whether the answer to the request that is served has begun."""
    remote = ""
    """The client's address; empty where it has none, as with a Unix socket."""
    _socket: asyncio.Transport | None = None
    """The transport until it is closed: aiohttp forgets it before all that was written is sent."""
    _slow_client: SlowClient | None = None
    """While the client is behind with reading."""
    _served: ClientRequest | None = None
    _chunked_content: StreamReader | None = None
    """The chunked body, of the request that is served, that is coming."""
    _chunked_bytes = 0
    _body: StreamReader | None = None
    """Of the newest request that was parsed, until its end: from there on a head is received."""
    _is_chunked = False
    """Whether that body is in chunks."""
    _head_bytes = 0
    _fault: GatewayError | None = None
    """Why what came behind the requests that are still to be served is no HTTP."""
    _upgrade_left = 0
    """Bytes that are still to come of a request for a protocol that is not known."""
    _received_last = b""
    """As many bytes as `_END_OF_CHUNKS` has, of what came last of chunks or of a head that had not ended."""

    def __init__(
        self,
        server: web.Server,
        may_begin: Callable[[ClientRequest], bool],
        handler: Handler,
        new_id: Callable[[], str],
        timers: TimerSweep,
        turn: Turn,
        *,
        idle_s: float,
        stalled_s: float,
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for no log of its own.
            keepalive_timeout=idle_s,
            max_line_size=_HEAD_MAX,
            max_field_size=_HEAD_MAX,
            read_bufsize=_UNREAD_BYTES,
            auto_decompress=False,
        )
        self._messages = _NO_MESSAGES
        self.congested = False
        """Whether the client reads more slowly than is written for it."""
        self.is_last_answer = False
        """Whether the connection ends with the answer to the request that it has."""
        self._waiting: list[_Head] = []
        """Requests behind the one that is served."""
        self._may_begin = may_begin
        """Whether a request is to be served now; else `begin` is called when it is."""
        self._handler = handler
        self._new_id = new_id
        self._stalled_s = stalled_s
        self._timers = timers
        self.turn = turn
        self.held = b""
        self._idle_since = monotonic()
        self._expires_at: float | None = None
        """The time for which its timer is noted."""

    @property
    def has_more(self) -> bool:
        """Whether the client has sent further requests before it got this one's answer."""
        return bool(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._served is None and not self._waiting

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # only sockets come
        self._socket = transport
        BaseProtocol.connection_made(self, transport)  # aiohttp's own would start its task.
        peer = transport.get_extra_info("peername")
        self.remote = socket_address(str(peer[0])) if isinstance(peer, (list, tuple)) else ""
        tcp_keepalive(transport)
        assert self._manager is not None, "a connection is made once"
        self._manager.connection_made(self, transport)
        self._expires_at = self._timers.add(self, self._idle_since + self._keepalive_timeout)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_later()
        self.turn.take(self)  # aiohttp closes the transport once more, before which that would be written.
        self._socket = None
        self._watch_no_more()
        if self._expires_at is not None:
            self._timers.discard(self, self._expires_at)
            self._expires_at = None
        if self._served is not None:
            self._served.content.set_exception(exc or ConnectionResetError("The client left."))
        # They have this connection, and only a search for garbage would find both.
        self._served = self._chunked_content = None
        self._waiting.clear()
        super().connection_lost(exc)

    def _cancel_later(self) -> None:
        """End the request's task, for which nothing is left to be done, once it has begun: what the request holds
        already is given back by the task, and a task that is cancelled before its first step has none."""
        task, self._task_handler = self._task_handler, None
        if task is not None:
            self._loop.call_soon(task.cancel)

    def data_received(self, data: bytes) -> None:
        if self._force_close or self._close:
            return
        parser = self._parser
        assert parser is not None, "the connection is open"
        try:
            heads, changes_protocol, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            self._end_parsing(error)
            return
        if heads:
            self._take_heads(heads, data, changes_protocol)
        else:
            self._measure(len(data))
        if self._is_chunked or not heads:
            self._received_last = (data if len(data) >= _END_BYTES else self._received_last + data)[_LAST]
        body = self._body
        if body is not None and body.is_eof():
            self._body = None
            if changes_protocol or (self._is_chunked and self._received_last != _END_OF_CHUNKS):
                self._serve_no_more()
        if self._chunked_content is not None:
            self._judge_framing(self._chunked_content, len(data))
        if self._served is None and self._waiting:
            self._serve()

    def _take_heads(self, heads: list[_Head], data: bytes, changes_protocol: bool) -> None:
        """Heads have ended, in `data`: the last of them may be of a request after which another protocol is spoken."""
        message, content = heads[-1]
        if message.upgrade and not changes_protocol:
            self._ignore_upgrade(heads, data)
        self._head_bytes = 0
        self._waiting.extend(heads)
        if len(self._waiting) >= self._max_msg_queue_size and not self._buffer_paused:
            self._pause_reading_for_buffer()
        is_behind_chunks = self._is_chunked and self._body is not None
        for message, _ in heads:
            if is_behind_chunks:
                self._serve_no_more()
            is_behind_chunks = message.chunked
        self._is_chunked, self._body = is_behind_chunks, content

    def _ignore_upgrade(self, heads: list[_Head], data: bytes) -> None:
        """The last of what was received is a request for a protocol that is not known."""
        message, content = heads[-1]
        self._upgrade_left = left = bytes_left(message, data) if len(heads) == 1 else -1
        if left < 0:
            heads[-1] = message._replace(should_close=True), content

    def _end_parsing(self, error: HttpProcessingError) -> None:
        """What came is no HTTP. Within a body it ends that; else it is answered behind the requests before it."""
        self._close = True  # What comes behind it is not parsed, nor kept until the answers before it are given.
        body = self._body
        if body is not None and not body.is_eof():
            body.set_exception(RequestPayloadError(_fault_in(error)))
            return
        fault = RequestMalformed(f"The request is not valid HTTP: {_fault_in(error)}.")
        if self.is_idle:
            self.refuse(fault)
            self.force_close()
        else:
            self._fault = fault

    def _serve(self) -> None:
        """Serve what was received, up to the first request that has to wait for something."""
        while self._waiting:
            if self._served is not None or self._force_close:
                return
            message, content = self._waiting.pop(0)
            self._served = request = ClientRequest(message, content, self)
            self.response_began = False
            if message.should_close:
                self.is_last_answer = True
            if message.chunked and not content.is_eof():
                self._chunked_content, self._chunked_bytes = content, 0
            parser = self._parser
            assert parser is not None, "the connection is open"
            parser.message_consumed()
            if self._buffer_paused:
                self._take_more()
            if self._may_begin(request):
                self._handle(request)

    def begin(self, request: ClientRequest) -> bool:
        """Serve a request that had to wait for its turn. Whether it still can be: its client may have left, or be about
        to."""
        if self._served is not request or self._socket is None or self._socket.is_closing():
            return False
        self._handle(request)
        if self._waiting:
            self._serve()
        return True

    def _handle(self, request: ClientRequest) -> None:
        work = None
        try:
            if request.fault is not None:
                self.refuse(request.fault)
            else:
                work = self._handler(request)
        except Exception as defect:  # noqa: BLE001 # Whatever it is, the client has to have an answer.
            self._fail(request, defect)
        if work is None and self._body is None and not self.congested:
            self._end(request)
        else:
            self._task_handler = start_owned(self._serve_on(request, work), self._loop)

    def _take_more(self) -> None:
        """Let the parser go on, which waits until messages are taken: it keeps a few."""
        if len(self._waiting) <= self._msg_queue_resume_size:
            self.data_received(b"")  # What the parser has kept.
            if len(self._waiting) < self._max_msg_queue_size:
                self._resume_reading_for_buffer()

    async def _serve_on(self, request: ClientRequest, work: Work | None) -> None:
        """The rest of a request: its answer, until the client has read most of it, and what is left of its body."""
        try:
            if work is not None:
                await work()
            if self.congested:
                await self.client_has_read()
            if not (self._body is None or request.content.is_eof() or self._force_close):
                await self._drop_rest(request.content)
        except ConnectionError:
            self.force_close()
        except Exception as defect:  # noqa: BLE001 # As in `_handle`.
            self._fail(request, defect)
        except BaseException:
            self.force_close()
            raise
        finally:
            self._task_handler = None
        self._end(request)
        if self._waiting:
            self._serve()

    async def _drop_rest(self, content: StreamReader) -> None:
        """Take the rest of a body that is not read, so that the client gets to read its answer."""
        await asyncio.sleep(0)  # What read it until now was cancelled, and ends in this turn.
        try:
            async with asyncio.timeout(_LINGER_S):
                while not content.is_eof():
                    await content.readany()
        except (TimeoutError, RequestPayloadError):
            self.force_close()

    def _end(self, request: ClientRequest) -> None:
        """The request has its answer."""
        if not (self.response_began or self._force_close):
            self._fail(request, AssertionError("a handler gives an answer"))
        self._served = self._chunked_content = None
        if self.is_last_answer or (self._close and not self._waiting):
            if self._fault is not None and not (self.is_last_answer or self._force_close):
                self.refuse(self._fault)
            self.force_close()
        else:
            self._idle_since = monotonic()

    def _fail(self, request: ClientRequest, defect: Exception) -> None:
        """The handler gave no answer, or not all of it."""
        self.log_exception("a request for %s failed", request.path[:200], exc_info=defect)
        if self.response_began:
            self.force_close()
        else:
            self.refuse(InternalError("The gateway failed. Its log says where."))

    def refuse(self, error: GatewayError) -> None:
        """Answer with an error. The connection ends with it."""
        self.is_last_answer = True
        body = error_body(error)
        fields = f"{error_fields(error)}\r\nx-request-id: {self._new_id()}"
        self.begin_answer(error.status, fields, f"content-length: {len(body)}\r\n", body)

    def begin_answer(self, status: int, fields: str, framing: str, body: bytes | None) -> None:
        """Write the head of the answer to the request that is served, and its body; without one, the head alone,
        together with what comes in the same turn. `fields` and `framing` as in `response_head`."""
        served = self._served
        version = HttpVersion11 if served is None else served.version
        head = response_head(status, fields, framing, version=version, closes=self.is_last_answer)
        self.response_began = True
        if body is None:
            self.turn.hold(self, head)
        else:
            self.turn.write(self, head + body)

    def write(self, data: bytes | memoryview) -> None:
        """Write at once, behind what `turn` holds."""
        held = self.turn.take(self)
        self.write_now(held + data if held else data)

    def write_held(self) -> None:
        """Write at once what `turn` holds."""
        held = self.turn.take(self)
        if held:
            self.write_now(held)

    def write_now(self, data: bytes | memoryview) -> None:
        """Write, whatever `turn` holds."""
        if self.transport is not None:
            self.transport.write(data)

    async def client_has_read(self) -> None:
        """Wait until the client has read most of what was written. Raises ConnectionError if it has left."""
        await self._drain_helper()

    def _judge_framing(self, content: StreamReader, size: int) -> None:
        """So many bytes more of the chunked body of the request that is served now."""
        self._chunked_bytes += size
        if content.is_eof():
            self._chunked_content = None
        elif self._chunked_bytes > _FRAMING_BYTES + _FRAMING_SHARE * content.total_bytes:
            self._chunked_content = None
            content.set_exception(RequestPayloadError("its chunks are mostly framing"))

    def _measure(self, size: int) -> None:
        """So many bytes more of a head that has not ended, or of a body."""
        if self._body is None:
            self._head_bytes += size
            if self._head_bytes > _UNFINISHED_HEAD_BYTES:
                self._end_head()
        elif self._upgrade_left:
            self._upgrade_left -= size
            if self._upgrade_left < 0:
                self.is_last_answer = True

    def _end_head(self) -> None:
        """Take no more of a head, which is too long."""
        if self.is_idle:
            self.refuse(RequestMalformed("The request is not valid HTTP: its head does not end."))
            self.force_close()
        else:
            self._serve_no_more()

    def _serve_no_more(self) -> None:
        """End the connection once what it has now is answered: nothing that was received behind it is served."""
        self.is_last_answer = True
        self.close()

    def expired(self) -> None:
        """The time for a head may be over: it begins with the connection, and again with the end of each answer."""
        now = monotonic()
        until = self._keepalive_timeout + (self._idle_since if self.is_idle else now)
        if now < until:
            self._expires_at = self._timers.add(self, until)
        else:
            self._expires_at = None
            self.force_close()

    def close(self) -> None:
        """Serve nothing after what is served or was received; that may end."""
        super().close()
        if self.is_idle:
            self.force_close()

    def force_close(self) -> None:
        """Serve nothing more; what was written still goes out."""
        self.write_held()
        super().force_close()
        self._watch_client()

    def turn_away(self) -> None:
        """Refuse the client before it has sent anything."""
        text = "All connections of the gateway are in use. Try again soon."
        self.refuse(Overloaded(text, retry_after_ms=1000))
        self.force_close()

    def give_way(self) -> None:
        """End an idle connection and its descriptor, which a client that has not taken its last answer would keep."""
        self.force_close()
        if self._socket is not None and self._socket.get_write_buffer_size():
            self._socket.abort()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp asks for it at the end of every body, and then the transport, whether or not it was paused.
        if self._reading_paused or resume_parser:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        self.congested = True
        super().pause_writing()
        if self.pause is not None:
            self.pause()
        self._watch_client()

    def resume_writing(self) -> None:
        self.congested = False
        super().resume_writing()
        if self._socket is not None and not self._socket.is_closing():
            self._watch_no_more()
        if self.resume is not None:
            self.resume()

    def _watch_client(self) -> None:
        """Watch whether the client reads."""
        if self._socket is not None and self._slow_client is None:
            self._slow_client = SlowClient(self._socket, self._stalled_s)

    def _watch_no_more(self) -> None:
        if self._slow_client is not None:
            self._slow_client.end()
            self._slow_client = None


def _fault_in(error: HttpProcessingError) -> str:
    """What is not HTTP: behind its first line the parser's message has the bytes at fault."""
    return error.message.partition("\n")[0].rstrip(" :.")
