"""Decides whether a request may pass all of its limits, and how much output it may produce.

A rate needs enough left for the input and for what the answer probably needs. It never asks for more than a full
bucket, so only an input that is larger than the bucket is refused permanently. What an answer uses beyond its hold is
debt, which the bucket's refill repays.

A quota must not be exceeded. It has to pay for the smallest useful output, it grants a share of what is left, and the
output is capped to that share. So what requests in flight hold is a bound of what they can use.

Pure, over counters that the caller has brought up to now. All charges are made or none: a refusal changes no counter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.core.buckets import Counter, Denial, Window
from gateway.core.limits import Limit, Meter, Mode
from gateway.core.reservation import (
    AdmissionRequest,
    Charge,
    Hold,
    Holds,
    LimitStatuses,
    Refusal,
    RefusalReason,
    Reservation,
    output_share,
)


class DeniedCharge(msgspec.Struct, frozen=True):
    """One limit that refuses, by its place among the charges."""

    place: int
    need: int
    denial: Denial


class Judgement(msgspec.Struct, frozen=True):
    """`granted` is the output that the enforced quotas pay for; `blocked` is empty where the request may pass."""

    granted: int
    blocked: tuple[DeniedCharge, ...]
    would_refuse: tuple[Limit, ...]


def decide(request: AdmissionRequest, counters: Sequence[Counter], now_ms: int) -> Reservation | Refusal:
    """`counters` are those of the request's charges, in order. An admission is written into them."""
    judgement = judge(request, counters)
    if judgement.blocked:
        return refusal(request, counters, judgement, now_ms)
    granted = judgement.granted
    holds = Holds.of(
        [
            _hold(charge, counter, request, granted)
            for charge, counter in zip(request.charges, counters, strict=True)
            if charge.limit not in judgement.would_refuse
        ]
    )
    limit_statuses = _limit_statuses(request, counters)
    return Reservation(
        request.id, now_ms, granted, granted < request.most, holds, limit_statuses, judgement.would_refuse
    )


def judge(request: AdmissionRequest, counters: Sequence[Counter]) -> Judgement:
    """The limits that have too little left for the request. Shadow limits are only named in case they would refuse.
    Nothing is changed."""
    granted = max(min(request.least, request.most), _granted(request, counters))
    blocked: list[DeniedCharge] = []
    would_refuse: list[Limit] = []
    for place, (charge, counter) in enumerate(zip(request.charges, counters, strict=True)):
        need = need_of(charge, counter, request, granted)
        denial = counter.denial(need)
        if denial is None:
            continue
        if charge.limit.mode is Mode.SHADOW:
            would_refuse.append(charge.limit)
        else:
            blocked.append(DeniedCharge(place, need, denial))
    return Judgement(granted, tuple(blocked), tuple(would_refuse))


def need_of(charge: Charge, counter: Counter, request: AdmissionRequest, granted: int) -> int:
    """What the counter must have left for the request to pass."""
    if type(counter) is Window:
        return charge.amount(min(request.least, request.most))
    return held_amount(charge, counter.capacity, request, granted)


def refusal(request: AdmissionRequest, counters: Sequence[Counter], judgement: Judgement, now_ms: int) -> Refusal:
    worst = _gravest(request.charges, judgement.blocked)
    limit_statuses = _limit_statuses(request, counters)
    return Refusal(
        limit_status=limit_statuses[worst.place],
        requested=worst.need,
        why=worst.denial.why,
        retry_after_ms=worst.denial.retry_after_ms,
        at_ms=now_ms,
        limit_statuses=limit_statuses,
        would_refuse=judgement.would_refuse,
    )


def _gravest(charges: Sequence[Charge], blocked: Sequence[DeniedCharge]) -> DeniedCharge:
    """The one with the longest wait: never, then a spent quota, then by time; of equals the first."""

    def gravity(candidate: DeniedCharge) -> tuple[int, float]:
        why, wait_ms = candidate.denial.why, candidate.denial.retry_after_ms
        if why is RefusalReason.NEVER:
            return 2, 0
        if why is RefusalReason.SPENT and charges[candidate.place].limit.is_quota:
            return 1, wait_ms or float("inf")
        return 0, wait_ms

    return max(blocked, key=gravity)


def _granted(request: AdmissionRequest, counters: Sequence[Counter]) -> int:
    """As much output as is asked for, or as the tightest enforced quota grants."""
    granted = request.most
    for charge, counter in zip(request.charges, counters, strict=True):
        if type(counter) is Window and charge.per_output and charge.limit.mode is Mode.ENFORCE:
            granted = min(granted, output_share(counter.output_left(charge), request.enough))
    return granted


def held_amount(charge: Charge, bucket: int | None, request: AdmissionRequest, granted: int) -> int:
    """What an admitted request holds of the limit: of a quota all that it may produce, since it has no bucket; of a
    rate what it probably produces, at most a full bucket."""
    if not charge.per_output:
        return charge.fixed
    if bucket is None:
        return charge.amount(granted)
    return max(charge.fixed, min(bucket, charge.amount(min(request.likely, granted))))


def _hold(charge: Charge, counter: Counter, request: AdmissionRequest, granted: int) -> Hold:
    """Hold the charge; `requests` are used at once, since nothing about them is settled later. A shadow quota holds
    what it would if it were enforced."""
    capped = False
    if type(counter) is Window and charge.per_output and charge.limit.mode is Mode.SHADOW:
        own = output_share(counter.output_left(charge), request.enough)
        capped, granted = own < granted, min(own, granted)
    amount = held_amount(charge, None if type(counter) is Window else counter.capacity, request, granted)
    if charge.limit.meter is Meter.REQUESTS:
        counter.use(amount)
    else:
        counter.held += amount
    return Hold(charge.limit, amount, counter.start_ms, capped)


def _limit_statuses(request: AdmissionRequest, counters: Sequence[Counter]) -> LimitStatuses:
    statuses = LimitStatuses.of(
        [counter.limit_status(limit) for limit, counter in zip(request.limits, counters, strict=True)]
    )
    return statuses if statuses.are_raised else msgspec.structs.replace(statuses, limits=request.limits)
