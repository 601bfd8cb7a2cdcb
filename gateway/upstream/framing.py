"""Finds a response's head and body in a connection's bytes: llhttp behind a small, pure interface.

Interim responses (1xx), trailers and chunk extensions are read and dropped. If it is not certain where the response
ends, that is a fault. What follows the end is `excess`, and makes the connection unfit for another request.
"""

from __future__ import annotations

from collections import deque

import httptools

from gateway.core.header_rules import REPEATED_PREFIXES
from gateway.core.remembered import remembered

BODILESS_BYTES = 65_536
"""What may come in a row without bringing any body: head, trailers, chunk extensions, 1xx."""

_REMEMBERED_NAMES = 256
"""Names of headers. Servers send the same few with every answer; what is remembered must stay bounded."""

_BODILESS_STATUSES = frozenset({204, 304})

NO_HEADERS: dict[str, str] = {}
"""In the place of those that the response has taken. A message that begins has a dictionary of its own."""


@remembered(_REMEMBERED_NAMES)
def _lower(name: bytes) -> str:
    """The name of a header in lower case: the same text each time, so that it is compared and found at once."""
    return name.lower().decode("latin-1")


class BodyPieces(deque[bytes]):
    """What a parser has found of a body. One serves the framings of a whole event loop, since each empties it before
    the loop goes on: what each of thousands of streams has of its own is seldom in the processor's caches."""

    __slots__ = ("put",)

    def __init__(self) -> None:
        super().__init__()
        self.put = self.append


class Framing:
    """Reads one response after another; `expect_response` begins each. `status` is 0 until the head is whole."""

    __slots__ = (
        "_bodiless",
        "_parser",
        "_pieces",
        "_until_close",
        "complete",
        "excess",
        "fault",
        "has_begun",
        "headers",
        "keeps_alive",
        "on_body",
        "status",
    )

    def __init__(self, pieces: BodyPieces) -> None:
        self.headers = NO_HEADERS
        self.keeps_alive = False
        """Of a `complete` response: whether another may follow."""
        self.excess = False
        """Whether bytes came that answer no request. Nothing is read after such, nor after a `fault`."""
        self.fault = ""
        self._pieces = pieces
        self.on_body = pieces.put
        self._parser = httptools.HttpResponseParser(self)
        self.expect_response()

    def expect_response(self) -> None:
        self.status = 0
        self.has_begun = False
        """Whether any byte of the response has come."""
        self.complete = self._until_close = False
        self._bodiless = 0

    def feed(self, data: bytes | memoryview) -> bytes:
        """The body that these bytes bring, in one piece. To be followed by a look at `complete` and
        `fault`."""
        self.has_begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(str(error) or "it switches to another protocol")
        except BaseException:
            self._pieces.clear()  # No other response may get them.
            raise
        pieces = self._pieces
        if not pieces:
            self._count_bodiless(len(data))
            return b""
        self._bodiless = 0
        piece = pieces.popleft()
        if pieces:
            piece = b"".join((piece, *pieces))
            pieces.clear()
        return piece

    def let_go(self) -> None:
        """Nothing is fed any more. Parser and framing have each other, which only a search for garbage would find."""
        del self._parser

    def close(self) -> bool:
        """The connection has ended in order; returns whether this ends the response, too."""
        self.keeps_alive = False
        self.complete = self.complete or (self._until_close and not self.fault)
        return self.complete

    def _refuse(self, what: str) -> None:
        if self.complete:
            self.keeps_alive = False
            self.excess = True
        else:
            self.fault = self.fault or what

    def _count_bodiless(self, size: int) -> None:
        self._bodiless += size
        if self._bodiless > BODILESS_BYTES:
            self._refuse("its head is too large")

    # Called by the parser, as `on_body` is for each piece of a body.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a message follows that answers no request")
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            lower, text, headers = _lower(name), value.decode("utf-8", "replace"), self.headers
            if lower in headers:
                if lower.startswith(REPEATED_PREFIXES):
                    text = f"{headers[lower]}\n{text}"
                elif lower == "content-encoding":
                    # A network that compresses what is compressed may add a line (RFC 9110, 5.3 and 8.4).
                    text = f"{headers[lower]}, {text}"
            headers[lower] = text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        headers = self.headers
        if "transfer-encoding" not in headers:
            self._until_close = "content-length" not in headers and status not in _BODILESS_STATUSES
        elif headers["transfer-encoding"].lower() != "chunked":
            raise ValueError("the only transfer coding known here is chunked")
        self.status = status

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            # Trailers can end the connection, too.
            self.keeps_alive = self._parser.should_keep_alive()
