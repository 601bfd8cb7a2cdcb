"""What the wire to the model servers promises. Its one keeper is `upstream/client.py`.

`send` returns once the answer's first body byte (or its end) is there, so that nothing is promised
to the client for an upstream that only says hello. From then on bytes are pushed, not pulled:
no task is switched for a chunk.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from gateway.core.request import BodyTail
from gateway.core.response import UpstreamResponse
from gateway.core.snapshot import Upstream

__all__ = ["Outgoing", "UpstreamClient", "UpstreamResponse"]


class Outgoing(msgspec.Struct, frozen=True):
    """A request to an upstream. `path` follows the upstream's base URL; `headers` are those of the
    client that are let through; the wire adds the upstream's own, Host, the framing and
    `Accept-Encoding: identity`."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    method: str = "POST"
    rest: BodyTail | None = None
    """What follows `body`, where that is only a beginning: taken no faster than the upstream takes it,
    and no more of it once an answer has begun."""


class UpstreamClient(Protocol):
    async def send(self, upstream: Upstream, outgoing: Outgoing) -> UpstreamResponse:
        """Raises UpstreamUnreachable (refused, broke, or no free connection), UpstreamTimedOut, and what the
        rest of the request raises."""
        ...

    async def close(self) -> None: ...
