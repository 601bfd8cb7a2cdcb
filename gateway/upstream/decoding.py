"""What stands between the pieces as they arrive and as they are handed over.

A buffer takes pieces and gives them back in order, decoded, at most PIECE_BYTES at a time where it
decodes: however small the input of a compression bomb, its output is bounded by who reads.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Protocol

PIECE_BYTES = 65_536

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


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


class Plain:
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


class Inflated:
    """Gives back gzip (of one member or many) or deflate, unpacked.

    `deflate` means the zlib format (RFC 9110, 8.4.1.2), but some servers send the bare one: the
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
            output = self._unpack()
            # A member unpacked to the limit can have more inside, though all input is taken.
            self._more = len(output) == PIECE_BYTES and self._member is not None
            if output:
                return output
        return b""

    def check_whole(self) -> None:
        if self._member is not None:
            raise Undecodable("the compressed body ends too early")

    def _unpack(self) -> bytes:
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
        return Plain()
    if encoding in {"gzip", "x-gzip", "deflate"}:
        return Inflated()
    return None
