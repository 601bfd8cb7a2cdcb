"""A worker's post: which one it is, the port that it shares, and where its supervisor asks it.

Orders come to a worker on its standard input, one end of a pair of sockets; it answers there once it serves.
The other end closes with its supervisor, however that ends.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

import msgspec

SERVING = b"serving\n"
DRAIN = b"drain\n"
HURRY = b"hurry\n"
RELOAD = b"reload\n"

_STDIN = 0


class Post(msgspec.Struct, frozen=True):
    """`worker` counts from 1; `socket` is the path of its admin listener, a unix socket."""

    worker: int
    port: int
    socket: str


async def follow(orders: Mapping[bytes, Callable[[], None]]) -> None:
    """Tell the supervisor that this worker serves, and do what it says. Without a supervisor, drain."""
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=_STDIN))
    writer.write(SERVING)
    while order := await reader.readline():
        orders[order]()
    orders[DRAIN]()
