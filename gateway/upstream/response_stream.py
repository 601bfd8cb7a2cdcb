"""A response as it is received: pushed by the connection on one side, read by the relay on the other.

While the reader keeps up, a piece goes straight from the parser to the reader's callback. Otherwise
pieces wait in a buffer, and past HELD_BYTES the connection pauses reading. The end is reported after
the last piece.

Buffers give pieces back in order and decoded, at most PIECE_BYTES at a time where they decode: however
small the input of a compression bomb, its output is bounded by who reads.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from gateway.core.errors import UpstreamBroke, UpstreamUnreachable
from gateway.upstream.contract import FailureReason

if TYPE_CHECKING:  # A connection makes its response stream, which controls it in turn.
    from gateway.upstream.connection import Connection

HELD_BYTES = 65_536
"""What may wait for `deliver_to` before the upstream's socket is left unread."""

PIECE_BYTES = 65_536

_ABANDONED = FailureReason("abandoned", "was abandoned before the end of its answer")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class ResponseStream:
    """Implements `contract.UpstreamResponse`. The connection calls `head`, `feed`, then `complete`, `fail`
    or `fail_with`."""

    def __init__(self, upstream_name: str, connection: Connection) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self._name = upstream_name
        self._connection: Connection | None = connection
        self._buffer: Buffer = PlainBuffer()
        self._callback: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._direct = self._paused = self._received = self._over = False

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        encoding = headers.get("content-encoding", "").strip().lower()
        buffer = buffer_for(encoding)
        if buffer is not None:
            self._buffer = buffer
        if buffer is not None and encoding:
            headers.pop("content-encoding")
            headers.pop("content-length", None)

    def feed(self, piece: bytes) -> None:
        if self._direct:
            self._callback(piece)  # type: ignore[misc]  # `_direct` implies a callback
            return
        if not self.first_byte_at:
            self._begin()
        self._buffer.put(piece)
        self._deliver()

    def complete(self) -> None:
        """The message has ended as its framing says. The connection serves others from here on."""
        if not self.first_byte_at:
            self._begin()
        self._connection = None
        self._received = True
        self._deliver()

    def fail(self, reason: FailureReason) -> None:
        """The message cannot be completed."""
        kind = UpstreamBroke if self.first_byte_at else UpstreamUnreachable
        self.fail_with(reason.error(self._name, kind))

    def time_out(self, error: Exception) -> None:
        # A reader that has paused holds pieces back; they must not hold back the end of the time, too.
        self._buffer = PlainBuffer()
        self.fail_with(error)

    def fail_with(self, failure: Exception) -> None:
        self._connection = None
        self._received = True
        self._failure = self._failure or failure
        self._deliver()

    async def begun(self) -> None:
        """Wait for the first byte or the end. Raises what the connection said went wrong before."""
        if not self.first_byte_at and self._failure is None:
            await self._woken()
        if not self.first_byte_at and self._failure is not None:
            raise self._failure

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        self._callback = into
        self._deliver()

    async def finished(self) -> None:
        if not self._over:
            await self._woken()
        if self._failure is not None:
            raise self._failure

    def pause(self) -> None:
        self._paused = True
        self._direct = False
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._deliver()

    def abandon(self) -> None:
        connection, self._callback = self._connection, None
        self._direct = False
        if self._over:
            return
        self._buffer = PlainBuffer()
        self.fail_with(_ABANDONED.error(self._name, UpstreamBroke))
        if connection is not None:
            connection.abort()

    def _begin(self) -> None:
        self.first_byte_at = monotonic()
        self._wake()

    def _deliver(self) -> None:
        """Hand over what is held, as far as it is wanted, and see whether that was all."""
        try:
            while self._callback is not None and not self._paused and (piece := self._buffer.get()):
                self._callback(piece)
            if self._received and not self._buffer.size:
                self._end()
        except Undecodable as error:
            self._spoil(str(error))
        self._direct = self._callback is not None and not self._paused and type(self._buffer) is PlainBuffer
        if self._connection is not None:
            if self._paused or self._buffer.size > HELD_BYTES:
                self._connection.pause_reading()
            else:
                self._connection.resume_reading()

    def _end(self) -> None:
        if self._failure is None:
            self._buffer.check_whole()
        self._over = True
        self._wake()

    def _spoil(self, what: str) -> None:
        connection, self._buffer = self._connection, PlainBuffer()
        self.fail(FailureReason("malformed", f"sent an answer that cannot be decoded: {what}"))
        if connection is not None:
            connection.abort()

    async def _woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Undecodable(Exception):
    """The bytes are not what their Content-Encoding says."""


class Buffer(Protocol):
    @property
    def size(self) -> int:
        """Bytes taken and not given back, as they arrived; never 0 while `get` would give some."""
        ...

    def put(self, piece: bytes) -> None: ...

    def get(self) -> bytes:
        """The next piece, empty when there is none. Raises Undecodable."""
        ...

    def check_whole(self) -> None:
        """To be called at the message's end, once `get` is empty. Raises Undecodable."""
        ...


class PlainBuffer:
    """Gives back what it takes."""

    def __init__(self) -> None:
        self._size = 0
        self._pieces: deque[bytes] = deque()

    @property
    def size(self) -> int:
        return self._size

    def put(self, piece: bytes) -> None:
        self._size += len(piece)
        self._pieces.append(piece)

    def get(self) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        self._size -= len(piece)
        return piece

    def check_whole(self) -> None:
        """Every sequence of bytes is whole."""


class InflatingBuffer:
    """Gives back gzip (of one member or many) or deflate, decompressed.

    `deflate` means the zlib format (RFC 9110, 8.4.1.2), but some servers send the raw one: the
    first byte tells, since the low half of a zlib stream's is always 8, and gzip's is 0x1f.
    """

    def __init__(self) -> None:
        self._input = b""
        self._member: zlib._Decompress | None = None
        self._more = False

    @property
    def size(self) -> int:
        return len(self._input) + self._more

    def put(self, piece: bytes) -> None:
        self._input += piece

    def get(self) -> bytes:
        while self._input or self._more:
            output = self._inflate()
            # A member inflated to the limit can have more inside, though all input is taken.
            self._more = len(output) == PIECE_BYTES and self._member is not None
            if output:
                return output
        return b""

    def check_whole(self) -> None:
        if self._member is not None:
            raise Undecodable("the compressed body ends too early")

    def _inflate(self) -> bytes:
        member = self._member = self._member or zlib.decompressobj(_format_of(self._input))
        try:
            output = member.decompress(self._input, PIECE_BYTES)
        except zlib.error as error:
            raise Undecodable("the body is not what its Content-Encoding says") from error
        self._input = member.unconsumed_tail
        if member.eof:
            self._input = member.unused_data
            self._member = None
        return output


def _format_of(data: bytes) -> int:
    is_wrapped = data[0] == 0x1F or data[0] & 0x0F == zlib.DEFLATED
    return _GZIP_OR_ZLIB if is_wrapped else _RAW_DEFLATE


def buffer_for(encoding: str) -> Buffer | None:
    """What decodes this Content-Encoding; None for one that is not known here."""
    if encoding in {"", "identity"}:
        return PlainBuffer()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        return InflatingBuffer()
    return None
