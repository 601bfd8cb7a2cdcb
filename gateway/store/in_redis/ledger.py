"""The ledger in Redis: a hash for each team and day, found by a set of teams and one of days for each team.

It is read in small pieces, so that neither Redis nor the event loop is held up by a long report.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from struct import unpack
from typing import TYPE_CHECKING

from gateway.store.contract import LEDGER_DAYS, UsageQuery, UsageRow
from gateway.store.in_redis.courier import Courier
from gateway.store.in_redis.keys import Keys
from gateway.store.sums import COLUMNS, Sums

if TYPE_CHECKING:
    from gateway.store.in_redis.kit import Kit

_DAY_MS = 86_400_000
_ROWS = 500
"""Rows that one reply has, more or less."""

_DAYS_AT_ONCE = 8
_BILL = f"<{len(COLUMNS)}d"


class Teams:
    """The set of teams that the ledger knows. It lies in a slot of its own, so no script can write it beside
    the bill: a team is put there before its first bill of each day, and what is there too much does no harm."""

    def __init__(self, courier: Courier, keys: Keys) -> None:
        self._courier = courier
        self._key = keys.teams()
        self._known: dict[str, float] = {}

    async def know(self, team: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._known.get(team, 0) > now_s:
            return
        life_ms = LEDGER_DAYS * _DAY_MS
        await asyncio.gather(
            self._courier.ask(self._key, ("SADD", self._key, team)),
            self._courier.ask(self._key, ("PEXPIRE", self._key, life_ms)),
        )
        self._known[team] = now_s + _DAY_MS / 1000

    async def all(self) -> list[str]:
        return [team.decode() async for batch in scan(self._courier, "SSCAN", self._key) for team in batch]


async def usage(kit: Kit, query: UsageQuery) -> list[UsageRow]:
    sums = Sums(query)
    teams = [query.team] if query.team else await kit.teams.all()
    for team in teams:
        days = [day.decode() async for batch in scan(kit.courier, "ZSCAN", kit.keys.days(team)) for day in batch[::2]]
        asked = sorted(day for day in days if sums.covers(day))
        for at in range(0, len(asked), _DAYS_AT_ONCE):
            await asyncio.gather(*[_add(kit, sums, team, day) for day in asked[at : at + _DAYS_AT_ONCE]])
    return sums.rows()


async def _add(kit: Kit, sums: Sums, team: str, day: str) -> None:
    async for batch in scan(kit.courier, "HSCAN", kit.keys.ledger(team, day)):
        for field, figures in zip(batch[::2], batch[1::2], strict=True):
            key, _, model = field.decode().partition("|")
            names = {"day": day, "team": team, "key": key, "model": model}
            sums.add(names, [int(figure) for figure in unpack(_BILL, figures)])


async def scan(courier: Courier, command: str, key: str) -> AsyncIterator[Sequence[bytes]]:
    """What a set, a sorted set or a hash has, piece by piece."""
    cursor = b"0"
    while True:
        cursor, batch = await courier.ask(key, (command, key, cursor, "COUNT", _ROWS))
        yield batch
        if cursor == b"0":
            return
