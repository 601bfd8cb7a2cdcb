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
from operator import attrgetter

import msgspec

from gateway.core.buckets import Counter, Denial, Window
from gateway.core.limits import MICRO, Limit, Meter, Mode
from gateway.core.reservation import (
    AdmissionRequest,
    Hold,
    Holds,
    LimitStatuses,
    Refusal,
    RefusalReason,
    Reservation,
    output_share,
)

# Slow to reach through their classes in Python 3.11.
_REQUESTS, _SHADOW = Meter.REQUESTS, Mode.SHADOW

_mode_of, _used_of, _held_of, _granted_of = map(attrgetter, ("mode", "used", "held", "granted"))


class DeniedCharge(msgspec.Struct, frozen=True):
    """One limit that refuses, by its place among the charges."""

    place: int
    need: int
    denial: Denial


class Judgement(msgspec.Struct, frozen=True):
    """`granted` is the output that the enforced quotas pay for, and `amounts` what each limit holds for it, were it
    enforced; `blocked` is empty where the request may pass."""

    granted: int
    amounts: list[int]
    blocked: tuple[DeniedCharge, ...]
    would_refuse: tuple[Limit, ...]


def decide(request: AdmissionRequest, counters: Sequence[Counter], now_ms: int) -> Reservation | Refusal:
    """`counters` are those of the request's charges, in order. An admission is written into them."""
    judgement = judge(request, counters)
    if judgement.blocked:
        return refusal(request, counters, judgement, now_ms)
    granted = judgement.granted
    if _SHADOW in map(_mode_of, request.limits):
        holds = _hold_in_shadow(request, counters, judgement)
    else:
        holds = _hold(request.limits, counters, judgement.amounts)
    limit_statuses = _limit_statuses(request, counters)
    return Reservation(
        request.id, now_ms, granted, granted < request.most, holds, limit_statuses, judgement.would_refuse
    )


def judge(request: AdmissionRequest, counters: Sequence[Counter]) -> Judgement:
    """The limits that have too little left for the request. Shadow limits are only named in case they would refuse.
    Nothing is changed."""
    least = request.least if request.least < request.most else request.most
    granted = max(least, _granted(request, counters))
    buckets = [None if type(counter) is Window else counter.capacity for counter in counters]
    amounts = held_amounts(request, buckets, granted)
    blocked: list[DeniedCharge] = []
    would_refuse: list[Limit] = []
    for place, (need, counter) in enumerate(zip(amounts, counters, strict=True)):
        if need <= counter.capacity - counter.used - counter.held:
            continue
        if buckets[place] is None:
            need = request.fixed[place] - (-least * request.per_output[place] // MICRO)  # noqa: PLW2901 # Of a quota.
        denial = counter.denial(need)
        if denial is None:
            continue
        if request.limits[place].mode is _SHADOW:
            would_refuse.append(request.limits[place])
        else:
            blocked.append(DeniedCharge(place, need, denial))
    return Judgement(granted, amounts, tuple(blocked), tuple(would_refuse))


def refusal(request: AdmissionRequest, counters: Sequence[Counter], judgement: Judgement, now_ms: int) -> Refusal:
    worst = _gravest(request.limits, judgement.blocked)
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


def _gravest(limits: Sequence[Limit], blocked: Sequence[DeniedCharge]) -> DeniedCharge:
    """The one with the longest wait: never, then a spent quota, then by time; of equals the first."""

    def gravity(candidate: DeniedCharge) -> tuple[int, float]:
        why, wait_ms = candidate.denial.why, candidate.denial.retry_after_ms
        if why is RefusalReason.NEVER:
            return 2, 0
        if why is RefusalReason.SPENT and limits[candidate.place].is_quota:
            return 1, wait_ms or float("inf")
        return 0, wait_ms

    return max(blocked, key=gravity)


def _granted(request: AdmissionRequest, counters: Sequence[Counter]) -> int:
    """As much output as is asked for, or as the tightest enforced quota grants."""
    granted = request.most
    for limit, fixed, per_output, counter in zip(
        request.limits, request.fixed, request.per_output, counters, strict=True
    ):
        if type(counter) is Window and per_output and limit.mode is not _SHADOW:
            share = output_share(counter.output_left(fixed, per_output), request.enough)
            if share < granted:
                granted = share
    return granted


def held_amounts(request: AdmissionRequest, buckets: Sequence[int | None], granted: int) -> list[int]:
    """What an admitted request holds of each limit: of a quota all that it may produce, since it has no bucket; of a
    rate what it probably produces, at most a full bucket."""
    likely = request.likely if request.likely < granted else granted
    amounts: list[int] = []
    for fixed, per_output, bucket in zip(request.fixed, request.per_output, buckets, strict=True):
        if not per_output:
            amounts.append(fixed)
        elif bucket is None:
            amounts.append(fixed - (-granted * per_output // MICRO))
        else:
            amount = fixed - (-likely * per_output // MICRO)
            amounts.append(max(fixed, min(bucket, amount)))
    return amounts


def _hold(limits: tuple[Limit, ...], counters: Sequence[Counter], amounts: Sequence[int]) -> Holds:
    """Hold the charges; `requests` are used at once, since nothing about them is settled later."""
    windows_ms: list[int] = []
    for limit, amount, counter in zip(limits, amounts, counters, strict=True):
        if limit.meter is _REQUESTS:
            counter.use(amount)
        else:
            counter.held += amount
        windows_ms.append(counter.start_ms)
    return Holds(limits, amounts, windows_ms)


def _hold_in_shadow(request: AdmissionRequest, counters: Sequence[Counter], judgement: Judgement) -> Holds:
    """The same where there are shadow limits: one that would have refused holds nothing, and a quota what it would if
    it were enforced."""
    granted, holds = judgement.granted, list[Hold]()
    for limit, fixed, per_output, enforced, counter in zip(
        request.limits, request.fixed, request.per_output, judgement.amounts, counters, strict=True
    ):
        if limit in judgement.would_refuse:
            continue
        capped, amount = False, enforced
        if type(counter) is Window and per_output and limit.mode is _SHADOW:
            own = output_share(counter.output_left(fixed, per_output), request.enough)
            capped, amount = own < granted, fixed - (-min(own, granted) * per_output // MICRO)
        if limit.meter is _REQUESTS:
            counter.use(amount)
        else:
            counter.held += amount
        holds.append(Hold(limit, amount, counter.start_ms, capped))
    return Holds.of(holds)


def _limit_statuses(request: AdmissionRequest, counters: Sequence[Counter]) -> LimitStatuses:
    used, held = list(map(_used_of, counters)), list(map(_held_of, counters))
    resets_ms = [counter.resets_ms() for counter in counters]
    if not any(map(_granted_of, counters)):
        return LimitStatuses(request.limits, used, held, resets_ms)
    raised = [limit.raised(counter.granted) for limit, counter in zip(request.limits, counters, strict=True)]
    return LimitStatuses(raised, used, held, resets_ms, True)
