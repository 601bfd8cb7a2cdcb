"""A request to go on with a protocol that the gateway does not know, as h2c: it is answered as if it had not asked.

The parser drops what was received with it, behind it. That is the next request (RFC 9110, section 7.8), whose client
would wait for an answer. So the connection is kept only where it is certain that nothing was behind it; else it ends
with the answer, and the client sends the next request again. Java's client asks so with its first requests, and sends a
body behind its head.
"""

from __future__ import annotations

from aiohttp.http import RawRequestMessage

_END_OF_HEAD = b"\r\n\r\n"


def bytes_left(message: RawRequestMessage, data: bytes) -> int:
    """How many bytes of such a request, the only one in what was received, are still to come. Below zero where
    something is behind it, or may be."""
    # Chunks can end in many ways. A line break in front may be the end of a head, whose first part came before.
    if message.chunked or data[:1] in (b"", b"\r", b"\n"):
        return -1
    end_of_head = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
    return end_of_head + int(message.headers.get("content-length", 0)) - len(data)
