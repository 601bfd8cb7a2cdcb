"""The ledger in memory: sums by day, team, key and model, kept for LEDGER_DAYS."""

from __future__ import annotations

from datetime import date, timedelta

from gateway.core.reservation import LedgerEntry
from gateway.core.usage import Source
from gateway.store.contract import LEDGER_DAYS, UsageQuery, UsageRow


class InMemoryLedger:
    def __init__(self) -> None:
        self._days: dict[str, dict[tuple[str, str, str], UsageRow]] = {}

    def add(self, entry: LedgerEntry, today: str) -> None:
        rows = self._days.get(entry.day)
        if rows is None:
            rows = self._days[entry.day] = {}
            self._forget_old(today)
        group = (entry.team, entry.key, entry.model)
        row = rows.get(group)
        if row is None:
            row = rows[group] = UsageRow(day=entry.day, team=entry.team, key=entry.key, model=entry.model)
        usage = entry.usage
        row.requests += 1
        row.input += usage.input
        row.cached_input += usage.cached_input
        row.output += usage.output
        row.reasoning += usage.reasoning
        row.cost += entry.cost
        if usage.source is Source.ESTIMATED:
            row.estimated += usage.total

    def _forget_old(self, today: str) -> None:
        oldest = (date.fromisoformat(today) - timedelta(days=LEDGER_DAYS)).isoformat()
        for day in [day for day in self._days if day < oldest]:
            del self._days[day]

    def rows(self, query: UsageQuery) -> list[UsageRow]:
        sums: dict[tuple[str, ...], UsageRow] = {}
        for day, rows in self._days.items():
            if day < query.since or (query.until and day >= query.until):
                continue
            for row in rows.values():
                if all(wanted in ("", value) for wanted, value in _filters(query, row)):
                    fold(sums, query.by, row)
        return [sums[group] for group in sorted(sums)]


def _filters(query: UsageQuery, row: UsageRow) -> tuple[tuple[str, str], ...]:
    return (query.team, row.team), (query.key, row.key), (query.model, row.model)


def fold(sums: dict[tuple[str, ...], UsageRow], by: tuple[str, ...], row: UsageRow) -> None:
    """Add a row to the sum of its group."""
    names = {name: getattr(row, name) for name in by}
    group = tuple(names.values())
    total = sums.get(group)
    if total is None:
        total = sums[group] = UsageRow(**names)
    for field in ("requests", "input", "cached_input", "output", "reasoning", "estimated", "cost"):
        setattr(total, field, getattr(total, field) + getattr(row, field))
