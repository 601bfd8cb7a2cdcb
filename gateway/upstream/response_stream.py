"""A response as it is received: the connection pushes it, the relay reads it.

While the reader keeps up, a piece goes straight from the parser to the reader's callback. Otherwise
pieces wait in a buffer, and past HELD_BYTES the connection pauses reading. The end is reported after
the last piece.

Buffers give pieces back in order and decoded, a slice at a time (core/content_coding.py): the reader bounds the output
of a compression bomb, however small its input is. Even a reader that keeps up gets at most TURN_BYTES at once: then
others have their turn (runtime/relay_queue.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic, thread_time
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from gateway.core.content_coding import CodingDamaged, CodingUnknown, ContentDecoder, codings_of
from gateway.core.errors import UpstreamBroke, UpstreamUnreachable
from gateway.runtime.relay_queue import RelayQueue, cost_since
from gateway.upstream.contract import FailureReason

if TYPE_CHECKING:  # A connection makes its response stream, which controls it in turn.
    from gateway.upstream.connection import Connection

HELD_BYTES = 65_536
"""What may wait for `deliver_to` before the upstream's socket is left unread."""

FED_BYTES = 16_384
"""What a decoder gets at once."""

TURN_BYTES = 16_384
"""What is handed over in one turn of the event loop, of what came compressed or while the reader did not keep up: as
much as one read has of what did not."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_ABANDONED = FailureReason("abandoned", "was abandoned before the end of its answer")


class ResponseStream:
    """Implements `contract.UpstreamResponse`. The connection calls `head`, `feed`, then `complete`, `fail`
    or `fail_with`."""

    __slots__ = (
        "_buffer",
        "_callback",
        "_connection",
        "_failure",
        "_name",
        "_paused",
        "_received",
        "_relays",
        "_waiter",
        "_yields",
        "first_byte_at",
        "headers",
        "is_over",
        "sent_at",
        "status",
    )

    def __init__(self, upstream_name: str, connection: Connection, relays: RelayQueue) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.sent_at = self.first_byte_at = 0.0
        self.is_over = False
        self._name = upstream_name
        self._relays = relays
        self._connection: Connection | None = connection
        self._buffer: Buffer = PlainBuffer()
        self._callback: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._paused = self._received = self._yields = False

    def head(self, status: int, headers: dict[str, str], now: float, piece: bytes = b"") -> None:
        """The first `piece` of the body has come, or the end of a response without one."""
        self.first_byte_at = now
        self.status = status
        self.headers = headers
        encoding = headers.get("content-encoding")
        if encoding is not None and (buffer := buffer_for(encoding)) is not None:
            self._buffer = buffer
            del headers["content-encoding"]
            headers.pop("content-length", None)
        if piece:
            self._buffer.put(piece)
        self.wake()

    def feed(self, piece: bytes) -> None:
        self._buffer.put(piece)
        if self._callback is not None or self._buffer.size > HELD_BYTES:
            self._deliver()

    def hold(self, piece: bytes, connection: Connection) -> None:
        """Let a piece wait that could go to the reader, because this turn of the event loop has passed on enough. What
        comes behind it waits, too, most of it in the socket."""
        self._buffer.put(piece)
        self._yields = True
        connection.sink = None
        self._relays.wait(self._go_on, connection.cost_s)

    def complete(self) -> None:
        """The message has ended as its framing says. The connection serves others from here on."""
        self._connection = None
        self._received = True
        # What waits for a reader ends when it is read.
        if self._callback is not None or not self._buffer.size:
            self._deliver()

    def fail(self, reason: FailureReason) -> None:
        """The message cannot be completed."""
        kind = UpstreamBroke if self.first_byte_at else UpstreamUnreachable
        self.fail_with(reason.error(self._name, kind))

    def time_out(self, error: Exception) -> None:
        while self._yields and type(self._buffer) is PlainBuffer and self._go_on():
            pass  # What only waits for its turn has come in time.
        # A reader that has paused holds pieces back; they must not hold back the end of the time, too.
        self._buffer = PlainBuffer()
        self.fail_with(error)

    def fail_with(self, failure: Exception) -> None:
        self._connection = None
        self._received = True
        self._failure = self._failure or failure
        self._deliver()

    def available(self) -> bytes | None:
        buffer = self._buffer
        if not self._received or self._failure is not None or type(buffer) is not PlainBuffer:
            return None
        if buffer.size > TURN_BYTES:
            return None
        self.is_over = True
        return buffer.get_all()

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        self._callback = into
        self._deliver()

    async def finished(self) -> None:
        while not self.is_over:
            await self.woken()
        self.end()

    def end(self) -> None:
        if self._failure is not None:
            raise self._failure

    def woken(self) -> Awaitable[None]:
        self._waiter = waiter = self._relays.loop.create_future()
        return waiter

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def pause(self) -> None:
        self._paused = True
        if self._connection is not None:
            self._connection.sink = None
            self._connection.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._deliver()

    def abandon(self) -> None:
        self._callback = None
        if not self.is_over:
            self._give_up(_ABANDONED.error(self._name, UpstreamBroke))

    def _deliver(self) -> None:
        """Hand over what is held, as far as it is wanted, and see whether that was all."""
        try:
            if self._buffer.size:
                self._hand_over()
            if self._received and not self._buffer.size:
                self._end()
        except CodingDamaged as error:
            self._spoil(str(error))
        except Exception as defect:  # noqa: BLE001 # Of the reader's: who waits for the end must not wait forever.
            self._failure = defect
            self._give_up(defect)
        if self.is_over:
            return
        connection = self._connection
        if connection is not None:
            stops, has_begun = self._paused or self._yields, self.first_byte_at > 0
            is_direct = has_begun and not stops and type(self._buffer) is PlainBuffer
            connection.sink = self._callback if is_direct else None
            if stops or self._buffer.size > HELD_BYTES:
                connection.pause_reading()
            else:
                connection.resume_reading()

    def _hand_over(self) -> None:
        left, began, computed = TURN_BYTES, monotonic(), thread_time()
        while self._callback is not None and not (self._paused or self._yields):
            piece = self._buffer.get()
            if not piece:
                break
            self._callback(piece)
            left -= len(piece)
            if left <= 0 and self._buffer.size:
                self._yields = True
                self._relays.wait(self._go_on, cost_since(began, computed))
        self._relays.turn.left -= TURN_BYTES - left
        if self._connection is not None:
            self._connection.passed_on(cost_since(began, computed))

    def _go_on(self) -> bool:
        if self.is_over:
            return False
        self._yields = False
        self._deliver()
        return True

    def _end(self) -> None:
        if self._failure is None:
            self._buffer.check_whole()
        self.is_over = True
        # The reader has this stream, mostly: one less cycle for the collector of garbage.
        self._callback = None
        self.wake()

    def _spoil(self, what: str) -> None:
        kind = UpstreamBroke if self.first_byte_at else UpstreamUnreachable
        reason = FailureReason("malformed", f"sent an answer that cannot be decoded: it is {what}")
        self._give_up(reason.error(self._name, kind))

    def _give_up(self, failure: Exception) -> None:
        """Nothing more is read or handed over."""
        connection, self._buffer, self._callback = self._connection, PlainBuffer(), None
        self.fail_with(failure)
        if connection is not None:
            connection.abort()


class Buffer(Protocol):
    @property
    def size(self) -> int:
        """Bytes taken and not given back, as they arrived; never 0 while `get` would give some."""
        ...

    def put(self, piece: bytes) -> None: ...

    def get(self) -> bytes:
        """The next piece, empty when there is none. Raises CodingDamaged."""
        ...

    def check_whole(self) -> None:
        """To be called at the message's end, once `get` is empty. Raises CodingDamaged."""
        ...


class PlainBuffer:
    """Gives back what it takes. Most have one piece at a time, if any: only more than one make a queue."""

    __slots__ = ("_more", "_piece", "size")

    def __init__(self) -> None:
        self.size = 0
        self._piece = b""
        self._more: deque[bytes] | None = None

    def put(self, piece: bytes) -> None:
        if not self.size:
            self._piece = piece
        elif self._more is None:
            self._more = deque((piece,))
        else:
            self._more.append(piece)
        self.size += len(piece)

    def get(self) -> bytes:
        piece = self._piece
        self._piece = self._more.popleft() if self._more else b""
        self.size -= len(piece)
        return piece

    def get_all(self) -> bytes:
        piece, more = self._piece, self._more
        self._piece, self._more, self.size = b"", None, 0
        return b"".join((piece, *more)) if more else piece

    def check_whole(self) -> None:
        """Every sequence of bytes is whole."""


class DecodingBuffer:
    """Gives back what it takes, decoded. Little of it is in the decoder at a time, whose bytes are not counted."""

    def __init__(self, decoder: ContentDecoder) -> None:
        self._decoder = decoder
        self._input = self._output = b""
        self._has_begun = False

    @property
    def size(self) -> int:
        return len(self._input) + bool(self._output or not self._decoder.needs_input)

    def put(self, piece: bytes) -> None:
        self._has_begun = True
        self._input += piece

    def get(self) -> bytes:
        decoder = self._decoder
        while self.size and not self._output:
            if decoder.needs_input:
                decoder.feed(self._input[:FED_BYTES])
                self._input = self._input[FED_BYTES:]
            self._output = decoder.read()
        piece, self._output = self._output[:TURN_BYTES], self._output[TURN_BYTES:]
        return piece

    def check_whole(self) -> None:
        # What has no body, as the answer to HEAD, may name a coding.
        if self._has_begun:
            self._decoder.end()


def buffer_for(content_encoding: str) -> Buffer | None:
    """What decodes this Content-Encoding; None for one that is not known here."""
    codings = codings_of(content_encoding)
    if not codings:
        return PlainBuffer()
    try:
        return DecodingBuffer(ContentDecoder(codings))
    except CodingUnknown:
        return None
