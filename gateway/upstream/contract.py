"""What the client of the model servers promises to the stages, and the names of its failures.

`send` returns once the first byte of the response's body (or its end) has arrived, so that the caller gets no response
from an upstream that sends a head and then fails. From then on bytes are pushed, not pulled: no task is switched for a
chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from gateway.core.errors import UpstreamError
from gateway.core.header_rules import HeaderLines
from gateway.core.request import BodyTail
from gateway.core.response import UpstreamResponse
from gateway.core.snapshot import Upstream

__all__ = ["FailureReason", "UpstreamClient", "UpstreamRequest", "UpstreamResponse"]

E = TypeVar("E", bound=UpstreamError)


def _not_noted(_upstream: str, _outcome: str) -> None:
    """Where attempts are of no interest."""


NOT_SENT = "not_sent"
"""The outcome of an attempt whose caller left before there was a connection for it."""


class UpstreamRequest(msgspec.Struct, frozen=True):
    """A request to an upstream. `path` follows the upstream's base URL, `query` is what of the caller's is let
    through, and so are `headers`. The client adds the upstream's own query and headers, Host, the framing and
    `Accept-Encoding: identity`."""

    path: str
    headers: HeaderLines
    body: bytes
    method: str = "POST"
    model: str = ""
    """The model's name at the upstream, whose models share its connections; empty: the gateway's own request."""
    team: str = ""
    """Whose request it is; teams share the connections, too."""
    rest: BodyTail | None = None
    """What follows `body`, where that is only the beginning: read no faster than the upstream takes it,
    and no further once a response has begun."""
    query: str = ""
    base_path: str | None = None
    """In place of that of the base URL."""
    takes_other_headers: bool = False
    """Whether it is one of the API for which the upstream takes its credential in another way."""
    note_attempt: Callable[[str, str], None] = _not_noted
    """Called with the upstream's name and the outcome of an attempt that is followed by another, `stale_connection`, or
    is cancelled before anything was sent, `NOT_SENT`."""


class UpstreamClient(Protocol):
    async def send(self, upstream: Upstream, request: UpstreamRequest) -> UpstreamResponse:
        """Raises UpstreamUnreachable (refused or broke), UpstreamBusy (no connection free), UpstreamTimedOut, and what
        reading the rest of the request raises."""
        ...

    async def close(self) -> None: ...


class FailureReason(NamedTuple):
    """What an upstream did wrong. `outcome` is a label of metrics, one of the closed list in
    docs/metrics.md; `text` follows the upstream's name in the message."""

    outcome: str
    text: str

    def error(self, upstream_name: str, kind: type[E]) -> E:
        error = kind(f"Upstream {upstream_name!r} {self.text}.")
        error.outcome = self.outcome
        return error
