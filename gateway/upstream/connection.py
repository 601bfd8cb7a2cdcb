"""One connection to an upstream, one exchange at a time.

Bytes go from the socket through the framing to the answer without a task switch. After a message
that ended cleanly the connection goes back to its keeper; after anything else it is closed.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

import msgspec

from gateway.core.request import BodyTail
from gateway.core.snapshot import Timeouts
from gateway.upstream.alarm import Alarm
from gateway.upstream.complaint import Complaint
from gateway.upstream.fittings import Fittings
from gateway.upstream.framing import Framing
from gateway.upstream.incoming import Incoming
from gateway.upstream.patience import Patience
from gateway.upstream.upload import Upload

ONE_WRITE_BYTES = 65_536
"""Up to here head and body go out joined, in one system call; a larger body is not copied for it."""


HUNG_UP = Complaint("hung_up", "closed the connection before it answered")


class Stale(Exception):
    """A reused connection was closed before a byte of the answer came: the request may be sent again."""


class Request(msgspec.Struct, frozen=True):
    """A request as it is written. `began` is when its total time began, in monotonic seconds."""

    head: bytes
    body: bytes
    timeouts: Timeouts
    began: float
    bodiless: bool = False
    """Whether the answer has no body whatever its head says (HEAD)."""
    rest: BodyTail | None = None
    """What follows `body`, to be sent while the answer is awaited."""


class Keeper(Protocol):
    """Who owns the connection between exchanges."""

    def freed(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """A protocol for `loop.create_connection`; also the `Source` of the answer that it receives and the
    `Outlet` of what it sends piece by piece."""

    _transport: asyncio.Transport
    _patience: Patience

    def __init__(self, upstream_name: str, keeper: Keeper, fittings: Fittings) -> None:
        self._name = upstream_name
        self._keeper = keeper
        self._inlet = fittings.inlet
        self._idle_seconds = fittings.idle_seconds
        self._alarm = Alarm(asyncio.get_running_loop(), self._ring)
        self._framing = Framing()
        self._answer: Incoming | None = None
        self._upload: Upload | None = None
        self._idle_until = 0.0
        self._unsent = 0
        self._is_used = self._heard = self._flowing = self._writing = self._held = False
        self.closed = False

    # The keeper's side.

    async def exchange(self, request: Request) -> Incoming:
        """Send, and wait for the first byte of the answer's body or its end. Raises Stale,
        UpstreamUnreachable, UpstreamTimedOut or what the rest of the request raises; when it
        raises, the connection is closed, unless the answer has ended: it may serve another by then."""
        if self.closed:
            raise Stale
        answer = self._answer = Incoming(self._name, self)
        try:
            self._send(answer, request)
            if self._upload is None:
                await answer.begun()
            else:
                await self._upload.go_on_until(answer)
        except BaseException:
            # A cancellation may arrive after the whole answer, when the connection carries another's request.
            if self._answer is answer:
                self.abort()
            raise
        return answer

    def abort(self) -> None:
        """Close now, whatever is not sent or not read. Harmless when closed."""
        self._answer = None
        self._alarm.silence()
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def dismiss(self) -> None:
        """Close now; an answer on its way breaks."""
        if self._answer is not None:
            self._answer.broke(Complaint("abandoned", "was disconnected by the gateway"))
        self.abort()

    # The answer's side.

    def hold(self) -> None:
        if not self._held:
            self._held = True
            self._transport.pause_reading()
            self._patience.resting()

    def flow(self) -> None:
        if self._held:
            self._held = False
            self._transport.resume_reading()
            self._patience.flowing(monotonic())
            self._alarm.by(self._patience.deadline)

    # The upload's side.

    @property
    def congested(self) -> bool:
        return self._writing

    def put(self, data: bytes) -> None:
        self._transport.write(data)
        if self._writing:
            self._await_room()

    def lull(self) -> None:
        if not self._flowing:
            self._patience.resting()
            self._alarm.by(self._patience.deadline)

    def sent(self) -> None:
        if self._answer is not None and not self._flowing:
            self._await_answer(self._answer)

    # The event loop's side.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # only sockets come
        self._transport = transport
        # With these limits the loop says when a request is wholly sent, from when `first_byte` runs. An upper
        # limit of 0 would not do: asyncio's TLS then pauses a writer that has nothing left, and for good.
        transport.set_write_buffer_limits(high=1, low=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._inlet

    def buffer_updated(self, nbytes: int) -> None:
        answer = self._answer
        if answer is None:
            # What a server says unasked (a 408 before it hangs up) answers no request.
            self.abort()
            return
        self._heard = True
        framing = self._framing
        piece = framing.feed(self._inlet[:nbytes])
        if piece:
            if not self._flowing:
                self._begin_flow(answer)
            self._patience.since = monotonic()
            answer.arrived(piece)
        if framing.complete or framing.fault:
            self._conclude(answer)

    def eof_received(self) -> None:
        self._hung_up("closed")
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._hung_up("reset" if error is not None else "closed")
        self.abort()
        self._keeper.lost(self)

    def pause_writing(self) -> None:
        self._writing = True

    def resume_writing(self) -> None:
        self._writing = False
        if self._upload is None or self._upload.over:
            self.sent()
        else:
            self._upload.relieved()

    # Within.

    def _send(self, answer: Incoming, request: Request) -> None:
        self._framing.expect(request.bodiless)
        self._heard = self._flowing = False
        self._patience = Patience(request.timeouts, request.began)
        self._upload = None
        if request.rest is not None:
            # Whether the client or the upstream is slow from here on: it is not the gateway.
            answer.sent_at = monotonic()
            self._upload = Upload(request.rest, self)
        if len(request.body) <= ONE_WRITE_BYTES:
            self._transport.write(request.head + request.body)
        else:
            self._transport.write(request.head)
            self._transport.write(request.body)
        if self._writing:
            self._await_room()
        elif self._upload is None:
            self._await_answer(answer)

    def _await_room(self) -> None:
        if not self._flowing:
            self._unsent = self._transport.get_write_buffer_size()
            self._patience.sending(monotonic())
            self._alarm.by(self._patience.deadline)

    def _await_answer(self, answer: Incoming) -> None:
        now = monotonic()
        answer.sent_at = answer.sent_at or now
        self._patience.awaiting(now)
        self._alarm.by(self._patience.deadline)

    def _begin_flow(self, answer: Incoming) -> None:
        self._flowing = True
        answer.head(self._framing.status, self._framing.headers)
        self._patience.flowing(monotonic())
        self._alarm.by(self._patience.deadline)

    def _conclude(self, answer: Incoming) -> None:
        """The answer is whole, or can never be."""
        if answer is not self._answer:
            return  # The reader abandoned it while it was handed over.
        if not self._framing.complete:
            answer.broke(Complaint("malformed", f"sent what is not an HTTP answer: {self._framing.fault}"))
            self.abort()
            return
        self._end(answer)
        is_sent = self._upload is None or self._upload.over
        if self._framing.keeps and is_sent and self._transport.get_write_buffer_size() == 0:
            self._rest()
        else:
            self.abort()

    def _end(self, answer: Incoming) -> None:
        if not self._flowing:
            answer.head(self._framing.status, self._framing.headers)
        self._answer = None
        answer.whole()

    def _rest(self) -> None:
        if self._held:
            self._held = False
            self._transport.resume_reading()
        self._is_used = True
        self._idle_until = monotonic() + self._idle_seconds
        self._alarm.by(self._idle_until)
        self._keeper.freed(self)

    def _hung_up(self, how: str) -> None:
        answer = self._answer
        if answer is None:
            return
        if how == "closed" and self._framing.close():
            self._end(answer)
        elif self._is_used and not self._heard:
            answer.failed(Stale())
        else:
            missing = "the end of its answer" if self._flowing else "it answered"
            answer.broke(Complaint(HUNG_UP.outcome, f"{how} the connection before {missing}"))

    def _ring(self) -> float | None:
        now = monotonic()
        answer = self._answer
        if answer is None:
            if now < self._idle_until:
                return self._idle_until
            self.abort()
            return None
        if self._writing:
            self._note_progress(now)
        if now < self._patience.deadline:
            return self._patience.deadline
        answer.timed_out(self._patience.complaint(now))
        self.abort()
        return None

    def _note_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent and not self._flowing:
            self._unsent = unsent
            self._patience.sending(now)
