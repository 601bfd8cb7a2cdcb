"""The ledger in memory: what store/ledger.py says, for one process."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from heapq import heappop, heappush, heapreplace
from zoneinfo import ZoneInfo

from gateway.core.calendar import day_of
from gateway.core.end_users import OTHER_USERS
from gateway.core.reservation import LedgerEntry
from gateway.runtime.slices import in_slices
from gateway.store.contract import LEDGER_DAYS, UsageQuery, UsageRow
from gateway.store.ledger import (
    ROWS_OF_A_USER,
    SLICE,
    Figures,
    RowName,
    UsageSums,
    add_figures,
    figures_of,
    moved_to,
    name_of,
    weight_of,
)


class _UserRows:
    """The rows with a user of a team and day. `_heap` orders the users by a score that they had once; it is corrected
    when it matters."""

    def __init__(self, most: int) -> None:
        self.rows: dict[RowName, Figures] = {}
        self._most = most
        self._scores: dict[str, float] = {}
        self._names: dict[str, list[RowName]] = {}
        self._heap: list[tuple[float, str]] = []

    def add(self, entry: LedgerEntry) -> None:
        name, user = name_of(entry), entry.user
        if name not in self.rows and not self._make_room(name):
            name = name._replace(user="")
        self._scores[user] += weight_of(entry)
        add_figures(self.rows, name, figures_of(entry))

    def _make_room(self, name: RowName) -> bool:
        """Give the row a place and its user a score, which may displace another user. False if it gets none."""
        user = name.user
        if user not in self._scores:
            self._scores[user] = self._displace() if len(self._scores) >= self._most else 0.0
            self._names[user] = []
            heappush(self._heap, (self._scores[user], user))
        elif len(self._names[user]) >= ROWS_OF_A_USER:
            return False
        self._names[user].append(name)
        return True

    def _displace(self) -> float:
        """Add the rows of the user with the lowest score to those of the others. Returns that score."""
        while self._heap[0][0] < self._scores[self._heap[0][1]]:
            user = self._heap[0][1]
            heapreplace(self._heap, (self._scores[user], user))
        score, user = heappop(self._heap)
        del self._scores[user]
        for name in self._names.pop(user):
            add_figures(self.rows, name._replace(user=""), self.rows.pop(name))
        return score


class _TeamDay:
    def __init__(self, users_max: int) -> None:
        self.rows: dict[RowName, Figures] = {}
        self.users = _UserRows(users_max)


class InMemoryLedger:
    """Days are kept for LEDGER_DAYS."""

    def __init__(self, users_max: int, zone: ZoneInfo) -> None:
        self._users_max = users_max
        self._zone = zone
        self._days: dict[str, dict[str, _TeamDay]] = {}
        self.closed_until = ""

    def add(self, entry: LedgerEntry, now_ms: int) -> None:
        if entry.day < self.closed_until:
            entry = moved_to(entry, self.closed_until)
        teams = self._days.get(entry.day)
        if teams is None:
            teams = self._days[entry.day] = {}
            self._forget_old(day_of(self._zone, now_ms))
        kept = teams.get(entry.team)
        if kept is None:
            kept = teams[entry.team] = _TeamDay(self._users_max)
        if entry.user:
            kept.users.add(entry)
        else:
            add_figures(kept.rows, name_of(entry), figures_of(entry))

    async def rows(self, query: UsageQuery) -> list[UsageRow]:
        sums = UsageSums(query)
        days = [(day, team, kept) for day, teams in self._days.items() for team, kept in teams.items()]
        for day, team, kept in days:
            if sums.covers(day):
                # Rows may be added and displaced meanwhile: those of each kind are of one moment.
                async for name, figures in in_slices(list(kept.rows.items()), SLICE):
                    sums.add(day, team, name, figures)
                of_users = list(kept.users.rows.items())
                async for name, figures in in_slices(of_users, SLICE):
                    sums.add(day, team, name if name.user else name._replace(user=OTHER_USERS), figures)
                await asyncio.sleep(0)
        return await sums.rows()

    def _forget_old(self, today: str) -> None:
        oldest = (date.fromisoformat(today) - timedelta(days=LEDGER_DAYS)).isoformat()
        for day in [day for day in self._days if day < oldest]:
            del self._days[day]
