"""The arithmetic of limits: buckets for rates, windows for quotas, leases for concurrency.

Whole numbers only and no clock: callers say what time it is. What is used and what is held are kept
apart; holds do not decay. Numbers stay below 2^53, so that a store that counts in doubles agrees.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.calendar import FOREVER_MS, window
from gateway.core.forecast import UseHistory
from gateway.core.grants import Grants, total, unended
from gateway.core.limits import MICRO, Limit, Meter, Per
from gateway.core.reservation import LimitStatus, RefusalReason

HELD_RETRY_MS = 1_000
"""When to retry if only holds are in the way: it is not known when they are settled."""


class Denial(msgspec.Struct, frozen=True):
    """Why a counter does not have what is needed. `retry_after_ms` 0 says that waiting does not help."""

    why: RefusalReason
    retry_after_ms: int


def pace(limit: Limit) -> tuple[int, int]:
    """(flow, scale) of a rate: a unit is `scale` parts, and each millisecond gives back `flow` of them.
    Reduced by their common divisor, so that a bucket's parts stay exact."""
    period_ms = limit.per.rate_ms if limit.per is not None else None
    if period_ms is None:
        raise ValueError(f"{limit.name} is not a rate")
    common = gcd(limit.amount, period_ms)
    return limit.amount // common, period_ms // common


def rescaled(debt: int, old: int, new: int) -> int:
    """A debt, converted to parts of another scale and rounded to the nearest part."""
    return debt // old * new + (debt % old * new + old // 2) // old


class Bucket:
    """A rate: `debt` is what was used and has not flowed back yet, in parts of a unit."""

    __slots__ = ("capacity", "debt", "flow", "granted", "held", "pace_of", "scale", "stamp_ms", "used")

    def __init__(self, limit: Limit, now_ms: int) -> None:
        self.flow, self.scale = pace(limit)
        self.pace_of = limit.amount
        self.capacity = limit.burst
        self.debt = self.used = self.held = self.granted = 0
        self.stamp_ms = now_ms

    start_ms = 0
    """A bucket has one window, all of time: a hold on it can always be given back."""

    def advance(self, limit: Limit, now_ms: int, grants: Grants = ()) -> None:
        """Let the time since the last call flow back, and take on the limit's present amounts. `grants` are those that
        had not ended at the last call: until its end each has its part in the pace."""
        self.granted = 0
        if grants:
            while grants and grants[0].until_ms <= now_ms:
                self._flow_back(limit.raised(total(grants)), grants[0].until_ms)
                grants = grants[1:]
            self.granted = total(grants)
            limit = limit.raised(self.granted)
        self._flow_back(limit, now_ms)
        # A clock that was set back counts from its new time: else nothing would refill until it reaches the old one.
        self.stamp_ms = now_ms
        self.capacity = limit.burst
        self.used = -(-self.debt // self.scale)

    def _flow_back(self, limit: Limit, at_ms: int) -> None:
        if self.pace_of != limit.amount:
            flow, scale = pace(limit)
            self.debt = rescaled(self.debt, self.scale, scale)
            self.flow, self.scale, self.pace_of = flow, scale, limit.amount
        elapsed_ms = at_ms - self.stamp_ms
        if elapsed_ms > 0:
            self.stamp_ms = at_ms
            if self.debt:
                self.debt = max(0, self.debt - elapsed_ms * self.flow)

    def use(self, amount: int) -> None:
        self.debt += amount * self.scale
        self.used = -(-self.debt // self.scale)

    def denial(self, need: int) -> Denial | None:
        if need <= self.capacity - self.used - self.held:
            return None
        if need > self.capacity:
            return Denial(RefusalReason.NEVER, 0)
        available = self.capacity - need - self.held
        if available >= 0:
            return Denial(RefusalReason.SPENT, self._wait_ms(available))
        return Denial(RefusalReason.HELD, max(HELD_RETRY_MS, self._wait_ms(self.capacity - need)))

    def _wait_ms(self, used: int) -> int:
        """Milliseconds until at most this much is used."""
        return -((used * self.scale - self.debt) // self.flow)

    def limit_status(self, limit: Limit) -> LimitStatus:
        left = self.capacity - self.used - self.held
        return LimitStatus(limit.raised(self.granted), self.used, self.held, max(0, left), self.resets_ms())

    def resets_ms(self) -> int:
        """When it is full."""
        return self.stamp_ms - (-self.debt // self.flow)

    def is_whole(self, now_ms: int) -> bool:
        return not self.held and self.debt <= (now_ms - self.stamp_ms) * self.flow


class Window:
    """A quota: what was used and is held since the calendar window around now began. `history` is None before the first
    settlement, `noted_percent` the highest part of the amount that a notification was sent for."""

    __slots__ = (
        *("capacity", "end_ms", "granted", "held", "history", "noted_percent"),
        *("now_ms", "per", "start_ms", "used", "zone"),
    )

    def __init__(self, limit: Limit, zone: ZoneInfo) -> None:
        self.per, self.zone = limit.per or Per.TOTAL, zone
        self.capacity = limit.amount
        self.used = self.held = self.granted = self.noted_percent = 0
        self.now_ms = self.start_ms = self.end_ms = 0
        self.history: UseHistory | None = None

    def advance(self, limit: Limit, now_ms: int, grants: Grants = ()) -> None:
        """Start from zero if the window is over. Holds on a past window end with it and bind nothing any more."""
        self.granted = total(unended(grants, now_ms)) if grants else 0
        self.capacity, self.now_ms = limit.amount + self.granted, now_ms
        if not self.start_ms <= now_ms < self.end_ms:
            self.start_ms, self.end_ms = window(self.per, self.zone, now_ms)
            self.used = self.held = self.noted_percent = 0
            self.history = None

    def use(self, amount: int) -> None:
        self.used += amount

    def note(self, amount: int) -> None:
        """Remember for the forecast that a request has used so much."""
        if self.history is None:
            self.history = UseHistory(self.now_ms, self.now_ms)
        self.history.note(amount, self.now_ms)

    def output_left(self, fixed: int, per_output: int) -> int:
        """The tokens of output that the rest pays for, of a charge with this part that is fixed; negative if it does
        not pay for the input."""
        return (self.capacity - self.used - self.held - fixed) * MICRO // per_output

    def denial(self, need: int) -> Denial | None:
        if need <= self.capacity - self.used - self.held:
            return None
        if need > self.capacity:
            return Denial(RefusalReason.NEVER, 0)
        if need <= self.capacity - self.used:
            return Denial(RefusalReason.HELD, HELD_RETRY_MS)
        return Denial(RefusalReason.SPENT, 0 if self.end_ms == FOREVER_MS else self.end_ms - self.now_ms)

    def limit_status(self, limit: Limit) -> LimitStatus:
        left = self.capacity - self.used - self.held
        return LimitStatus(limit.raised(self.granted), self.used, self.held, max(0, left), self.resets_ms())

    def resets_ms(self) -> int:
        """When the window ends; 0 where it never does."""
        return 0 if self.end_ms == FOREVER_MS else self.end_ms

    def is_whole(self, now_ms: int) -> bool:
        return now_ms >= self.end_ms or not (self.used or self.held)


class Leases:
    """`concurrent`: nothing is ever used, only held."""

    __slots__ = ("capacity", "granted", "held")

    used = 0
    start_ms = 0

    def __init__(self, limit: Limit) -> None:
        self.capacity = limit.amount
        self.held = self.granted = 0

    def advance(self, limit: Limit, now_ms: int, grants: Grants = ()) -> None:
        self.granted = total(unended(grants, now_ms)) if grants else 0
        self.capacity = limit.amount + self.granted

    def use(self, amount: int) -> None:
        """A lease that ends leaves nothing behind."""

    def denial(self, need: int) -> Denial | None:
        if need <= self.capacity - self.held:
            return None
        return Denial(RefusalReason.NEVER, 0) if need > self.capacity else Denial(RefusalReason.HELD, HELD_RETRY_MS)

    def limit_status(self, limit: Limit) -> LimitStatus:
        return LimitStatus(limit.raised(self.granted), 0, self.held, max(0, self.capacity - self.held), 0)

    def resets_ms(self) -> int:
        """Nothing comes back with time."""
        return 0

    def is_whole(self, now_ms: int) -> bool:
        return not self.held


Counter = Bucket | Window | Leases


class RateParts(NamedTuple):
    """What of a rate had not flowed back at `stamp_ms`, in parts of a unit, and how many of them a unit had."""

    debt: int
    scale: int
    stamp_ms: int


class CounterState(msgspec.Struct, frozen=True):
    """A counter as a store reports it at `now_ms`: what is used (of a rate in parts), what is held, the window of a
    quota, and what grants add to the limit then."""

    now_ms: int
    spent: int
    held: int
    window: tuple[int, int] = (0, 0)
    granted: int = 0


def restored_rate(limit: Limit, grants: Grants, parts: RateParts, now_ms: int) -> Bucket:
    """The bucket of a rate that grants raise, as it was stored, and as it is now."""
    bucket = Bucket(limit.raised(total(grants)), parts.stamp_ms)
    bucket.debt = rescaled(parts.debt, parts.scale, bucket.scale)
    bucket.advance(limit, now_ms, grants)
    return bucket


def restored(limit: Limit, zone: ZoneInfo, state: CounterState) -> Counter:
    counter = new_counter(limit.raised(state.granted), zone, state.now_ms)
    counter.held, counter.granted = state.held, state.granted
    if isinstance(counter, Bucket):
        counter.debt = state.spent
        counter.used = -(-state.spent // counter.scale)
    elif isinstance(counter, Window):
        counter.used = state.spent
        counter.now_ms, (counter.start_ms, counter.end_ms) = state.now_ms, state.window
    return counter


def new_counter(limit: Limit, zone: ZoneInfo, now_ms: int) -> Counter:
    if limit.meter is Meter.CONCURRENT:
        return Leases(limit)
    return Bucket(limit, now_ms) if limit.is_rate else Window(limit, zone)
