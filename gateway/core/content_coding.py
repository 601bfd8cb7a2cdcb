"""Decodes the content codings of bodies (RFC 9110, section 8.4), of requests and of answers, a slice at a time.

A compressed megabyte can hold a gigabyte. So a decoder gives at most SLICE_BYTES in each turn, and the reader lets
other work run in between, or waits until what it has was taken. If a request has several codings, the size is limited
behind each of them.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SLICE_BYTES = 64 * 1024
"""What one turn gives at most."""

MOST_CODINGS = 4
"""In a row: programs use one."""

_FRAME_BYTES = 64
_FRAMES_FREE = 1_000
"""On average a frame, or a member of gzip, has to be so long, after the first thousand. One takes the decoder tens of
microseconds, even if it is empty: in nine bytes each, the frames of a small body would keep it busy for half a minute.
Programs send one, or begin another after some kilobytes."""

_BROTLI_SLICE_BYTES = SLICE_BYTES // 4
"""Its decoder goes on to the end of a block of its own, the first of which has 32 KiB, the next 64."""

_ZSTD_WINDOW_LOG = 23
"""8 MiB, the most that RFC 9659 lets a content coding ask for."""
_ZSTD_OPTIONS: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
_ZSTD_HEAD_BYTES = 18
"""The longest head of a frame (RFC 8878, section 3.1.1)."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS
_GZIP_FIRST_BYTE = 0x1F


class CodingUnknown(Exception):
    """There is no decoder for a coding of that name."""


class CodingDamaged(Exception):
    """The body is not what its coding says, or ends too early."""


class DecodedTooLarge(Exception):
    """More than the body may have."""


class _Decoder(Protocol):
    """One coding. `needs_input` says that it gives nothing before it is fed; `whole`, that it may end here."""

    needs_input: bool
    whole: bool

    def decode(self, data: bytes) -> bytes:
        """One turn. `data` is empty unless input was needed."""
        ...


class ContentDecoder:
    """Decodes a body in every coding that its `content-encoding` names."""

    def __init__(self, names: list[str], max_bytes: float = math.inf) -> None:
        """`max_bytes` bounds what any of the codings gives. Raises CodingUnknown."""
        if len(names) > MOST_CODINGS or any(name not in _DECODERS for name in names):
            raise CodingUnknown
        # The last one that is named was put on last.
        self._names = names[::-1]
        self._decoders = [_DECODERS[name]() for name in self._names]
        self._left = [max_bytes] * len(names)
        self._input = b""

    @property
    def needs_input(self) -> bool:
        return not self._input and all(decoder.needs_input for decoder in self._decoders)

    def feed(self, data: bytes) -> None:
        """What came, once input is needed."""
        self._input = data

    def read(self) -> bytes:
        """What one turn of each coding gives; it may be nothing. Raises CodingDamaged, DecodedTooLarge."""
        return self._turn(len(self._decoders) - 1)

    def end(self) -> None:
        """Nothing more will be fed. Raises CodingDamaged."""
        for name, decoder in zip(self._names, self._decoders, strict=True):
            if not decoder.whole:
                raise CodingDamaged(f"{name} that ends too early")

    def _turn(self, place: int) -> bytes:
        if place < 0:
            data, self._input = self._input, b""
            return data
        decoder, data = self._decoders[place], b""
        if decoder.needs_input and not (data := self._turn(place - 1)):
            return b""
        try:
            output = decoder.decode(data)
        except (zlib.error, brotli.error, zstd.ZstdError, _TrailingBytes, _SizeIsWrong):
            raise CodingDamaged(f"not valid {self._names[place]}") from None
        except _TooManyFrames:
            raise CodingDamaged(f"{self._names[place]} of very many tiny frames") from None
        self._left[place] -= len(output)
        if self._left[place] < 0:
            raise DecodedTooLarge
        return output


def codings_of(content_encoding: str) -> list[str]:
    """The names in a `content-encoding`, whose lines are joined by LF, in the order in which they were put on."""
    names = (name.strip(" \t").lower() for name in content_encoding.replace("\n", ",").split(","))
    return [name for name in names if name not in ("", "identity")]


class _TrailingBytes(Exception):
    """Something follows the end."""


class _SizeIsWrong(Exception):
    """It holds another number of bytes than it says."""


class _TooManyFrames(Exception):
    """They would cost more to decode than they hold."""


class _FrameLengths:
    """Holds the frames of one body to their average length."""

    def __init__(self) -> None:
        self._left = _FRAMES_FREE * _FRAME_BYTES

    def ended(self, frame_bytes: int) -> None:
        """Raises _TooManyFrames."""
        self._left += frame_bytes - _FRAME_BYTES
        if self._left < 0:
            raise _TooManyFrames


class _Zlib:
    """gzip, of one member or many, perhaps padded with zeros as gzip(1) takes it, and deflate.

    `deflate` means the zlib format (RFC 9110, section 8.4.1.2), but some programs send the raw one, and others take one
    name for the other. The first byte tells: gzip's is 0x1f, with which no raw stream begins, and the low half of a
    zlib stream's is 8.
    """

    def __init__(self, *, is_gzip: bool) -> None:
        self.needs_input, self.whole = True, False
        self._is_gzip = is_gzip
        self._member: zlib._Decompress | None = None
        self._member_bytes = 0
        self._lengths = _FrameLengths()
        self._rest = b""

    def decode(self, data: bytes) -> bytes:
        data = self._rest + data
        if self._member is None:
            if self.whole and not self._is_gzip:
                raise _TrailingBytes
            if self.whole and not (data := data.lstrip(b"\0")):
                self._rest, self.needs_input = b"", True
                return b""
            self._member = zlib.decompressobj(self._format(data))
        member = self._member
        output = member.decompress(data, SLICE_BYTES)
        self.whole = member.eof
        self._rest = member.unused_data if member.eof else member.unconsumed_tail
        self._member_bytes += len(data) - len(self._rest)
        # Where it stopped for the size alone, there may be more although all input is taken.
        self.needs_input = not self._rest and (member.eof or len(output) < SLICE_BYTES)
        if member.eof:
            self._lengths.ended(self._member_bytes)
            self._member, self._member_bytes = None, 0
        return output

    def _format(self, data: bytes) -> int:
        if data[0] & 0x0F == zlib.DEFLATED:
            return _ZLIB
        return _GZIP if self._is_gzip or data[0] == _GZIP_FIRST_BYTE else _RAW_DEFLATE


class _Brotli:
    """br: RFC 7932."""

    def __init__(self) -> None:
        self.needs_input, self.whole = True, False
        self._decompressor = brotli.Decompressor()

    def decode(self, data: bytes) -> bytes:
        if self.whole:
            raise _TrailingBytes
        output: bytes = self._decompressor.process(data, output_buffer_limit=_BROTLI_SLICE_BYTES)
        self.whole = self._decompressor.is_finished()
        is_stopped = len(output) >= _BROTLI_SLICE_BYTES or not self._decompressor.can_accept_more_data()
        self.needs_input = self.whole or not is_stopped
        return output


class _Zstd:
    """zstd, of one frame or many: RFC 8878.

    The library reads a frame that it is given at once in another way than one that comes in pieces, with other checks.
    So it gets the first byte of each frame alone, and what the frame says of its size is checked here.
    """

    def __init__(self) -> None:
        self.needs_input, self.whole = True, False
        self._frame: zstd.ZstdDecompressor | None = None
        self._rest = b""
        self._head = b""
        self._frame_bytes = self._decoded_bytes = 0
        self._lengths = _FrameLengths()

    def decode(self, data: bytes) -> bytes:
        data, self._rest = self._rest + data, b""
        self._frame_bytes += len(data)
        if self._frame is None:
            self._frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
            self._head, self._decoded_bytes = data[:_ZSTD_HEAD_BYTES], 0
            self._frame.decompress(data[:1])
            data = data[1:]
        elif (missing := _ZSTD_HEAD_BYTES - len(self._head)) > 0:
            self._head += data[:missing]
        output = self._frame.decompress(data, SLICE_BYTES)
        self._decoded_bytes += len(output)
        self.whole, self.needs_input = self._frame.eof, self._frame.needs_input
        if self.whole:
            if zstd.get_frame_info(self._head).decompressed_size not in (None, self._decoded_bytes):
                raise _SizeIsWrong
            self._rest = self._frame.unused_data
            self._lengths.ended(self._frame_bytes - len(self._rest))
            self._frame_bytes = 0
            self._frame, self.needs_input = None, not self._rest
        return output


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": partial(_Zlib, is_gzip=True),
    "x-gzip": partial(_Zlib, is_gzip=True),
    "deflate": partial(_Zlib, is_gzip=False),
    "br": _Brotli,
    "zstd": _Zstd,
}
