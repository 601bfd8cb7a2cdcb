"""What operators ask of a store: the ledger by group, and how limits are; the same from the admin API and from the
command line.

A row of the ledger is a list of figures (`COLUMNS`), which both backends add up with `UsageSums`. Reports are JSON
objects, made piece by piece, so that a long one leaves the event loop to others in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from gateway.core.errors import FieldInvalid
from gateway.core.limit_status import limit_status_object
from gateway.core.reservation import LedgerEntry
from gateway.core.snapshot import ConfigSnapshot
from gateway.core.usage import UsageSource
from gateway.store.contract import Store, UsageQuery, UsageRow

COLUMNS = ("requests", "input", "cached_input", "output", "reasoning", "estimated", "cost")
"""The figures of a row, in the order in which they are kept."""

GROUPS = ("day", "team", "key", "model")

_LIMITS_AT_ONCE = 200

JsonObject = dict[str, Any]

Report = Callable[[Store, ConfigSnapshot, Mapping[str, str]], Awaitable[JsonObject]]
"""Answers a query as written in a URL. Raises FieldInvalid, StoreUnavailable."""


class UsageSums:
    """Add rows in any order; `rows` are sorted by their group."""

    def __init__(self, query: UsageQuery) -> None:
        self._query = query
        self._sums: dict[tuple[str, ...], list[int]] = {}

    def add(self, names: dict[str, str], figures: Sequence[int]) -> None:
        """`names` are the row's day, team, key and model."""
        query = self._query
        asked = (query.team or names["team"], query.key or names["key"], query.model or names["model"])
        if asked != (names["team"], names["key"], names["model"]):
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


def figures_of(entry: LedgerEntry) -> tuple[int, ...]:
    usage = entry.usage
    estimated = usage.total if usage.source is UsageSource.ESTIMATED else 0
    return (1, usage.input, usage.cached_input, usage.output, usage.reasoning, estimated, entry.cost)


def json_list(data: list[JsonObject]) -> JsonObject:
    return {"data": data, "next": None}


async def _usage(store: Store, _snapshot: ConfigSnapshot, query: Mapping[str, str]) -> JsonObject:
    """`{"rows": […], "total": {…}}`; a row has the fields that it is grouped by, and its sums."""
    asked = _usage_query(query)
    rows = await store.usage(asked)
    grouped = [{name: getattr(row, name) for name in asked.by} | _totals((row,)) for row in rows]
    return {"rows": grouped, "total": _totals(rows)}


async def _limits(store: Store, snapshot: ConfigSnapshot, query: Mapping[str, str]) -> JsonObject:
    team = query.get("team", "")
    if team and team not in snapshot.teams:
        known = ", ".join(sorted(snapshot.teams)) or "none"
        raise FieldInvalid(f"There is no team {team[:64]!r} with a key; there are {known}.", param="team")
    # In a thread: to tell the limits of many keys apart takes a while, and the snapshot never changes.
    limits = await asyncio.to_thread(snapshot.limits_of, team)
    listed: list[JsonObject] = []
    for at in range(0, len(limits), _LIMITS_AT_ONCE):
        limit_statuses = await store.limit_statuses(limits[at : at + _LIMITS_AT_ONCE])
        listed += [limit_status_object(limit_status) for limit_status in limit_statuses]
        await asyncio.sleep(0)
    return json_list(listed)


REPORTS: Mapping[str, Report] = {"usage": _usage, "limits": _limits}


def _usage_query(given: Mapping[str, str]) -> UsageQuery:
    """A query as written: `by` a list with commas, days as YYYY-MM-DD. Raises FieldInvalid."""
    unknown = [name for name in given if name not in ("by", "since", "until", "team", "key", "model")]
    if unknown:
        raise FieldInvalid(
            f"{unknown[0]!r} is not known here; there are by, since, until, team, key, model.", param=unknown[0]
        )
    by = tuple(part for part in given.get("by", "").split(",") if part)
    for part in by:
        if part not in GROUPS:
            raise FieldInvalid(f"'by' cannot be {part!r}; it is made of {', '.join(GROUPS)}.", param="by")
    for name in ("since", "until"):
        _check_day(name, given.get(name, ""))
    return UsageQuery(by=by, **{name: given[name] for name in given if name != "by"})


def _totals(rows: Iterable[UsageRow]) -> JsonObject:
    every = list(rows)
    return {
        "requests": sum(row.requests for row in every),
        "input_tokens": sum(row.input for row in every),
        "cached_input_tokens": sum(row.cached_input for row in every),
        "output_tokens": sum(row.output for row in every),
        "reasoning_tokens": sum(row.reasoning for row in every),
        "estimated_tokens": sum(row.estimated for row in every),
        "usd": sum(row.cost for row in every) / 1_000_000,
    }


def _check_day(name: str, text: str) -> None:
    try:
        if text:
            date.fromisoformat(text)
    except ValueError:
        raise FieldInvalid(f"{name!r} must be a day such as 2026-11-01.", param=name) from None
