"""Writes the head of an answer: status line, headers, framing, server and date (RFC 9112, sections 4 and 6).

It is one format string instead of a map of headers, which would cost more than all the rest of a short answer. What is
the same in many answers, as the headers of a refusal that is repeated, is put into lines once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus

from gateway.core.remembered import remembered

SERVER = "inducta-gateway"
"""What every answer calls the server."""

CHUNKED = "transfer-encoding: chunked\r\n"

_REASONS = {status.value: status.phrase for status in HTTPStatus}
WITHOUT_LENGTH = frozenset({204, 304})
"""Statuses whose answers have no body, so that no length is given (RFC 9110, section 8.6)."""


def field_lines(headers: Iterable[tuple[str, str]]) -> str:
    """Headers as lines, each with a line break in front of it.

    Raises ValueError for a header that would be read as more than one.
    """
    # `join` takes each pair as it is: a comprehension would cost as much as all else here. Searching the text for a
    # break that must not be there takes a fraction of counting those between the lines.
    lines = ["", *map(": ".join, headers)]
    text = "".join(lines)
    if "\r" in text or "\n" in text:
        raise ValueError("a header of the answer has a line break in it")
    return "\r\n".join(lines)


def response_head(status: int, fields: str, framing: str, *, version: tuple[int, int], closes: bool) -> bytes:
    """The head, to its empty line. `fields` is what `field_lines` gives; `framing` is `CHUNKED`, a line with the
    length, or empty for a body that ends with its connection. `version` is the client's; `closes` says that the
    connection ends with this answer."""
    if closes:
        connection = "" if "\r\nconnection: " in fields else "connection: close\r\n"
    else:
        connection = "connection: keep-alive\r\n" if version == (1, 0) else ""
    first, last = _status_lines(version)(status), _end(int(time.time()))
    return f"{first}{fields}\r\n{framing}{connection}{last}".encode("utf-8", "surrogateescape")


@remembered(8)
def _status_lines(version: tuple[int, int]) -> Callable[[int], str]:
    """Those of a version, by status."""
    return remembered(128)(lambda status: f"HTTP/{version[0]}.{version[1]} {status} {_REASONS.get(status, '')}")


@remembered(1)
def _end(second: int) -> str:
    """The server, the date and what ends the head."""
    return f"server: {SERVER}\r\ndate: {formatdate(second, usegmt=True)}\r\n\r\n"
