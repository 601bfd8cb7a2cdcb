"""What Redis has just refused and would refuse again, so that a caller who repeats it at once costs Redis nothing.

A quota that is spent, and a rate that is used up while nothing is held of it, stay so whatever is settled: time alone
gives back what was used. Only a grant comes earlier, and the rare return of a call whose answer was lost. So a refusal
is repeated for `REPEATED_MS` at most, and by that much later than elsewhere a grant of another process is noticed.

In a flood dozens of requests come while Redis answers one. So that they do not all ask it, one does shortly before the
time is over (`AHEAD_MS`), and the others are refused meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.limits import Limit
from gateway.core.reservation import AdmissionRequest, Refusal, RefusalReason

REPEATED_MS = 100
"""A caller that honours `retry-after` waits for longer. One that does not asks Redis a dozen times a second."""

AHEAD_MS = 20
"""So long Redis has to answer the one that asks ahead: a hundred times what it usually takes."""

_MOST = 1_024
"""Sets of limits with a refusal; all are forgotten where there are more."""


@dataclass(slots=True)
class _Refused:
    """`place` is that of the limit that refused. By the store's time, the refusal is repeated until `until_ms`, and one
    request asks ahead from `ahead_ms` on; both are the same where none does, or one has. `last` is the refusal as it
    was given last, and `repeated` the request that it was given: a flood asks for it several times in a millisecond,
    and may ask with the same object."""

    request: AdmissionRequest
    refusal: Refusal
    place: int
    ahead_ms: int
    until_ms: int
    last: Refusal
    repeated: AdmissionRequest


class RememberedRefusals:
    """By the identity of a request's `limits`, which is the same for all requests that they bind."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms` is the store's time."""
        self._now_ms = now_ms
        self._by_limits: dict[int, _Refused] = {}

    def repeated(self, request: AdmissionRequest) -> Refusal | None:
        """The refusal of a request that asked for no more than this one, where it still holds: as of now."""
        refused = self._by_limits.get(id(request.limits)) if self._by_limits else None
        if refused is None:
            return None
        last, now_ms = refused.last, self._now_ms()
        if refused.repeated is request and last.at_ms == now_ms:
            return last
        known = refused.refusal
        if now_ms >= refused.until_ms or now_ms < known.at_ms:
            del self._by_limits[id(request.limits)]
            return None
        if refused.repeated is not request:
            if not _asks_no_less(request, refused.request, refused.place):
                return None
            refused.repeated = request
        if now_ms >= refused.ahead_ms:
            refused.ahead_ms = refused.until_ms
            return None
        if last.at_ms == now_ms:
            return last
        wait_ms = known.retry_after_ms
        if wait_ms:
            left_ms = known.at_ms + wait_ms - now_ms
            wait_ms = left_ms if left_ms > 1 else 1
        refused.last = repeated = Refusal(
            known.limit_status,
            known.requested,
            known.why,
            wait_ms,
            now_ms,
            known.limit_statuses,
            known.would_refuse,
            known,
        )
        return repeated

    def remember(self, request: AdmissionRequest, refusal: Refusal) -> None:
        """Of what cannot be repeated, nothing is kept: what a grant has raised, or what a settlement may change."""
        limit, statuses = refusal.limit_status.limit, refusal.limit_statuses
        if refusal.why is not RefusalReason.SPENT or statuses.are_raised:
            return
        if limit.is_rate and refusal.limit_status.held:
            return
        if len(self._by_limits) >= _MOST:
            self._by_limits.clear()
        lasts_ms = min(refusal.retry_after_ms or REPEATED_MS, REPEATED_MS)
        place, until_ms = _place_of(limit, request), refusal.at_ms + lasts_ms
        # When a rate lets requests through again, nothing is to be asked ahead.
        ahead_ms = until_ms - AHEAD_MS if lasts_ms == REPEATED_MS else until_ms
        self._by_limits[id(request.limits)] = _Refused(request, refusal, place, ahead_ms, until_ms, refusal, request)

    def forget(self) -> None:
        """All of it: a grant has changed what is left."""
        self._by_limits.clear()


def _place_of(limit: Limit, request: AdmissionRequest) -> int:
    return next(place for place, one in enumerate(request.limits) if one == limit)


def _asks_no_less(request: AdmissionRequest, other: AdmissionRequest, place: int) -> bool:
    """Whether the limit must have at least as much left for the request as for the other one."""
    return (
        request.fixed[place] >= other.fixed[place]
        and request.per_output[place] >= other.per_output[place]
        and request.least >= other.least
        and request.likely >= other.likely
        and request.most >= other.most
        and request.enough >= other.enough
    )
