"""A request of a client whose head has come, and what is refused of it before a handler sees it: aiohttp's parser
accepts more than RFC 9112 lets a server accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import istr

from gateway.core.errors import GatewayError, RequestMalformed, TransferCodingUnsupported, VersionUnsupported

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy, MultiMapping
    from yarl import URL

    from gateway.web.http_connection import HttpConnection


_TRANSFER_ENCODING = istr("transfer-encoding")
"""Its lower case is known: that of a plain text is made by each look-up."""


class ClientRequest:
    """`path` and `query_string` are as they were sent, `content` is the body as it was sent. `fault` is why it is
    refused at once."""

    __slots__ = ("_url", "connection", "content", "fault", "headers", "method", "path", "query_string", "version")

    def __init__(self, message: RawRequestMessage, content: StreamReader, connection: HttpConnection) -> None:
        self.connection = connection
        self.content = content
        self.headers: CIMultiDictProxy[str] = message.headers
        self.method: str = message.method
        self._url: URL = message.url
        target = message.path
        if target.startswith("/"):
            self.path, _, self.query_string = target.partition("?")
        else:
            self.path, self.query_string = _parts_of(message.url)
        version: tuple[int, int] = message.version
        self.fault: GatewayError | None = None
        if version is not HttpVersion11 or "#" in target or _TRANSFER_ENCODING in message.headers:
            self.fault = _fault_of(message)
            if self.fault is not None:
                version = HttpVersion11  # An answer in a version that is not understood would be wrong, too.
        self.version = version

    @property
    def query(self) -> MultiMapping[str]:
        """Its parameters, decoded."""
        return self._url.query

    @property
    def content_length(self) -> int | None:
        """As announced; the parser has checked that it is a number."""
        announced = self.headers.get("content-length")
        return None if announced is None else int(announced)

    @property
    def has_body(self) -> bool:
        """Whether there is one, which may be empty if it comes in chunks."""
        return self.content is not EMPTY_PAYLOAD


def _parts_of(url: URL) -> tuple[str, str]:
    """The path and the query of a target that does not begin with a slash. The host of an absolute URL does not count
    here."""
    relative = url.relative() if url.absolute else url
    return relative.raw_path, relative.raw_query_string


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
