"""Reads what needs no script: the status of limits, and the ledger.

A counter is one string, and the core does its arithmetic. The ledger is some hashes for each team and day, which a set
of teams and a set of days for each team list. Both are read in small pieces, one after the other, so that a long report
delays neither Redis nor the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from struct import unpack
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.buckets import Counter, CounterState, RateParts, restored, restored_rate
from gateway.core.errors import StoreUnavailable
from gateway.core.forecast import UseHistory, forecast
from gateway.core.grants import total, unended
from gateway.core.limits import Limit
from gateway.core.reservation import LimitStatus
from gateway.runtime.slices import in_slices
from gateway.store.contract import HOLD_STEPS, UsageQuery, UsageRow
from gateway.store.in_redis.arguments import (
    QUOTA,
    RATE,
    CounterTerms,
    LimitArguments,
    ScriptArguments,
    SlotBatch,
    Timing,
)
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.grants import HISTORY_UNIT, grants_of
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.ledger import (
    BY_DETAILS,
    BY_MODEL,
    CLOSED,
    NameReader,
    RowTaker,
    Unexplained,
    details_name,
    figures_in,
    ledger_name,
    user_name,
)
from gateway.store.ledger import SLICE, UsageSums

_LIMITS_AT_ONCE = 200
_DAYS_AT_ONCE = 8
_ATTEMPTS = 4

_WITHOUT_HISTORY, _WITH_HISTORY = 11, 16
"""Numbers of a counter before those of its history, and before its grants, as counter.lua has them."""


class CounterReading(msgspec.Struct, frozen=True):
    """A limit's counter as it was found: `spent` of a rate is in parts, and true at `now_ms`, as is what grants add.
    `history` is None where nothing of a quota has been settled."""

    arguments: LimitArguments
    now_ms: int
    spent: int
    held: int
    terms: CounterTerms
    history: UseHistory | None = None
    granted: int = 0

    def status(self, zone: ZoneInfo) -> LimitStatus:
        if self.granted:
            status = self.counter(zone).limit_status(self.arguments.limit)
        else:
            status = self.arguments.status(self.now_ms, self.spent, self.held, self.terms)
        return forecast(status, self.history, self.now_ms)

    def counter(self, zone: ZoneInfo) -> Counter:
        window = self.terms if self.arguments.kind == QUOTA else (0, 0)
        state = CounterState(self.now_ms, self.spent, self.held, window, self.granted)
        return restored(self.arguments.limit, zone, state)


class Reports:
    def __init__(self, client: Router, arguments: ScriptArguments, keys: StoreKeys, timing: Timing) -> None:
        self._client = client
        self._arguments = arguments
        self._keys = keys
        self._timing = timing

    async def limit_statuses(self, limits: Sequence[Limit]) -> list[LimitStatus]:
        """How they are now, in the same order. Raises StoreUnavailable."""
        zone = self._arguments.windows.zone
        return [reading.status(zone) async for chunk in self._readings(limits) for reading in chunk]

    async def counters(self, limits: Sequence[Limit]) -> list[Counter]:
        """The same as counters of the core, which can judge."""
        zone = self._arguments.windows.zone
        return [reading.counter(zone) async for chunk in self._readings(limits) for reading in chunk]

    async def time(self) -> None:
        """Ask the server that has the set of teams for its time. Raises StoreUnavailable."""
        await self._client.time(self._keys.teams())

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Rows of the ledger by group. Raises StoreUnavailable."""
        sums = UsageSums(query)
        teams = [query.team] if query.team else [name async for name in self._names("SSCAN", self._keys.teams())]
        for team in teams:
            # A sorted set is read as names and scores by turns.
            days = [name async for name in self._names("ZSCAN", self._keys.days(team), 2)]
            asked = sorted(day for day in days if day != CLOSED and sums.covers(day))
            for at in range(0, len(asked), _DAYS_AT_ONCE):
                days_now = asked[at : at + _DAYS_AT_ONCE]
                await asyncio.gather(*[self._add(sums, team, day, query.is_about_users) for day in days_now])
        return await sums.rows()

    async def _readings(self, limits: Sequence[Limit]) -> AsyncIterator[list[CounterReading]]:
        """In the limits' order, a chunk after the other."""
        for at in range(0, len(limits), _LIMITS_AT_ONCE):
            chunk = limits[at : at + _LIMITS_AT_ONCE]
            batches = self._arguments.unremembered(chunk)
            replies = await asyncio.gather(*[self._read(batch) for batch in batches])
            by_place: dict[int, CounterReading] = {}
            for batch, readings in zip(batches, replies, strict=True):
                by_place.update(zip(batch.kind.places, readings, strict=True))
            yield [by_place[place] for place in range(len(chunk))]

    async def _read(self, batch: SlotBatch) -> list[CounterReading]:
        """The time and the counters together: again where a window is over by then."""
        clock = self._client.clock_of(batch.slot_key)
        for _ in range(_ATTEMPTS):
            window = batch.kind.window_at(clock.now_ms())
            keys = batch.keys(window)
            now_ms, values = await asyncio.gather(
                self._client.time(batch.slot_key),
                self._client.ask(keys[0], ("MGET", *keys)),
            )
            if window.start_ms <= now_ms < window.end_ms:
                return [
                    self._reading(one, terms, value, now_ms)
                    for one, terms, value in zip(batch.limits, window.terms, values, strict=True)
                ]
            clock = self._client.clock_of(batch.slot_key)
        raise StoreUnavailable("The clock of the gateway's store keeps jumping. Try again soon.", retry_after_ms=1_000)

    def _reading(self, one: LimitArguments, terms: CounterTerms, value: bytes | None, now_ms: int) -> CounterReading:
        if value is None:
            return CounterReading(one, now_ms, 0, 0, terms)
        numbers = unpack(f"<{len(value) // 8}d", value)
        spent, scale, stamp_ms, _, *sums = map(int, numbers[:_WITHOUT_HISTORY])
        held = 0
        if sums:
            over = now_ms // self._timing.step_ms - sums[0]
            held = sum(sums[1 + min(max(over, 0), HOLD_STEPS) :])
        grants = grants_of(numbers[_WITH_HISTORY:])
        if one.kind == RATE and grants:
            bucket = restored_rate(one.limit, grants, RateParts(spent, scale, stamp_ms), now_ms)
            spent = bucket.debt
        elif one.kind == RATE:
            spent = one.spent_at(now_ms, spent, scale, stamp_ms)
        return CounterReading(one, now_ms, spent, held, terms, _history(numbers), total(unended(grants, now_ms)))

    async def _add(self, sums: UsageSums, team: str, day: str, by_user: bool) -> None:
        """The coarsest rows are read first: they never have what the finer ones do not have yet."""
        keys, add = self._keys, partial(sums.add, day, team)
        ledger, details = Unexplained(BY_MODEL), Unexplained(BY_DETAILS)
        await self._each_row(keys.ledger(team, day), ledger_name, ledger.add)
        if by_user:
            await self._each_row(keys.details(team, day), details_name, ledger.explain, details.add)
            await self._each_row(keys.users(team, day), user_name, details.explain, add)
        else:
            await self._each_row(keys.details(team, day), details_name, ledger.explain, add)
        for rest in (ledger, details):
            async for name, figures in in_slices(rest.rows(), SLICE):
                add(name, figures)

    async def _each_row(self, key: str, named: NameReader, *takers: RowTaker) -> None:
        """Give each row of a hash to each of these, once, though Redis may show one again while the hash grows."""
        seen: set[bytes] = set()
        async for batch in self._client.scan("HSCAN", key):
            for field, row in zip(batch[::2], batch[1::2], strict=True):
                if field not in seen:
                    seen.add(field)
                    name, figures = named(field), figures_in(row)
                    for take in takers:
                        take(name, figures)

    async def _names(self, command: str, key: str, every: int = 1) -> AsyncIterator[str]:
        async for batch in self._client.scan(command, key):
            for name in batch[::every]:
                yield name.decode()


def _history(numbers: Sequence[float]) -> UseHistory | None:
    """None where nothing was settled, though a grant makes room for a history."""
    _, *history = [number / HISTORY_UNIT for number in numbers[_WITHOUT_HISTORY:_WITH_HISTORY]] or [0.0]
    return UseHistory(*history) if any(history) else None
