"""What the wire to the model servers promises. Its one keeper is `upstream/client.py`.

`send` returns once the answer's first body byte (or its end) is there, so that nothing is promised
to the client for an upstream that only says hello. From then on bytes are pushed, not pulled:
no task is switched for a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from gateway.core.target import Upstream


class Outgoing(msgspec.Struct, frozen=True):
    """A request to an upstream. `path` follows the upstream's base URL; `headers` are those of the
    client that are let through; the wire adds the upstream's own, Host, Content-Length and
    `Accept-Encoding: identity`."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    method: str = "POST"


class Answer(Protocol):
    """An answer that has begun. Times are monotonic seconds of the event loop."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    sent_at: float
    first_byte_at: float

    def pour(self, into: Callable[[bytes], None]) -> None:
        """Hand over what has arrived and, from now on, each piece as it comes. Pieces are decoded of
        the transfer coding and of gzip or deflate, if the upstream used them unasked."""
        ...

    async def finished(self) -> None:
        """Wait for the end. Raises UpstreamBroke or UpstreamTimedOut. To be called after `pour`."""
        ...

    def pause(self) -> None:
        """Take no more from the upstream's socket until `resume`; idle time does not count meanwhile."""
        ...

    def resume(self) -> None: ...

    def abandon(self) -> None:
        """Close the connection, whatever the answer's state; harmless after its end."""
        ...


class Wire(Protocol):
    async def send(self, upstream: Upstream, outgoing: Outgoing) -> Answer:
        """Raises UpstreamUnreachable (refused, broke, or no free connection), UpstreamTimedOut."""
        ...

    async def close(self) -> None: ...
