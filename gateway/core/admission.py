"""The decision: may this request pass all of its limits, and how much may it produce?

Pure over counters that were brought up to now. All charges or none: a refusal changes no counter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.core.buckets import Counter, Obstacle, Window
from gateway.core.limit import Limit, Meter, Mode
from gateway.core.reservation import Ask, Charge, Hold, Refusal, Reservation, Why


class Blocked(msgspec.Struct, frozen=True):
    """One limit that refuses, by its place among the charges."""

    place: int
    need: int
    obstacle: Obstacle


def decide(ask: Ask, counters: Sequence[Counter], now_ms: int) -> Reservation | Refusal:
    """`counters` are those of the ask's charges, in order. An admission is written into them.

    Rates must bear what the answer likely needs, quotas the least that makes sense; shadow limits
    are only named where they would refuse.
    """
    required = min(ask.least, ask.most)
    granted = max(required, _granted(ask, counters))
    likely = min(ask.likely, granted)
    blocked: list[Blocked] = []
    would_refuse: list[Limit] = []
    for place, (charge, counter) in enumerate(zip(ask.charges, counters, strict=True)):
        need = charge.amount(required if type(counter) is Window else likely) if charge.per_output else charge.fixed
        obstacle = counter.obstacle(need)
        if obstacle is None:
            continue
        if charge.limit.mode is Mode.SHADOW:
            would_refuse.append(charge.limit)
        else:
            blocked.append(Blocked(place, need, obstacle))
    if blocked:
        return _refusal(ask, counters, now_ms, gravest(ask.charges, blocked), tuple(would_refuse))
    holds = tuple(
        _hold(charge, counter, granted if type(counter) is Window else likely)
        for charge, counter in zip(ask.charges, counters, strict=True)
    )
    standings = tuple([counter.standing(charge.limit) for charge, counter in zip(ask.charges, counters, strict=True)])
    return Reservation(ask.id, now_ms, granted, granted < ask.most, holds, standings, tuple(would_refuse))


def gravest(charges: Sequence[Charge], blocked: Sequence[Blocked]) -> Blocked:
    """The one with the longest wait: never, then a spent quota, then by time; of equals the first."""

    def gravity(candidate: Blocked) -> tuple[int, float]:
        why, wait_ms = candidate.obstacle.why, candidate.obstacle.retry_after_ms
        if why is Why.NEVER:
            return 2, 0
        if why is Why.SPENT and charges[candidate.place].limit.is_quota:
            return 1, wait_ms or float("inf")
        return 0, wait_ms

    return max(blocked, key=gravity)


def _granted(ask: Ask, counters: Sequence[Counter]) -> int:
    """As much output as is asked for, or as the tightest enforced quota still pays for."""
    granted = ask.most
    for charge, counter in zip(ask.charges, counters, strict=True):
        if type(counter) is Window and charge.per_output and charge.limit.mode is Mode.ENFORCE:
            granted = min(granted, counter.output_left(charge))
    return granted


def _hold(charge: Charge, counter: Counter, output: int) -> Hold:
    """Hold the charge; `requests` are used at once, since nothing about them is settled later."""
    amount = charge.amount(output) if charge.per_output else charge.fixed
    if charge.limit.meter is Meter.REQUESTS:
        counter.use(amount)
    else:
        counter.held += amount
    return Hold(charge.limit, amount, counter.start_ms)


def _refusal(
    ask: Ask, counters: Sequence[Counter], now_ms: int, worst: Blocked, would_refuse: tuple[Limit, ...]
) -> Refusal:
    standings = tuple([counter.standing(charge.limit) for charge, counter in zip(ask.charges, counters, strict=True)])
    return Refusal(
        standing=standings[worst.place],
        requested=worst.need,
        why=worst.obstacle.why,
        retry_after_ms=worst.obstacle.retry_after_ms,
        at_ms=now_ms,
        standings=standings,
        would_refuse=would_refuse,
    )
