"""One connection to an upstream: one exchange at a time.

Bytes go from the socket through the framing to the response without a task switch. What a connection
is doing is its state:

    IDLE       No exchange: new, or back at its owner after a response that ended cleanly. Bytes that
               arrive answer no request: they close it, and its owner closes the other idle connections,
               since the next answer there could be another request's. The end of its idle time closes it, too.
    HELD       `begin` was called, and the request waits for the end of the turn of the event loop
               (runtime/turn.py). Nothing of it is written, so that bytes that arrive answer no request yet.
               Only `timeouts.total` is a limit.
    SENDING    Some of the request is still to be written, or still to be taken by
               the upstream. The limit is `timeouts.idle` for each part that the upstream takes, and for
               each part that an upload waits for.
    AWAITING   The request is flushed. The limit is `timeouts.first_byte`.
    RECEIVING  The first byte of the body has come, and the response is awaited no more. The limit
               is `timeouts.idle` between two pieces; while the reader has paused, only `timeouts.total`.
               The upstream need not have taken the whole request: an early answer ends an upload.
    CLOSED     Permanently.

    IDLE --begin--> HELD --written--> SENDING --flushed--> AWAITING --first piece--> RECEIVING --end--> IDLE
                                         \\------------first piece------------------^

A new connection, a long request and one with an upload are not held.

A response without a body, or one that fails before its body, goes from SENDING or AWAITING straight to
its end. A response whose framing ended it, on a connection that may be kept and whose request is sent,
returns the connection to its owner; every other end closes it. `abort` closes from any state.

A server may close an idle connection in the moment in which it is used again. The sender gets
StaleConnection, if the server cannot have received the whole request; any other close before the response
is a failure of the upstream, which may have worked on the request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import Enum, StrEnum, auto
from time import monotonic, thread_time
from typing import Protocol

from gateway.core.request import BodyTail
from gateway.core.snapshot import Upstream
from gateway.runtime.relay_queue import COSTLY_S, cost_since
from gateway.upstream.client_options import READ_BYTES, SHORT_READ_BYTES, ClientOptions
from gateway.upstream.contract import FailureReason
from gateway.upstream.deadlines import Deadlines
from gateway.upstream.framing import NO_HEADERS, Framing
from gateway.upstream.response_stream import ResponseStream
from gateway.upstream.socket_queues import has_unacknowledged, has_unread
from gateway.upstream.upload import Upload

ONE_WRITE_BYTES = 65_536
"""Up to here head and body go out joined, in one system call; a larger body is not copied for it."""

HUNG_UP = FailureReason("hung_up", "closed the connection before it answered")


class ConnectionState(Enum):
    IDLE = auto()
    HELD = auto()
    SENDING = auto()
    AWAITING = auto()
    RECEIVING = auto()
    CLOSED = auto()


class HangUp(StrEnum):
    """How the upstream ended a connection, in the words of an error."""

    CLOSED = "closed"
    RESET = "reset"


# Slow to reach through the class in Python 3.11.
_IDLE, _HELD, _SENDING, _AWAITING, _RECEIVING, _CLOSED = ConnectionState


class StaleConnection(Exception):
    """A reused connection was closed before the server can have received the whole request: it may be sent
    again, whatever its method (RFC 9110, 9.2.2; RFC 9112, 9.3.1)."""


class ConnectionOwner(Protocol):
    """The owner of the connection between exchanges."""

    def released(self, connection: Connection) -> None:
        """The exchange has ended, and the connection can carry another."""
        ...

    def lost(self, connection: Connection) -> None:
        """The connection is closed."""
        ...

    def unrequested_bytes(self) -> None:
        """The upstream has sent what answers no request. The connection where that was found is closed."""
        ...


class Connection(asyncio.BufferedProtocol):
    """A protocol for `loop.create_connection`."""

    __slots__ = (
        "_deadlines",
        "_expires_at",
        "_fileno",
        "_framing",
        "_gives_way",
        "_idle_until",
        "_is_reading_paused",
        "_is_reused",
        "_is_tls",
        "_name",
        "_options",
        "_owner",
        "_read_buffer",
        "_relays",
        "_response",
        "_state",
        "_transport",
        "_turn",
        "_unsent",
        "_upload",
        "closed",
        "congested",
        "cost_s",
        "get_buffer",
        "held",
        "sink",
    )

    get_buffer: Callable[[int], memoryview]  # type: ignore[assignment]  # Of all connections, and called as a method is.
    _transport: asyncio.Transport
    _fileno: int
    _is_tls: bool

    def __init__(self, upstream: Upstream, owner: ConnectionOwner, options: ClientOptions) -> None:
        self._name = upstream.name
        self._owner = owner
        self._options = options
        self._read_buffer = options.read_buffer
        self.get_buffer = options.get_buffer
        self._relays = options.relays
        self._turn = options.turn
        self.held = b""
        self._framing = Framing(options.body_pieces)
        self._deadlines = Deadlines(upstream.timeouts, 0.0)
        self._state = _IDLE
        self._response: ResponseStream | None = None
        self.sink: Callable[[bytes], None] | None = None
        """What takes each piece of the body, while that may go to the response's reader as it comes: set by the
        response, and only while RECEIVING."""
        self._upload: Upload | None = None
        self._idle_until = 0.0
        self._expires_at = math.inf
        self._unsent = 0
        self._is_reused = False
        self._is_reading_paused = self._gives_way = False
        self.closed = False
        self.congested = False
        """Whether the upstream has not taken all that was written."""
        self.cost_s = 0.0
        """What it took to pass on the last piece of this answer that waited, or was long."""

    def begin(self, head: bytes, body: bytes, rest: BodyTail | None, began: float) -> ResponseStream:
        """Send a request, whose total time `began` then, in monotonic seconds; `rest` follows `body` and is sent while
        the response is awaited. To be followed by a `leave` where the response is not waited for until it has begun.
        Raises StaleConnection."""
        if self.closed:
            raise StaleConnection
        response = self._response = ResponseStream(self._name, self, self._relays)
        self._state = _HELD
        self._framing.expect_response()
        self.cost_s = 0.0
        self._deadlines.begin(began)
        self._upload = None
        if rest is not None:
            # Whether the client or the upstream is slow from here on: it is not the gateway.
            response.sent_at = monotonic()
            self._deadlines.sending(response.sent_at)
            self._upload = Upload(rest, self, self._options.tasks)
            self._upload.start(response)
        if len(body) > ONE_WRITE_BYTES:
            self._state = _SENDING
            self._transport.write(head)
            self.write_now(body)
        elif rest is not None or not self._is_reused:
            self.write_now(head + body)
        else:
            self._turn.write(self, head + body)
        return response

    def leave(self, response: ResponseStream) -> None:
        """This response is not waited for any more. It may have ended, and the connection carry another's request."""
        if self._response is response:
            self.abort()

    def has_unread_bytes(self) -> bool:
        """Whether the system holds bytes of the upstream already: while idle, they answer no request. Under TLS
        they can be a message of TLS itself."""
        return not self._is_tls and has_unread(self._fileno)

    def abort(self) -> None:
        """Close now, whatever is not sent or not read. Harmless when closed."""
        self._response = self.sink = None
        self._disarm()
        if self._upload is not None:
            self._upload.stop()
        if not self.closed:
            self.closed = True
            self._state = _CLOSED
            self._framing.let_go()
            self._transport.abort()

    def shut_down(self) -> None:
        """As `abort`; a response on its way fails."""
        if self._response is not None:
            self._response.fail(FailureReason("abandoned", "was disconnected by the gateway"))
        self.abort()

    def pause_reading(self) -> None:
        """The response's reader takes no more for now: only the total limit runs."""
        if not self._is_reading_paused:
            self._is_reading_paused = True
            self._transport.pause_reading()
            self._deadlines.paused()

    def resume_reading(self) -> None:
        """The reader takes again: the idle limit begins from here, since the pause was not the upstream's."""
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._await_turn()
            self._deadlines.receiving(monotonic())
            self._arm(self._deadlines.next)

    def write_now(self, data: bytes) -> None:
        """Send so much of the request, or all of it. Nothing is done once the connection is closed."""
        if self.closed:
            return
        if self._state is _HELD:
            if self._framing.has_begun:
                self._refuse_unrequested()
                return
            self._state = _SENDING
        self._transport.write(data)
        if self.congested:
            self._await_flush()
        elif self._upload is None and self._response is not None:
            self._await_response(self._response)

    def waiting_for_client(self, sent_bytes: int) -> None:
        """All that was available is taken: the source is waited for."""
        if self._state is _SENDING:
            self._deadlines.waiting_for_client(monotonic(), sent_bytes)
            self._arm(self._deadlines.next)

    def flushed(self) -> None:
        """The upstream has taken the whole request."""
        if self._response is not None and self._state is _SENDING:
            self._await_response(self._response)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # only sockets come
        self._transport = transport
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        self._fileno = transport.get_extra_info("socket").fileno()
        # With these limits the loop says when a request is wholly sent, from when `first_byte` runs. An upper
        # limit of 0 would not do: asyncio's TLS then pauses a writer that has nothing left, and permanently.
        transport.set_write_buffer_limits(high=1, low=0)

    def buffer_updated(self, nbytes: int) -> None:
        sink = self.sink
        if sink is None:
            self._take(nbytes)
            return
        # As most is: of a stream whose reader keeps up.
        framing, turn = self._framing, self._turn
        piece = framing.feed(self._read_buffer[nbytes])
        if piece:
            self._deadlines.since = monotonic()
            turn.left -= nbytes
            if turn.left > 0:
                if nbytes < SHORT_READ_BYTES:
                    sink(piece)
                else:
                    self._pass_on(sink, piece)
            elif self._response is not None:
                self._response.hold(piece, self)
        if framing.complete or framing.fault:
            self._end_exchange(monotonic())
        elif nbytes == READ_BYTES:
            self._give_way()

    def _pass_on(self, sink: Callable[[bytes], None], piece: bytes) -> None:
        """Give the reader a piece that may have many events."""
        began, computed = monotonic(), thread_time()
        sink(piece)
        self.passed_on(cost_since(began, computed))

    def passed_on(self, cost_s: float) -> None:
        """What was passed on last took so long. Others have their turn first where that was long."""
        self.cost_s = cost_s
        if cost_s > COSTLY_S:
            self._give_way()

    def _take(self, nbytes: int) -> None:
        """What has been read, whatever is done with it."""
        response = self._response
        if response is None:
            if self._state is _IDLE:
                self._refuse_unrequested()
            return
        framing, now = self._framing, monotonic()
        piece = framing.feed(self._read_buffer[nbytes])
        if piece:
            if self._state is _RECEIVING:
                self._deadlines.since = now
                response.feed(piece)
            elif self._state is _HELD:
                self._refuse_unrequested()
                return
            else:
                self._begin_receiving(response, now, piece)
        if framing.complete or framing.fault:
            self._end_exchange(now)
        elif nbytes == READ_BYTES:
            self._give_way()

    def eof_received(self) -> None:
        # To be asked here alone: when `connection_lost` comes, the descriptor can be another socket's.
        self._hung_up(HangUp.CLOSED, is_unacknowledged=has_unacknowledged(self._fileno))
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._hung_up(HangUp.RESET if error is not None else HangUp.CLOSED)
        self.abort()
        self._owner.lost(self)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        if self._upload is None or self._upload.over:
            self.flushed()
        else:
            self._upload.writable()

    def _give_way(self) -> None:
        """Others have their turn first: uvloop goes on reading a socket as long as each read is full."""
        if not self.closed and not self._is_reading_paused:
            self._transport.pause_reading()
            self._await_turn()

    def _await_turn(self) -> None:
        if not self._gives_way:
            self._gives_way = True
            self._relays.wait(self._read_on, self.cost_s)

    def _read_on(self) -> bool:
        if not self._gives_way or self.closed:
            return False  # The answer for which it had to wait has ended.
        self._gives_way = False
        self._deadlines.since = monotonic()
        if not self._is_reading_paused:
            self._transport.resume_reading()
        return True

    def _await_flush(self) -> None:
        if self._state is _SENDING:
            self._unsent = self._transport.get_write_buffer_size()
            self._deadlines.sending(monotonic())
            self._arm(self._deadlines.next)

    def _await_response(self, response: ResponseStream) -> None:
        self._state = _AWAITING
        now = monotonic()
        response.sent_at = response.sent_at or now
        until = self._deadlines.awaiting_response(now)
        if until < self._expires_at:
            self._arm(until)

    def _begin_receiving(self, response: ResponseStream, now: float, piece: bytes) -> None:
        self._state, framing = _RECEIVING, self._framing
        headers, framing.headers = framing.headers, NO_HEADERS
        if not response.sent_at:
            response.sent_at = now  # An answer to what was not taken whole: none of its time is the upstream's.
        response.head(framing.status, headers, now, piece)
        if self._upload is not None:
            self._upload.stop()
        if not framing.complete:
            self._deadlines.receiving(now)
            self._arm(self._deadlines.next)

    def _end_exchange(self, now: float) -> None:
        """The response is whole, or can never be."""
        response = self._response
        if response is None:
            return  # The reader abandoned it while it was handed over.
        framing, upload = self._framing, self._upload
        if self._state is _HELD:
            self._refuse_unrequested()
            return
        if not framing.complete:
            response.fail(FailureReason("malformed", f"sent what is not an HTTP answer: {framing.fault}"))
            self.abort()
            return
        if self._state is not _RECEIVING:
            self._begin_receiving(response, now, b"")
        self._response = self.sink = None
        response.complete()
        if framing.excess:
            self._refuse_unrequested()
            return
        is_sent = upload is None or upload.over
        if not (framing.keeps_alive and is_sent and self._transport.get_write_buffer_size() == 0):
            self.abort()
            return
        if self._is_reading_paused or self._gives_way:
            self._is_reading_paused = self._gives_way = False
            self._transport.resume_reading()
        self._state, self._is_reused = _IDLE, True
        self._idle_until = until = now + self._options.idle_seconds
        if until < self._expires_at:
            self._arm(until)
        self._owner.released(self)

    def _refuse_unrequested(self) -> None:
        """Bytes have come that answer no request. One that waits to be written can be sent on another connection."""
        response = self._response
        if response is not None:
            response.fail_with(StaleConnection())
        self.abort()
        self._owner.unrequested_bytes()

    def _hung_up(self, how: HangUp, is_unacknowledged: bool = False) -> None:
        response = self._response
        if response is None:
            return
        is_receiving = self._state is _RECEIVING
        if how is HangUp.CLOSED and self._framing.close():
            self._end_exchange(monotonic())
        elif self._is_stale(is_unacknowledged):
            response.fail_with(StaleConnection())
        else:
            # "connection lost" are words by which agents tell that a broken stream is worth another try.
            missing = "the end of its answer (connection lost)" if is_receiving else "it answered"
            response.fail(FailureReason(HUNG_UP.outcome, f"{how} the connection before {missing}"))

    def _is_stale(self, is_unacknowledged: bool) -> bool:
        """Whether the server cannot have received the whole request, on a connection that it may have found idle.

        The end of the server's stream acknowledges every byte that had arrived before it. What the system still
        holds then arrived at a closed connection, if at all: that is certain however long the way is and however
        late this process looks, and no time limit would be. A reset may leave out the acknowledgement, and TLS that
        is cut without a word does not say when it ended, so then only bytes that are still in this process count.
        """
        if self._state is _HELD:
            return True
        if not self._is_reused or self._state is _RECEIVING or self._framing.has_begun:
            return False
        return self._state is _SENDING or is_unacknowledged

    def _arm(self, when: float) -> None:
        """Expire no later than soon after `when`; free where it would anyhow."""
        if when < self._expires_at:
            self._disarm()
            self._expires_at = self._options.timers.add(self, when)

    def _disarm(self) -> None:
        if self._expires_at < math.inf:
            self._options.timers.discard(self, self._expires_at)
            self._expires_at = math.inf

    def expired(self) -> None:
        """Some deadline may have passed."""
        self._expires_at, now, response = math.inf, monotonic(), self._response
        if response is None:
            if now < self._idle_until:
                self._arm(self._idle_until)
            else:
                self.abort()
            return
        if self._gives_way:
            self._deadlines.since = now  # It is not the upstream that is slow.
        if self.congested:
            self._note_progress(now)
        if now < self._deadlines.next:
            self._arm(self._deadlines.next)
            return
        response.time_out(self._deadlines.error(now, self._name))
        self.abort()

    def _note_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent and self._state is _SENDING:
            self._unsent = unsent
            self._deadlines.sending(now)
