"""The body of a request, up to the size that the operator allows: whole, or as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from gateway.core.errors import ClientGone, RequestMalformed, TooLarge

BODY_TIMEOUT_S = 60.0
"""How long a client may take to send its body, or of one that is taken in pieces the beginning and then each
piece, so that a slow one cannot keep a request for ever."""


class ClientBody:
    """A `gateway.core.request.Body`."""

    def __init__(self, request: web.BaseRequest, max_bytes: int) -> None:
        self._request = request
        self._content = request.content
        self._max_bytes = max_bytes
        self.size = 0

    @property
    def length(self) -> int | None:
        # What was compressed is unpacked on its way in, and then has another length.
        return None if "content-encoding" in self._request.headers else self._request.content_length

    async def whole(self) -> bytes:
        self._admit()
        return await self._in_time(self._gather)

    async def beginning(self, size: int) -> bytes:
        self._admit()
        return await self._in_time(partial(self._gather_up_to, size))

    async def piece(self) -> bytes:
        return self._counted(await self._in_time(self._content.readany))

    def _admit(self) -> None:
        """Let the client send, unless its head announces too much."""
        request = self._request
        if request.content_length is not None and request.content_length > self._max_bytes:
            raise self._too_large()
        if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        except (RequestPayloadError, HttpProcessingError, ClientError) as error:
            raise RequestMalformed(f"The body cannot be read: {error}.") from None

    async def _gather(self) -> bytes:
        if self._content.is_eof():
            return self._counted(self._content.read_nowait())
        pieces = []
        while piece := await self._content.readany():
            pieces.append(self._counted(piece))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _gather_up_to(self, size: int) -> bytes:
        pieces = []
        while self.size < size and (piece := await self._content.read(size - self.size)):
            pieces.append(self._counted(piece))
        return b"".join(pieces)

    def _counted(self, piece: bytes) -> bytes:
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise self._too_large()
        return piece

    def _too_large(self) -> TooLarge:
        most = f"{self._max_bytes:,} bytes"
        return TooLarge(f"The body is larger than the {most} that this gateway takes. Send a smaller request.")
