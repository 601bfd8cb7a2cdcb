"""The decision: may this request pass all of its limits, and how much may it produce?

Pure over counters that were brought up to now. All charges or none: a refusal changes no counter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.core.buckets import Counter, Obstacle, Window
from gateway.core.limit import Limit, Meter, Mode
from gateway.core.reservation import Ask, Charge, Hold, Refusal, Reservation, Standing, Why


class Blocked(msgspec.Struct, frozen=True):
    """One limit that refuses, by its place among the charges."""

    place: int
    need: int
    obstacle: Obstacle


class Judgement(msgspec.Struct, frozen=True):
    """`granted` is the output that the enforced quotas pay for; `blocked` is empty where the request may pass."""

    granted: int
    blocked: tuple[Blocked, ...]
    would_refuse: tuple[Limit, ...]


def decide(ask: Ask, counters: Sequence[Counter], now_ms: int) -> Reservation | Refusal:
    """`counters` are those of the ask's charges, in order. An admission is written into them."""
    judgement = judge(ask, counters)
    if judgement.blocked:
        return refusal(ask, counters, judgement, now_ms)
    granted = judgement.granted
    holds = tuple([_hold(charge, counter, ask, granted) for charge, counter in zip(ask.charges, counters, strict=True)])
    standings = _standings(ask, counters)
    return Reservation(ask.id, now_ms, granted, granted < ask.most, holds, standings, judgement.would_refuse)


def judge(ask: Ask, counters: Sequence[Counter]) -> Judgement:
    """Rates must bear what the answer likely needs, quotas the least that makes sense; shadow limits are
    only named where they would refuse. Nothing is changed."""
    granted = max(min(ask.least, ask.most), _granted(ask, counters))
    blocked: list[Blocked] = []
    would_refuse: list[Limit] = []
    for place, (charge, counter) in enumerate(zip(ask.charges, counters, strict=True)):
        need = need_of(charge, counter, ask, granted)
        obstacle = counter.obstacle(need)
        if obstacle is None:
            continue
        if charge.limit.mode is Mode.SHADOW:
            would_refuse.append(charge.limit)
        else:
            blocked.append(Blocked(place, need, obstacle))
    return Judgement(granted, tuple(blocked), tuple(would_refuse))


def need_of(charge: Charge, counter: Counter, ask: Ask, granted: int) -> int:
    """What the counter must be able to bear for the request to pass."""
    if not charge.per_output:
        return charge.fixed
    return charge.amount(min(ask.least, ask.most) if type(counter) is Window else min(ask.likely, granted))


def refusal(ask: Ask, counters: Sequence[Counter], judgement: Judgement, now_ms: int) -> Refusal:
    worst = _gravest(ask.charges, judgement.blocked)
    standings = _standings(ask, counters)
    return Refusal(
        standing=standings[worst.place],
        requested=worst.need,
        why=worst.obstacle.why,
        retry_after_ms=worst.obstacle.retry_after_ms,
        at_ms=now_ms,
        standings=standings,
        would_refuse=judgement.would_refuse,
    )


def _gravest(charges: Sequence[Charge], blocked: Sequence[Blocked]) -> Blocked:
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


def borne_by(charge: Charge, quota: bool, ask: Ask, granted: int) -> int:
    """What an admitted request puts on the limit: on a quota what it may produce, on a rate what it likely will."""
    if not charge.per_output:
        return charge.fixed
    return charge.amount(granted if quota else min(ask.likely, granted))


def _hold(charge: Charge, counter: Counter, ask: Ask, granted: int) -> Hold:
    """Hold the charge; `requests` are used at once, since nothing about them is settled later."""
    amount = borne_by(charge, type(counter) is Window, ask, granted)
    if charge.limit.meter is Meter.REQUESTS:
        counter.use(amount)
    else:
        counter.held += amount
    return Hold(charge.limit, amount, counter.start_ms)


def _standings(ask: Ask, counters: Sequence[Counter]) -> tuple[Standing, ...]:
    return tuple([counter.standing(charge.limit) for charge, counter in zip(ask.charges, counters, strict=True)])
