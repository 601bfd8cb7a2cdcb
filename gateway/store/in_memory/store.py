"""Counters, holds and ledger in memory. Promises what store/contract.py says, for one process.

Nothing here awaits: each call is atomic. Memory is bounded by what is not whole: counters that are
whole again are forgotten, a few with each new one, and settled ids are remembered by generations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from zoneinfo import ZoneInfo

from gateway.core.admission import decide
from gateway.core.buckets import Counter, new_counter
from gateway.core.calendar import day_of
from gateway.core.clock import Clock
from gateway.core.limits import Limit, Meter
from gateway.core.reservation import (
    AdmissionRequest,
    Hold,
    LimitStatus,
    Refusal,
    Reservation,
    Settlement,
    SettlementLine,
)
from gateway.store.contract import HOLD_STEPS, HOLD_TTL_MS, UsageQuery, UsageRow
from gateway.store.in_memory.ledger import InMemoryLedger

_MARKS = 32_768
"""Settled ids in one generation; two are kept."""


class _Held:
    """The holds of one reservation, until it is settled or its time is over."""

    __slots__ = ("counters", "expires_ms", "holds")

    def __init__(self, holds: tuple[Hold, ...], counters: list[Counter], expires_ms: int) -> None:
        self.holds = holds
        self.counters = counters
        self.expires_ms = expires_ms

    def give_back(self) -> None:
        for hold, counter in zip(self.holds, self.counters, strict=True):
            if hold.limit.meter is not Meter.REQUESTS and counter.start_ms == hold.window_ms:
                counter.held -= hold.amount


class InMemoryStore:
    def __init__(self, clock: Clock, zone: ZoneInfo, hold_ttl_ms: int = HOLD_TTL_MS) -> None:
        self._clock = clock
        self._zone = zone
        self._hold_step_ms = hold_ttl_ms // HOLD_STEPS
        self._counters: dict[tuple[object, ...], Counter] = {}
        self._rounds: deque[tuple[object, ...]] = deque()
        self._newcomers = 0
        self._held: dict[str, _Held] = {}
        self._settled: set[str] = set()
        self._settled_before: set[str] = set()
        self._ledger = InMemoryLedger()

    async def admit(self, request: AdmissionRequest) -> Reservation | Refusal:
        now_ms = self._clock.now_ms()
        self._reap(now_ms)
        if self._newcomers:
            self._forget_whole(now_ms)
        counters = [self._counter(charge.limit, now_ms) for charge in request.charges]
        verdict = decide(request, counters, now_ms)
        if isinstance(verdict, Reservation):
            self._held[request.id] = _Held(verdict.holds, counters, self._expiry_ms(now_ms))
        return verdict

    async def settle(self, settlement: Settlement) -> None:
        if settlement.id in self._settled or settlement.id in self._settled_before:
            return
        self._mark(settlement.id)
        now_ms = self._clock.now_ms()
        self._reap(now_ms)
        held = self._held.pop(settlement.id, None)
        if held is not None:
            held.give_back()
        for due in settlement.dues:
            if due.actual:
                self._charge(due, now_ms)
        if settlement.entry is not None:
            self._ledger.add(settlement.entry, day_of(self._zone, now_ms))

    def _charge(self, due: SettlementLine, now_ms: int) -> None:
        limit = due.hold.limit
        amount = due.actual
        if limit.meter is Meter.REQUESTS:
            # What was charged at admission is not charged again, and not given back either.
            amount = max(0, amount - due.hold.amount)
        counter = self._counter(limit, now_ms)
        if counter.start_ms == due.hold.window_ms:
            counter.use(amount)

    async def renew(self, ids: Sequence[str]) -> None:
        now_ms = self._clock.now_ms()
        self._reap(now_ms)
        for name in ids:
            held = self._held.pop(name, None)
            if held is not None:
                held.expires_ms = self._expiry_ms(now_ms)
                self._held[name] = held

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        now_ms = self._clock.now_ms()
        self._reap(now_ms)
        return [self._seen(limit, now_ms).limit_status(limit) for limit in limits]

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return self._ledger.rows(query)

    async def ping(self) -> None:
        return

    async def close(self) -> None:
        return

    def _counter(self, limit: Limit, now_ms: int) -> Counter:
        """The limit's counter, brought up to now; a new one where there is none."""
        identity = limit.identity
        counter = self._counters.get(identity)
        if counter is None:
            counter = self._counters[identity] = new_counter(limit, self._zone, now_ms)
            self._rounds.append(identity)
            self._newcomers += 1
        counter.advance(limit, now_ms)
        return counter

    def _seen(self, limit: Limit, now_ms: int) -> Counter:
        """The same to look at: nothing is kept for a limit that nobody has used."""
        counter = self._counters.get(limit.identity) or new_counter(limit, self._zone, now_ms)
        counter.advance(limit, now_ms)
        return counter

    def _forget_whole(self, now_ms: int) -> None:
        """For each new counter look at two, those that were not looked at for longest: this keeps
        their number under twice that of the ones in use. Called while nobody works with any."""
        for _ in range(min(2 * self._newcomers, len(self._rounds))):
            identity = self._rounds.popleft()
            if self._counters[identity].is_whole(now_ms):
                del self._counters[identity]
            else:
                self._rounds.append(identity)
        self._newcomers = 0

    def _reap(self, now_ms: int) -> None:
        """Give back the holds whose time is over; they lie in the order of their expiry."""
        while self._held:
            oldest = next(iter(self._held))
            if self._held[oldest].expires_ms > now_ms:
                return
            self._held.pop(oldest).give_back()

    def _expiry_ms(self, now_ms: int) -> int:
        return (now_ms // self._hold_step_ms + HOLD_STEPS) * self._hold_step_ms

    def _mark(self, settled: str) -> None:
        if len(self._settled) >= _MARKS:
            self._settled, self._settled_before = set(), self._settled
        self._settled.add(settled)
