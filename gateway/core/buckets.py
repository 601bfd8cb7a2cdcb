"""The arithmetic of limits: buckets for rates, windows for quotas, leases for concurrency.

Whole numbers only and no clock: callers say what time it is. What is used and what is held are kept
apart; holds do not decay. Numbers stay below 2^53, so that a store that counts in doubles agrees.
"""

from __future__ import annotations

from math import gcd
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.calendar import FOREVER_MS, window
from gateway.core.forecast import UseHistory
from gateway.core.limits import Limit, Meter, Per
from gateway.core.reservation import Charge, LimitStatus, RefusalReason

HELD_RETRY_MS = 1_000
"""When to come back where only holds are in the way: it is not known when they are settled."""


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
    """A debt in parts of another scale, to the nearest part."""
    return debt // old * new + (debt % old * new + old // 2) // old


class Bucket:
    """A rate: `debt` is what was used and has not flowed back yet, in parts of a unit."""

    __slots__ = ("capacity", "debt", "flow", "held", "pace_of", "scale", "stamp_ms", "used")

    def __init__(self, limit: Limit, now_ms: int) -> None:
        self.flow, self.scale = pace(limit)
        self.pace_of = limit.amount
        self.capacity = limit.burst
        self.debt = self.used = self.held = 0
        self.stamp_ms = now_ms

    start_ms = 0
    """A bucket has one window, all of time: a hold on it can always be given back."""

    def advance(self, limit: Limit, now_ms: int) -> None:
        """Let the time since the last call flow back, and take on the limit's present amounts."""
        if self.pace_of != limit.amount:
            flow, scale = pace(limit)
            self.debt = rescaled(self.debt, self.scale, scale)
            self.flow, self.scale, self.pace_of = flow, scale, limit.amount
        elapsed_ms = now_ms - self.stamp_ms
        # A clock that was set back counts from its new time: else nothing would refill until it reaches the old one.
        self.stamp_ms = now_ms
        if elapsed_ms > 0 and self.debt:
            self.debt = max(0, self.debt - elapsed_ms * self.flow)
        self.capacity = limit.burst
        self.used = -(-self.debt // self.scale)

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
        """Until no more than this is used."""
        return -((used * self.scale - self.debt) // self.flow)

    def limit_status(self, limit: Limit) -> LimitStatus:
        left = self.capacity - self.used - self.held
        full_ms = self.stamp_ms - (-self.debt // self.flow)
        return LimitStatus(limit, self.used, self.held, max(0, left), full_ms)

    def is_whole(self, now_ms: int) -> bool:
        return not self.held and self.debt <= (now_ms - self.stamp_ms) * self.flow


class Window:
    """A quota: what was used and is held since the calendar window around now began. `history` is None before the first
    settlement, `noted_percent` the highest part of the amount that a notification was sent for."""

    __slots__ = ("capacity", "end_ms", "held", "history", "noted_percent", "now_ms", "per", "start_ms", "used", "zone")

    def __init__(self, limit: Limit, zone: ZoneInfo) -> None:
        self.per, self.zone = limit.per or Per.TOTAL, zone
        self.capacity = limit.amount
        self.used = self.held = self.now_ms = self.start_ms = self.end_ms = self.noted_percent = 0
        self.history: UseHistory | None = None

    def advance(self, limit: Limit, now_ms: int) -> None:
        """Start from zero where the window is over. Holds on a past window end with it: it binds nothing any more."""
        self.capacity, self.now_ms = limit.amount, now_ms
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

    def output_left(self, charge: Charge) -> int:
        """How many tokens of output what is left pays for; negative where it pays not even the input."""
        return (self.capacity - self.used - self.held - charge.fixed) * 1_000_000 // charge.per_output

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
        resets_ms = 0 if self.end_ms == FOREVER_MS else self.end_ms
        return LimitStatus(limit, self.used, self.held, max(0, left), resets_ms)

    def is_whole(self, now_ms: int) -> bool:
        return now_ms >= self.end_ms or not (self.used or self.held)


class Leases:
    """`concurrent`: nothing is ever used, only held."""

    __slots__ = ("capacity", "held")

    used = 0
    start_ms = 0

    def __init__(self, limit: Limit) -> None:
        self.capacity = limit.amount
        self.held = 0

    def advance(self, limit: Limit, now_ms: int) -> None:
        self.capacity = limit.amount

    def use(self, amount: int) -> None:
        """A lease that ends leaves nothing behind."""

    def denial(self, need: int) -> Denial | None:
        if need <= self.capacity - self.held:
            return None
        return Denial(RefusalReason.NEVER, 0) if need > self.capacity else Denial(RefusalReason.HELD, HELD_RETRY_MS)

    def limit_status(self, limit: Limit) -> LimitStatus:
        return LimitStatus(limit, 0, self.held, max(0, self.capacity - self.held), 0)

    def is_whole(self, now_ms: int) -> bool:
        return not self.held


Counter = Bucket | Window | Leases


class CounterState(msgspec.Struct, frozen=True):
    """A counter as a store reports it at `now_ms`: what is used (of a rate in parts), what is held, and the
    window of a quota."""

    now_ms: int
    spent: int
    held: int
    window: tuple[int, int] = (0, 0)


def restored(limit: Limit, zone: ZoneInfo, state: CounterState) -> Counter:
    counter = new_counter(limit, zone, state.now_ms)
    counter.held = state.held
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
