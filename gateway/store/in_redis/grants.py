"""Grants in Redis, as parts of the counters whose limits they raise.

Admission reads its counters anyway, so a grant costs it no key and no argument, and a limit without a grant costs
nothing. The counter of a rate or of `concurrent` lives until its last grant has ended. A quota has a counter for each
calendar window, so a grant is written to each window until its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.calendar import window
from gateway.core.grants import Grant, Grants
from gateway.core.limits import Limit, Per
from gateway.store.in_redis.arguments import (
    QUOTA,
    CounterTerms,
    LimitArguments,
    ScriptArguments,
    Timing,
    counter_key,
    packed,
)
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.scripts import GRANT

HISTORY_UNIT = 2.0**-53
"""What a counter's history and its grants are written in, as counter.lua has it."""


class GrantWriter:
    def __init__(self, client: Router, arguments: ScriptArguments, keys: StoreKeys, timing: Timing) -> None:
        self._client = client
        self._windows = arguments.windows
        self._keys = keys
        self._step_ms = timing.step_ms

    async def add(self, limit: Limit, grant: Grant) -> None:
        """Raises StoreUnavailable."""
        await self._write(limit, grant, grant.amount)

    async def take_away(self, limit: Limit, grant: Grant) -> None:
        """Raises StoreUnavailable."""
        await self._write(limit, grant, 0)

    async def _write(self, limit: Limit, grant: Grant, amount: int) -> None:
        one = LimitArguments(limit, self._keys)
        slot_key = one.stem
        terms = self._terms(one, await self._client.time(slot_key), grant.until_ms)
        keys = [counter_key(one, each) for each in terms]
        period_ms = (limit.per.rate_ms if limit.per else None) or 0
        numbers = [self._step_ms, one.kind, int(grant.id, 16), amount, grant.until_ms, period_ms]
        for each in terms:
            numbers += each
        await self._client.run(GRANT, keys[0], GRANT.command(keys, (packed(numbers),)))

    def _terms(self, one: LimitArguments, now_ms: int, until_ms: int) -> list[CounterTerms]:
        terms = [self._windows.terms(one, now_ms)]
        while one.kind == QUOTA and terms[-1].second < until_ms:
            terms.append(CounterTerms(*window(one.limit.per or Per.TOTAL, self._windows.zone, terms[-1].second)))
        return terms


def grants_of(numbers: Sequence[float]) -> Grants:
    """The grants that are behind a counter's other numbers, four of each."""
    whole = [int(number / HISTORY_UNIT) for number in numbers]
    return tuple(
        [
            Grant(f"{grant_id:012x}", amount, until_ms)
            for grant_id, amount, until_ms in zip(whole[::4], whole[1::4], whole[2::4], strict=True)
        ]
    )
