"""Rows of the ledger, summed by group: the same for every keeper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.reservation import LedgerEntry
from gateway.core.usage import UsageSource
from gateway.store.contract import UsageQuery, UsageRow

COLUMNS = ("requests", "input", "cached_input", "output", "reasoning", "estimated", "cost")
"""The figures of a row, in the order in which they are kept."""


def figures_of(entry: LedgerEntry) -> tuple[int, ...]:
    usage = entry.usage
    estimated = usage.total if usage.source is UsageSource.ESTIMATED else 0
    return (1, usage.input, usage.cached_input, usage.output, usage.reasoning, estimated, entry.cost)


class Sums:
    """Add rows in any order; `rows` are sorted by their group."""

    def __init__(self, query: UsageQuery) -> None:
        self._query = query
        self._sums: dict[tuple[str, ...], list[int]] = {}

    def add(self, names: dict[str, str], figures: Sequence[int]) -> None:
        """`names` are the row's day, team, key and model."""
        query = self._query
        if (query.team or names["team"], query.key or names["key"], query.model or names["model"]) != (
            names["team"],
            names["key"],
            names["model"],
        ):
            return
        group = tuple([names[name] for name in query.by])
        total = self._sums.get(group)
        if total is None:
            self._sums[group] = list(figures)
            return
        for place, figure in enumerate(figures):
            total[place] += figure

    def covers(self, day: str) -> bool:
        return day >= self._query.since and (not self._query.until or day < self._query.until)

    def rows(self) -> list[UsageRow]:
        rows = []
        for group, total in sorted(self._sums.items()):
            fields: dict[str, Any] = dict(zip(self._query.by, group, strict=True))
            rows.append(UsageRow(**fields | dict(zip(COLUMNS, total, strict=True))))
        return rows
