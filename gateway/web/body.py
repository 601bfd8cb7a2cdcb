"""The body of a request, up to the size that the operator allows."""

from __future__ import annotations

import asyncio

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from gateway.core.errors import ClientGone, RequestMalformed, TooLarge

BODY_TIMEOUT_S = 60.0
"""How long a client may take to send its body, so that a slow one cannot keep a request for ever."""


async def read_body(request: web.BaseRequest, max_bytes: int) -> bytes:
    """The whole body. Raises TooLarge, RequestMalformed, ClientGone."""
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if request.content.is_eof():
            return await _gather(request, max_bytes)
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _gather(request, max_bytes)
    except TimeoutError:
        raise RequestMalformed(f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds.") from None
    except ConnectionError:
        raise ClientGone("The client left before its request was whole.") from None
    except (RequestPayloadError, HttpProcessingError, ClientError) as error:
        raise RequestMalformed(f"The body cannot be read: {error}.") from None


async def _gather(request: web.BaseRequest, max_bytes: int) -> bytes:
    pieces, size = [], 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {max_bytes:,} bytes that this gateway takes. Send a smaller request.")
