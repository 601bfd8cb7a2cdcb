"""A response as it is received: pushed by the connection on one side, read by the relay on the other.

While the reader keeps up, a piece goes straight from the parser to the reader's callback. Otherwise
pieces wait in a buffer, and past HELD_BYTES the connection pauses reading. The end is reported after
the last piece.

Buffers give pieces back in order and decoded, at most PIECE_BYTES at a time where they decode: however
small the input of a compression bomb, its output is bounded by who reads.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import brotli

from gateway.core.errors import UpstreamBroke, UpstreamUnreachable
from gateway.upstream.contract import FailureReason

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

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
        self.sink: Callable[[bytes], None] | None = None
        """The reader's callback, while pieces may go to it as they come: in place of `feed`."""

        self._callback: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._paused = self._received = self._over = False

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        encoding = headers.get("content-encoding")
        buffer = buffer_for(encoding.strip().lower()) if encoding is not None else None
        if buffer is not None:
            self._buffer = buffer
            headers.pop("content-encoding")
            headers.pop("content-length", None)

    def feed(self, piece: bytes) -> None:
        if not self.first_byte_at:
            self._begin()
        self._buffer.put(piece)
        if self._callback is not None or self._buffer.size > HELD_BYTES:
            self._deliver()

    def complete(self) -> None:
        """The message has ended as its framing says. The connection serves others from here on."""
        if not self.first_byte_at:
            self._begin()
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
            await self.woken()
        if not self.first_byte_at and self._failure is not None:
            raise self._failure

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        self._callback = into
        self._deliver()

    @property
    def is_over(self) -> bool:
        return self._over

    async def finished(self) -> None:
        while not self._over:
            await self.woken()
        if self._failure is not None:
            raise self._failure

    async def woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause(self) -> None:
        self._paused = True
        self.sink = None
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        self._paused = False
        self._deliver()

    def abandon(self) -> None:
        connection, self._callback, self.sink = self._connection, None, None
        if self._over:
            return
        self._buffer = PlainBuffer()
        self.fail_with(_ABANDONED.error(self._name, UpstreamBroke))
        if connection is not None:
            connection.abort()

    def _begin(self) -> None:
        self.first_byte_at = monotonic()
        self.wake()

    def _deliver(self) -> None:
        """Hand over what is held, as far as it is wanted, and see whether that was all."""
        try:
            while self._callback is not None and not self._paused and (piece := self._buffer.get()):
                self._callback(piece)
            if self._received and not self._buffer.size:
                self._end()
        except Undecodable as error:
            self._spoil(str(error))
        is_direct = not self._paused and not self._over and type(self._buffer) is PlainBuffer
        self.sink = self._callback if is_direct else None
        if self._connection is not None:
            if self._paused or self._buffer.size > HELD_BYTES:
                self._connection.pause_reading()
            else:
                self._connection.resume_reading()

    def _end(self) -> None:
        if self._failure is None:
            self._buffer.check_whole()
        self._over = True
        # The reader has this stream, mostly: one less cycle for the collector of garbage.
        self._callback = None
        self.wake()

    def _spoil(self, what: str) -> None:
        connection, self._buffer = self._connection, PlainBuffer()
        self.fail(FailureReason("malformed", f"sent an answer that cannot be decoded: {what}"))
        if connection is not None:
            connection.abort()


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


class AnswerDecoder(Protocol):
    """Decodes one stream of a content coding. `tail` is input that it has not taken, `is_blocked` says that there is
    more output than was given, `is_whole` that the stream has ended."""

    tail: bytes
    is_blocked: bool
    is_whole: bool

    def decode(self, data: bytes) -> bytes:
        """PIECE_BYTES at most. Raises Undecodable."""
        ...


class DecodingBuffer:
    """Gives back what it takes, decoded: one stream of the coding, or several one after the other."""

    def __init__(self, make: Callable[[bytes], AnswerDecoder]) -> None:
        """`make` gets the first bytes of a stream."""
        self._make = make
        self._input = b""
        self._decoder: AnswerDecoder | None = None

    @property
    def size(self) -> int:
        return len(self._input) + (self._decoder is not None and self._decoder.is_blocked)

    def put(self, piece: bytes) -> None:
        self._input += piece

    def get(self) -> bytes:
        while self.size:
            decoder = self._decoder = self._decoder or self._make(self._input)
            output = decoder.decode(self._input)
            self._input = decoder.tail
            if decoder.is_whole:
                self._decoder = None
            if output:
                return output
        return b""

    def check_whole(self) -> None:
        if self._decoder is not None:
            raise Undecodable("the compressed body ends too early")


class _ZlibDecoder:
    """gzip or deflate.

    `deflate` means the zlib format (RFC 9110, 8.4.1.2), but some servers send the raw one: the
    first byte tells, since the low half of a zlib stream's is always 8, and gzip's is 0x1f.
    """

    def __init__(self, beginning: bytes) -> None:
        is_wrapped = beginning[0] == 0x1F or beginning[0] & 0x0F == zlib.DEFLATED
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB if is_wrapped else _RAW_DEFLATE)
        self.tail = b""
        self.is_blocked = self.is_whole = False

    def decode(self, data: bytes) -> bytes:
        try:
            output = self._stream.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise Undecodable(_NOT_AS_CALLED) from error
        self.is_whole = self._stream.eof
        self.tail = self._stream.unused_data if self.is_whole else self._stream.unconsumed_tail
        # What was inflated to the limit can have more inside, though all input is taken.
        self.is_blocked = len(output) == PIECE_BYTES and not self.is_whole
        return output


class _BrotliDecoder:
    """RFC 7932. The library may pass the limit by a block of its own, so that a piece has up to twice PIECE_BYTES."""

    def __init__(self, _beginning: bytes) -> None:
        self._stream = brotli.Decompressor()
        self.tail = b""
        self.is_blocked = self.is_whole = False

    def decode(self, data: bytes) -> bytes:
        taken, self.tail = (b"", data) if self.is_blocked else (data, b"")
        try:
            output: bytes = self._stream.process(taken, output_buffer_limit=PIECE_BYTES)
        except brotli.error as error:
            raise Undecodable(_NOT_AS_CALLED) from error
        self.is_whole = self._stream.is_finished()
        # All input may be taken while more output waits.
        has_more = len(output) >= PIECE_BYTES or not self._stream.can_accept_more_data()
        self.is_blocked = has_more and not self.is_whole
        return output


class _ZstdDecoder:
    """RFC 8878, a frame."""

    def __init__(self, _beginning: bytes) -> None:
        self._stream = zstd.ZstdDecompressor()
        self.tail = b""
        self.is_blocked = self.is_whole = False

    def decode(self, data: bytes) -> bytes:
        taken, self.tail = (b"", data) if self.is_blocked else (data, b"")
        try:
            output = self._stream.decompress(taken, PIECE_BYTES)
        except zstd.ZstdError as error:
            raise Undecodable(_NOT_AS_CALLED) from error
        self.is_whole = self._stream.eof
        if self.is_whole:
            self.tail = self._stream.unused_data
        self.is_blocked = not self.is_whole and not self._stream.needs_input
        return output


_NOT_AS_CALLED = "the body is not what its Content-Encoding says"
_DECODERS: dict[str, Callable[[bytes], AnswerDecoder]] = {
    "gzip": _ZlibDecoder,
    "x-gzip": _ZlibDecoder,
    "deflate": _ZlibDecoder,
    "br": _BrotliDecoder,
    "zstd": _ZstdDecoder,
}


def buffer_for(encoding: str) -> Buffer | None:
    """What decodes this Content-Encoding; None for one that is not known here."""
    if encoding in {"", "identity"}:
        return PlainBuffer()
    decoder = _DECODERS.get(encoding)
    return DecodingBuffer(decoder) if decoder is not None else None
