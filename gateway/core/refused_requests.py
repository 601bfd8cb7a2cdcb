"""What was read of requests that a limit has just refused, by the bytes of their bodies.

A program that ignores 429 sends the same request again at once. The same bytes, of the same caller and at the same
endpoint, are read as they were before, and ask the same of their limits while the estimates are the same: none of that
is done again for a refusal that is repeated.

A request takes out what is kept, so that no two have the same, and it is put back where the request is refused again.
Little is kept, and not for long: it has prompts in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.exchange import Exchange
from gateway.core.limits import Limit
from gateway.core.request import ParsedRequest
from gateway.core.reservation import AdmissionRequest
from gateway.core.snapshot import Caller, ConfigSnapshot

KEPT_S = 1.0
"""So long after the first of it was kept all is forgotten."""

_MOST = 64

_BODY_BYTES_MAX = 16 * 1024
"""To find a longer body takes about as long as to read it."""


@dataclass(slots=True)
class RefusedRequest:
    """A request of this caller, which was read with this snapshot. `user` is the end user, as far as more than the body
    names one. It asked `asked` of its limits, with this estimate of its input and of its output, in tokens."""

    parsed: ParsedRequest
    caller: Caller
    snapshot: ConfigSnapshot
    query: str
    user: str
    asked: AdmissionRequest
    entered: int
    expected: int

    def asks_the_same(self, limits: Sequence[Limit], entered: int, expected: int) -> bool:
        """Whether a request like it asks these limits the same with these estimates, under another id."""
        return self.asked.limits is limits and self.entered == entered and self.expected == expected


class RefusedRequests:
    """`later` calls a function after so many seconds. `has_any` says whether `take` may find something."""

    has_any = False

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._by_body: dict[bytes, RefusedRequest] = {}

    def take(self, exchange: Exchange, body: bytes, snapshot: ConfigSnapshot, user: str) -> RefusedRequest | None:
        """What was kept of a request like this one, which has it alone from now on."""
        known = self._by_body.pop(body, None)
        if (
            known is None
            or known.parsed.endpoint is not exchange.request.endpoint
            or known.caller is not exchange.caller
            or known.snapshot is not snapshot
            or known.query != exchange.request.query
            or known.user != user
        ):
            return None
        return known

    def keep(
        self, exchange: Exchange, body: bytes, snapshot: ConfigSnapshot, user: str, before: RefusedRequest | None
    ) -> None:
        """Keep what was read of a request that is refused. `before` is what was taken for it."""
        if len(body) > _BODY_BYTES_MAX:
            return
        if len(self._by_body) >= _MOST:
            self._by_body.clear()
        if before is None or before.asked is not exchange.asked:
            before = _refused(exchange, snapshot, user)
        self._by_body[body] = before
        if not self.has_any:
            self.has_any = True
            self._later(KEPT_S, self._forget)

    def _forget(self) -> None:
        self.has_any = False
        self._by_body.clear()


def _refused(exchange: Exchange, snapshot: ConfigSnapshot, user: str) -> RefusedRequest:
    parsed, caller, asked, estimator = exchange.parsed, exchange.caller, exchange.asked, exchange.estimator
    assert parsed is not None and caller is not None, "it was read"  # noqa: PT018
    assert asked is not None and estimator is not None, "it was refused by a limit"  # noqa: PT018
    return RefusedRequest(
        parsed,
        caller,
        snapshot,
        exchange.request.query,
        user,
        asked,
        exchange.estimated_input,
        estimator.output_tokens(),
    )
