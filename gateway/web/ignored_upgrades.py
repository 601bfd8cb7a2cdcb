"""Requests to switch to a protocol that the gateway does not know, such as h2c: they are answered as if they had not
asked.

The parser drops what was received together with such a request and follows it. That is the next request (RFC 9110,
section 7.8), whose client would wait for an answer. So the connection is kept only if it is certain that nothing
followed; otherwise it ends with the answer, and the client sends the next request again. Java's client asks for h2c
with its first requests, and sends a body with them.
"""

from __future__ import annotations

from aiohttp.http import RawRequestMessage

_END_OF_HEAD = b"\r\n\r\n"


def bytes_left(message: RawRequestMessage, data: bytes) -> int:
    """How many bytes of such a request are still to come, if it is the only one in what was received. Negative if
    something follows it, or may follow it."""
    # Chunks can end in many ways. A line break in front may be the end of a head, whose first part came before.
    if message.chunked or data[:1] in (b"", b"\r", b"\n"):
        return -1
    end_of_head = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    return end_of_head + int(message.headers.get("content-length", 0)) - len(data)
