"""The ledger in memory: sums by day, team, key and model, kept for LEDGER_DAYS."""

from __future__ import annotations

from datetime import date, timedelta

from gateway.core.reservation import LedgerEntry
from gateway.store.contract import LEDGER_DAYS, UsageQuery, UsageRow
from gateway.store.sums import Sums, figures_of


class InMemoryLedger:
    def __init__(self) -> None:
        self._days: dict[str, dict[tuple[str, str, str], list[int]]] = {}

    def add(self, entry: LedgerEntry, today: str) -> None:
        rows = self._days.get(entry.day)
        if rows is None:
            rows = self._days[entry.day] = {}
            self._forget_old(today)
        figures = figures_of(entry)
        row = rows.setdefault((entry.team, entry.key, entry.model), [0] * len(figures))
        for place, figure in enumerate(figures):
            row[place] += figure

    def rows(self, query: UsageQuery) -> list[UsageRow]:
        sums = Sums(query)
        for day, rows in self._days.items():
            if sums.covers(day):
                for (team, key, model), figures in rows.items():
                    sums.add({"day": day, "team": team, "key": key, "model": model}, figures)
        return sums.rows()

    def _forget_old(self, today: str) -> None:
        oldest = (date.fromisoformat(today) - timedelta(days=LEDGER_DAYS)).isoformat()
        for day in [day for day in self._days if day < oldest]:
            del self._days[day]
