"""The body of a request, decoded, up to the size that the operator allows: complete, or as it comes.

Nothing is read before a stage asks for it, and no stage asks before the key is known to be valid: until then a body
costs what the kernel and the parser hold of it, whatever its decoded size is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import ClientError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError
from multidict import istr

from gateway.core.content_coding import (
    CodingDamaged,
    CodingUnknown,
    ContentDecoder,
    DecodedTooLarge,
    codings_of,
)
from gateway.core.errors import CODINGS, ClientGone, EncodingUnsupported, RequestMalformed, TooLarge
from gateway.web.body_memory import SMALL_BYTES, BodyMemory, HeldBytes
from gateway.web.client_request import ClientRequest
from gateway.web.disk_spool import DiskSpool

BODY_TIMEOUT_S = 60.0
"""How long a client may take to send its body, or of one that is taken in pieces the beginning and then each
piece, so that a slow one cannot keep a request open without end."""

_UNPACKED_TIMES = 8
"""The expected growth of a compressed body: JSON with text grows by 3 to 6."""

_UNANNOUNCED_BYTES = 1024 * 1024
"""The expected size of a body that does not announce its length."""

_NEVER_HELD_BACK = 16 * 1024
"""Bytes of a body for which no connection stops to read."""

_CONTENT_ENCODING = istr("content-encoding")
"""Its lower case is known."""

_NOTHING: deque[bytes] = deque(maxlen=0)
"""What aiohttp's stream has left of a body that has come whole. An empty queue of its own would take 700 bytes."""


class ClientBody:
    """A `gateway.core.request.Body`. Its owner calls `release` when the request is over, or earlier."""

    __slots__ = (
        "_content",
        "_decoder",
        "_holds",
        "_max_bytes",
        "_memory",
        "_request",
        "_small_bytes",
        "_spools",
        "_turns",
        "size",
        "team",
    )

    def __init__(self, request: ClientRequest, max_bytes: int, memory: BodyMemory) -> None:
        self._request = request
        self._content = request.content
        self._max_bytes = max_bytes
        self._memory = memory
        self.size = 0
        self.team = ""
        self._small_bytes = 0
        """What it takes of the memory where it was available."""
        self._holds: HeldBytes | None = None
        self._decoder: ContentDecoder | None = None
        self._turns = 0
        self._spools: tuple[DiskSpool, ...] = ()

    @property
    def _held(self) -> HeldBytes:
        """The memory of a body that was not available."""
        if self._holds is None:
            self._holds = HeldBytes(self._memory, self.team)
        return self._holds

    def available(self) -> bytes | None:
        """The body where it is plain and small and has come whole, and there is memory for it."""
        content = self._content
        if not content.is_eof() or content.exception() is not None or _CONTENT_ENCODING in self._request.headers:
            return None
        size = content.total_bytes
        if size > self._max_bytes:
            raise self._too_large(size)
        if size > SMALL_BYTES or not self._memory.take_small(size):
            return None
        self.size = self._small_bytes = size
        if not size:
            return b""  # Where a request has no body, aiohttp's stream has no buffer.
        # aiohttp's own way of reading also sees to a stream that was held back, which so short a one never was.
        return b"".join(content._buffer) if size <= _NEVER_HELD_BACK else content.read_nowait()

    async def whole(self) -> bytes:
        await self._admit(self._max_bytes)
        body = await self._in_time(partial(self._gather, self._max_bytes + 1))
        self._held.trim()
        return body

    async def beginning(self, size: int) -> bytes:
        await self._admit(size)
        return await self._in_time(partial(self._gather, size))

    async def piece(self) -> bytes:
        return await self._in_time(self._next)

    async def spool(self) -> DiskSpool:
        await self._held.expect(self._expected)
        spool = DiskSpool(self._held)
        self._spools += (spool,)
        return spool

    def release(self) -> None:
        """Give back its memory and disk."""
        for spool in self._spools:
            spool.close()
        if self._small_bytes:
            self._memory.give_back_small(self._small_bytes)
            self._small_bytes = 0
            self._content._buffer = _NOTHING  # It still has what was available.
        if self._holds is not None:
            self._holds.release()
            if self._content.at_eof():
                self._content._buffer = _NOTHING

    async def _admit(self, size: int) -> None:
        """Let the client send, once there is memory for this many bytes, unless its head announces too much or a coding
        that is not known. Raises Overloaded."""
        request = self._request
        headers, announced = request.headers, request.content_length
        if announced is not None and announced > self._max_bytes:
            raise self._too_large(announced)
        if "content-encoding" in headers and (codings := codings_of(", ".join(headers.getall("content-encoding", ())))):
            try:
                self._decoder = ContentDecoder(codings, self._max_bytes)
            except CodingUnknown:
                named = ", ".join(codings)[:100]
                raise EncodingUnsupported(
                    f"The content-encoding {named!r} is not supported. Send the body plain or in one of {CODINGS}."
                ) from None
        await self._held.expect(min(size, self._expected))
        expects = "expect" in headers and headers["expect"].lower() == "100-continue"
        # A client of HTTP/1.0 does not know what an interim answer is (RFC 9110, section 10.1.1).
        if expects and request.version >= (1, 1):
            request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def _expected(self) -> int:
        """How long the body will be, once decoded, as far as its head says."""
        length = self._request.content_length
        if length is None:
            length = _UNANNOUNCED_BYTES if self._request.has_body else 0
        return min(self._max_bytes, length * (_UNPACKED_TIMES if self._decoder is not None else 1))

    async def _in_time(self, reading: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            if self._content.is_eof():
                return await reading()
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await reading()
        except TimeoutError:
            raise RequestMalformed(f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds.") from None
        except ConnectionError:
            raise ClientGone("The client left before its request was whole.") from None
        except CodingDamaged as error:
            raise RequestMalformed(f"The body cannot be decoded: it is {error}.") from None
        except DecodedTooLarge:
            raise self._too_large() from None
        except (RequestPayloadError, HttpProcessingError, ClientError) as error:
            raise RequestMalformed(f"The body cannot be read: {error}.") from None

    async def _gather(self, size: int) -> bytes:
        """So many bytes or some more, or all, where there are fewer."""
        pieces = []
        begun = self.size
        while self.size - begun < size and (piece := await self._next(size - self.size + begun)):
            pieces.append(piece)
            await self._held.add(len(piece))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _next(self, most: int = -1) -> bytes:
        """The next bytes; empty at the end. `most` bounds what is not decoded."""
        if self._decoder is None:
            piece = await (self._content.readany() if most < 0 else self._content.read(most))
        else:
            piece = await self._decoded(self._decoder)
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise self._too_large()
        return piece

    async def _decoded(self, decoder: ContentDecoder) -> bytes:
        while True:
            if decoder.needs_input:
                packed = await self._content.readany()
                if not packed:
                    decoder.end()
                    return b""
                decoder.feed(packed)
            if self._turns:
                await asyncio.sleep(0)  # Others run between two turns.
            self._turns += 1
            if piece := decoder.read():
                return piece

    def _too_large(self, size: int | None = None) -> TooLarge:
        of = "" if size is None else f" of {size:,} bytes"
        most = f"{self._max_bytes:,} bytes"
        message = f"The body{of} is larger than the {most} that this gateway takes. Send a smaller request."
        return TooLarge(message, size=size)
