"""Counters, holds and ledger in memory, for one process. It promises what store/contract.py says.

Only reports of the ledger await; every other call is atomic. Memory is bounded by the counters that are in use: those
that are full again are forgotten, a few with each new one, and settled ids are remembered by generations.

Holds end as they do in Redis: together at whole steps of the clock. A reservation whose holds have ended takes them
again when it is renewed.
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.core.admission import decide
from gateway.core.buckets import Counter, Window, new_counter
from gateway.core.calendar import DAY_MS, day_ms
from gateway.core.clock import Clock
from gateway.core.estimate import EstimateSubject, LearnedEstimate, merged
from gateway.core.forecast import forecast
from gateway.core.grants import Grant, Grants, unended, with_grant, without_grant
from gateway.core.limits import Limit, Meter
from gateway.core.request_record import KeptRecord, RequestRecord
from gateway.core.reservation import (
    AdmissionRequest,
    Holds,
    LimitStatus,
    Refusal,
    Reservation,
    Settlement,
)
from gateway.core.stored_objects import ObjectName, StoredObject
from gateway.store.contract import (
    HOLD_STEPS,
    HOLD_TTL_MS,
    OBJECT_LIFE_MS,
    ProcessReplies,
    SettlementEnd,
    UsageQuery,
    UsageRow,
)
from gateway.store.in_memory.ledger import InMemoryLedger
from gateway.store.in_memory.losses import InMemoryLosses
from gateway.store.in_memory.notifications import InMemoryNotificationOutbox
from gateway.store.in_memory.records import InMemoryRecords
from gateway.store.ledger import USERS_MAX

_MARKS = 32_768
"""Settled ids in one generation; two are kept."""

_LAPSED = 32_768
"""The number of reservations whose holds have ended and that are not settled yet."""


_OBJECTS = 100_000
"""The number of objects whose owners are known; the oldest are dropped first."""


_SETS = 16_384
"""Sets of limits whose counters are remembered; all are forgotten where there are more."""

_REQUESTS = Meter.REQUESTS  # Slow to reach through the class in Python 3.11.


class _KnownCounters(NamedTuple):
    """The counters of the limits that bind requests together. These are kept alive, so that no others have their
    identity."""

    limits: tuple[Limit, ...]
    counters: list[Counter]


class _KeptObject(NamedTuple):
    made: StoredObject
    expires_ms: int


class _Held:
    """The holds of one reservation, until it is settled or its time is over."""

    __slots__ = ("counters", "expires_ms", "holds")

    def __init__(self, holds: Holds, counters: list[Counter], expires_ms: int) -> None:
        self.holds = holds
        self.counters = counters
        self.expires_ms = expires_ms

    def give_back(self) -> None:
        self._add(-1)

    def take_again(self, counters: list[Counter]) -> None:
        self.counters = counters
        self._add(1)

    def _add(self, sign: int) -> None:
        holds = self.holds
        for limit, amount, begins_ms, counter in zip(
            holds.limits, holds.amounts, holds.windows_ms, self.counters, strict=True
        ):
            if limit.meter is not _REQUESTS and counter.start_ms == begins_ms:
                counter.held += sign * amount


class InMemoryStore:
    def __init__(
        self, clock: Clock, zone: ZoneInfo, hold_ttl_ms: int = HOLD_TTL_MS, users_max: int = USERS_MAX
    ) -> None:
        self._clock = clock
        self._zone = zone
        self._hold_step_ms = hold_ttl_ms // HOLD_STEPS
        self._counters: dict[tuple[object, ...], Counter] = {}
        self._grants: dict[tuple[object, ...], Grants] = {}
        """By the identity of their limits, until their counters have been brought up to their ends."""
        self._known: dict[int, _KnownCounters] = {}
        """By the identity of their limits, which come with many requests: to hash those takes longer than to charge
        them. Emptied whenever a counter is forgotten."""
        self._rounds: deque[tuple[object, ...]] = deque()
        self._newcomers = 0
        self._held: dict[str, _Held] = {}
        self._lapsed: dict[str, _Held] = {}
        self._now_ms = 0
        self._settled: set[str] = set()
        self._settled_before: set[str] = set()
        self._ledger = InMemoryLedger(users_max, zone)
        self.notifications = InMemoryNotificationOutbox(clock)
        self.losses = InMemoryLosses()
        self._estimates: dict[EstimateSubject, LearnedEstimate] = {}
        self._objects: dict[ObjectName, _KeptObject] = {}
        self._records = InMemoryRecords()
        self._answers: list[Callable[[bytes], bytes]] = []

    def repeated_refusal(self, _request: AdmissionRequest) -> Refusal | None:
        return None  # To judge it again costs as little.

    async def admit(self, request: AdmissionRequest) -> Reservation | Refusal:
        now_ms = self._reap()
        if self._newcomers:
            self._forget_whole(now_ms)
        counters = self._counters_of(request.limits, now_ms)
        verdict = decide(request, counters, now_ms)
        if isinstance(verdict, Reservation):
            holding = counters
            if verdict.would_refuse:
                holding = [
                    counter
                    for limit, counter in zip(request.limits, counters, strict=True)
                    if limit not in verdict.would_refuse
                ]
            self._held[request.id] = _Held(verdict.holds, holding, self._expiry_ms(now_ms))
        return verdict

    async def settle(self, settlement: Settlement) -> None:
        self._settle(settlement)

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        self._settle(settlement)
        then(None)

    def _settle(self, settlement: Settlement) -> None:
        if settlement.id in self._settled or settlement.id in self._settled_before:
            return
        self._mark(settlement.id)
        now_ms = self._reap()
        self._lapsed.pop(settlement.id, None)
        held = self._held.pop(settlement.id, None)
        if held is not None:
            held.give_back()
        self._charge(settlement.holds, settlement.charged, now_ms)
        if settlement.entry is not None:
            self._ledger.add(settlement.entry, now_ms)
        if settlement.record is not None:
            self._records.keep(settlement.record, now_ms)
        if settlement.created is not None:
            self._keep(settlement.created, now_ms)

    def _keep(self, made: StoredObject, now_ms: int) -> None:
        known = self._objects.get(made.name)
        if known is None or known.expires_ms <= now_ms:
            self._objects[made.name] = _KeptObject(made, now_ms + OBJECT_LIFE_MS[made.name.kind])
            if len(self._objects) > _OBJECTS:
                del self._objects[next(iter(self._objects))]

    def _charge(self, holds: Holds, charged: Sequence[int], now_ms: int) -> None:
        known = self._known.get(id(holds.limits))
        for place, (limit, held, begins_ms, used) in enumerate(
            zip(holds.limits, holds.amounts, holds.windows_ms, charged, strict=True)
        ):
            # What was charged at admission is not charged again, and not given back either.
            at_once = held if limit.meter is _REQUESTS else 0
            amount = used if used > at_once else at_once
            if not amount or (amount == at_once and not limit.is_quota):
                continue
            if known is None:
                counter = self._counter(limit, now_ms)
            else:
                counter = known.counters[place]
                self._advance(counter, limit, now_ms)
            if counter.start_ms == begins_ms:
                counter.use(amount - at_once)
                if type(counter) is Window:
                    counter.note(amount)
                    self.notifications.note_crossings(limit, counter, now_ms)

    @property
    def open_ids(self) -> Collection[str]:
        # Those whose holds ran out while this process stood still are restored by their renewal.
        return ChainMap(self._held, self._lapsed).keys()

    async def renew(self, ids: Sequence[str]) -> None:
        now_ms = self._reap()
        for name in ids:
            held = self._held.pop(name, None) or self._again(name, now_ms)
            if held is not None:
                held.expires_ms = self._expiry_ms(now_ms)
                self._held[name] = held

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        now_ms = self._reap()
        return [self._status(limit, now_ms) for limit in limits]

    async def grant(self, limit: Limit, grant: Grant) -> None:
        self._change_grants(limit, lambda grants: with_grant(grants, grant))

    async def withdraw(self, limit: Limit, grant: Grant) -> None:
        self._change_grants(limit, lambda grants: without_grant(grants, grant))

    def _change_grants(self, limit: Limit, change: Callable[[Grants], Grants]) -> None:
        """A rate flows back at the pace that it has had until now."""
        now_ms = self._reap()
        self._seen(limit, now_ms)
        changed = unended(change(self._grants.get(limit.identity, ())), now_ms)
        if changed:
            self._grants[limit.identity] = changed
        else:
            self._grants.pop(limit.identity, None)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        return await self._ledger.rows(query)

    async def close_ledger(self, until: str) -> bool:
        if self._clock.now_ms() < day_ms(until) + DAY_MS:
            return False
        self._ledger.closed_until = max(until, self._ledger.closed_until)
        return True

    async def closed_until(self) -> str:
        return self._ledger.closed_until

    async def share_estimates(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        self._estimates |= learned

    async def shared_estimates(self) -> dict[EstimateSubject, LearnedEstimate]:
        merging = {subject: merged([estimate]) for subject, estimate in self._estimates.items()}
        return {subject: estimate for subject, estimate in merging.items() if estimate is not None}

    async def stored_object(self, name: ObjectName) -> StoredObject | None:
        known = self._objects.get(name)
        return known.made if known is not None and known.expires_ms > self._clock.now_ms() else None

    async def keep_records(self, kept: Sequence[KeptRecord]) -> None:
        now_ms = self._clock.now_ms()
        for one in kept:
            self._records.keep(one, now_ms)

    async def request_records(self, request_id: str, _teams: Sequence[str]) -> list[RequestRecord]:
        return self._records.find(request_id, self._clock.now_ms())

    def answer_processes(self, answer: Callable[[bytes], bytes]) -> None:
        self._answers.append(answer)

    async def ask_processes(self, question: bytes) -> ProcessReplies:
        return ProcessReplies([answer(question) for answer in self._answers], len(self._answers))

    async def ping(self) -> None:
        return

    async def close(self) -> None:
        return

    def _counters_of(self, limits: tuple[Limit, ...], now_ms: int) -> list[Counter]:
        """Their counters, brought up to now."""
        known = self._known.get(id(limits))
        if known is None:
            counters = [self._counter(limit, now_ms) for limit in limits]
            if len(self._known) >= _SETS:
                self._known.clear()
            self._known[id(limits)] = _KnownCounters(limits, counters)
            return counters
        for limit, counter in zip(limits, known.counters, strict=True):
            if self._grants:
                self._advance(counter, limit, now_ms)
            else:
                counter.advance(limit, now_ms)
        return known.counters

    def _counter(self, limit: Limit, now_ms: int) -> Counter:
        """The limit's counter, brought up to now; a new one where there is none."""
        identity = limit.identity
        counter = self._counters.get(identity)
        if counter is None:
            counter = self._counters[identity] = new_counter(limit, self._zone, now_ms)
            self._rounds.append(identity)
            self._newcomers += 1
        self._advance(counter, limit, now_ms)
        return counter

    def _seen(self, limit: Limit, now_ms: int) -> Counter:
        """The limit's counter for reading: nothing is kept for an unused limit."""
        counter = self._counters.get(limit.identity) or new_counter(limit, self._zone, now_ms)
        self._advance(counter, limit, now_ms)
        return counter

    def _advance(self, counter: Counter, limit: Limit, now_ms: int) -> None:
        grants = self._grants.get(limit.identity) if self._grants else None
        if grants is None:
            counter.advance(limit, now_ms)
            return
        counter.advance(limit, now_ms, grants)
        if grants[0].until_ms <= now_ms:
            lasting = unended(grants, now_ms)
            if lasting:
                self._grants[limit.identity] = lasting
            else:
                del self._grants[limit.identity]

    def _status(self, limit: Limit, now_ms: int) -> LimitStatus:
        counter = self._seen(limit, now_ms)
        status = counter.limit_status(limit)
        return forecast(status, counter.history, now_ms) if isinstance(counter, Window) else status

    def _forget_whole(self, now_ms: int) -> None:
        """For each new counter look at two, those that were not looked at for longest: this keeps
        their number under twice that of the ones in use. Called while none is in use."""
        for _ in range(min(2 * self._newcomers, len(self._rounds))):
            identity = self._rounds.popleft()
            if identity not in self._grants and self._counters[identity].is_whole(now_ms):
                del self._counters[identity]
                self._known.clear()
            else:
                self._rounds.append(identity)
        self._newcomers = 0

    def _reap(self) -> int:
        """The time, after the holds whose time is over by then were given back; they are in the order of their expiry.
        Where the clock was set back, none lasts longer than one that is made now."""
        now_ms, before_ms = self._clock.now_ms(), self._now_ms
        self._now_ms = now_ms
        if now_ms < before_ms:
            for held in self._held.values():
                held.expires_ms = min(held.expires_ms, self._expiry_ms(now_ms))
        while self._held:
            oldest = next(iter(self._held))
            if self._held[oldest].expires_ms > now_ms:
                break
            held = self._lapsed[oldest] = self._held.pop(oldest)
            held.give_back()
            if len(self._lapsed) > _LAPSED:
                del self._lapsed[next(iter(self._lapsed))]
        return now_ms

    def _again(self, name: str, now_ms: int) -> _Held | None:
        """A reservation whose holds have ended, with its holds taken again."""
        held = self._lapsed.pop(name, None)
        if held is not None:
            held.take_again([self._counter(hold.limit, now_ms) for hold in held.holds])
        return held

    def _expiry_ms(self, now_ms: int) -> int:
        return (now_ms // self._hold_step_ms + HOLD_STEPS) * self._hold_step_ms

    def _mark(self, settled: str) -> None:
        if len(self._settled) >= _MARKS:
            self._settled, self._settled_before = set(), self._settled
        self._settled.add(settled)
