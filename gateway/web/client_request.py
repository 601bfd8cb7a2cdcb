"""A request of a client whose head has come, and what is refused of it before a handler sees it: aiohttp's parser
accepts more than RFC 9112 lets a server accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.core.errors import GatewayError, RequestMalformed, TransferCodingUnsupported, VersionUnsupported

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy
    from yarl import URL

    from gateway.web.http_connection import HttpConnection


class ClientRequest:
    """`url` is relative, `content` the body as it was sent. `fault` is why it is refused at once."""

    __slots__ = ("connection", "content", "fault", "headers", "method", "url", "version")

    def __init__(self, message: RawRequestMessage, content: StreamReader, connection: HttpConnection) -> None:
        self.connection = connection
        self.content = content
        self.fault = fault = _fault_of(message)
        self.headers: CIMultiDictProxy[str] = message.headers
        self.method: str = message.method
        url = message.url
        # Whom an absolute one names says nothing here.
        self.url: URL = url.relative() if url.absolute else url
        # An answer in a version that is not understood would be wrong, too.
        self.version: tuple[int, int] = message.version if fault is None else HttpVersion11

    @property
    def content_length(self) -> int | None:
        """As announced; the parser has checked that it is a number."""
        announced = self.headers.get("content-length")
        return None if announced is None else int(announced)

    @property
    def has_body(self) -> bool:
        """Whether there is one, which may be empty if it comes in chunks."""
        return self.content is not EMPTY_PAYLOAD


def _fault_of(message: RawRequestMessage) -> GatewayError | None:
    """Why a request that the parser let through cannot be served."""
    version, headers = message.version, message.headers
    if version[0] != 1:
        return VersionUnsupported(f"HTTP/{version[0]}.{version[1]} is not served. Send HTTP/1.1.")
    if "#" in message.path:
        return RequestMalformed("The request is not valid HTTP: its target has a fragment ('#').")
    if "transfer-encoding" not in headers:
        return None
    if version < HttpVersion11:
        # A proxy in between that does not know chunks sees another end of the body (RFC 9112, section 6.1).
        return RequestMalformed("The request is not valid HTTP: HTTP/1.0 has no transfer-encoding.")
    codings = headers.getall("transfer-encoding")
    if len(codings) > 1 or codings[0].lower() != "chunked":
        named = ", ".join(codings)[:100]
        return TransferCodingUnsupported(f"The transfer-encoding {named!r} is not supported. Send chunked alone.")
    return None
