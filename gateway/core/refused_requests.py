"""What was read of requests that a limit has just refused, by the bytes of their bodies.

A program that ignores 429 sends the same request again at once. The same bytes, of the same caller and at the same
endpoint, are read as they were before, and ask the same of their limits while the estimates are the same: none of that
is done again for a refusal that is repeated.

What is kept is what was read, so a request that passes takes it out: no two that go on have the same. Little is kept,
and not for long: it has prompts in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.errors import LimitRefusal
from gateway.core.estimate import Estimator
from gateway.core.exchange import Exchange
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
    names one. It asked `asked` of its limits, with this estimate of its input in tokens, by this revision of the
    estimator. `error` is what the last one like it was answered."""

    parsed: ParsedRequest
    caller: Caller
    snapshot: ConfigSnapshot
    query: str
    user: str
    asked: AdmissionRequest
    estimator: Estimator
    revision: int
    entered: int
    error: LimitRefusal


class RefusedRequests:
    """`later` calls a function after so many seconds. `has_any` says whether `find` may find something."""

    has_any = False

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._by_body: dict[bytes, RefusedRequest] = {}

    def find(self, exchange: Exchange, body: bytes, snapshot: ConfigSnapshot, user: str) -> RefusedRequest | None:
        """What is kept of a request like this one, which asks the same of its limits by the same estimates. To be
        forgotten where this one is not refused."""
        known = self._by_body.get(body)
        if (
            known is None
            or known.caller is not exchange.caller
            or known.snapshot is not snapshot
            or known.user != user
            or known.query != exchange.request.query
            or known.parsed.endpoint is not exchange.request.endpoint
            or known.estimator.revision != known.revision
        ):
            return None
        return known

    def forget(self, body: bytes) -> None:
        """Keep nothing of requests with this body."""
        self._by_body.pop(body, None)

    def keep(self, exchange: Exchange, body: bytes, snapshot: ConfigSnapshot, user: str, error: LimitRefusal) -> None:
        """Keep what was read of a request that is refused with this error."""
        if len(body) > _BODY_BYTES_MAX:
            return
        if len(self._by_body) >= _MOST:
            self._by_body.clear()
        self._by_body[body] = _refused(exchange, snapshot, user, error)
        if not self.has_any:
            self.has_any = True
            self._later(KEPT_S, self._forget_all)

    def _forget_all(self) -> None:
        self.has_any = False
        self._by_body.clear()


def _refused(exchange: Exchange, snapshot: ConfigSnapshot, user: str, error: LimitRefusal) -> RefusedRequest:
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
        estimator,
        estimator.revision,
        exchange.estimated_input,
        error,
    )
