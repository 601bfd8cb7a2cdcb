"""Reports for operators: the ledger by group, and the status of limits; the same for the admin API and the command
line.

Reports are JSON objects, made piece by piece, so that a long one leaves the event loop to others in between.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from heapq import nlargest
from typing import NamedTuple

import msgspec

from gateway.core.errors import FieldInvalid
from gateway.core.json_object import JsonObject
from gateway.core.limit_status import limit_status_object
from gateway.core.limits import Limit, Scope
from gateway.core.parameters import refuse_unknown
from gateway.core.reservation import LimitStatus
from gateway.core.snapshot import ConfigSnapshot
from gateway.runtime.slices import drained_in_slices, in_slices, sorted_in_slices
from gateway.store.contract import Ledger, Store, UsageQuery, UsageRow
from gateway.store.ledger import GROUPS, SLICE

COUNTS: Mapping[str, Callable[[UsageRow], int]] = {
    "requests": lambda row: row.requests,
    "input_tokens": lambda row: row.input,
    "cached_input_tokens": lambda row: row.cached_input,
    "cache_write_tokens": lambda row: row.cache_write + row.cache_write_1h,
    "cache_write_1h_tokens": lambda row: row.cache_write_1h,
    "output_tokens": lambda row: row.output,
    "reasoning_tokens": lambda row: row.reasoning,
    "estimated_tokens": lambda row: row.estimated,
    "audio_input_tokens": lambda row: row.audio_input,
    "image_input_tokens": lambda row: row.image_input,
    "audio_output_tokens": lambda row: row.audio_output,
    "image_output_tokens": lambda row: row.image_output,
    "images": lambda row: row.images,
    "searches": lambda row: row.searches,
    "audio_ms": lambda row: row.audio_ms,
    "characters": lambda row: row.characters,
    "estimated_audio_ms": lambda row: row.estimated_ms,
}
"""The counts of a row of the report by their names in JSON."""

FIGURES: Mapping[str, Callable[[UsageRow], int | float]] = {**COUNTS, "usd": lambda row: row.cost / 1_000_000}

_FILTERS = ("team", "key", "model", "user", "upstream", "cost_center")
USAGE_PARAMETERS = ("by", "since", "until", "month", *_FILTERS, "sort", "top")
LISTED_SCOPES = tuple(scope.value for scope in Scope if scope is not Scope.USER)
"""Whose limits can be listed: the names of end users are not known in advance."""

_LIMITS_AT_ONCE = 50
_NEARLY = 0.8
_DEAREST = 6
_MONTH = re.compile(r"[12]\d{3}-(0[1-9]|1[0-2])", re.ASCII)
_LAST_DAYS = re.compile(r"([1-9]\d{0,3})d")


Report = Callable[[Store, ConfigSnapshot, Mapping[str, str], date], Awaitable[JsonObject]]
"""Answers a query as written in a URL; the date is today in the configured time zone. Raises FieldInvalid,
StoreUnavailable."""


class ReportedMonth(NamedTuple):
    """`first` is its first day, `after` the first one of the next."""

    name: str
    first: str
    after: str

    @classmethod
    def read(cls, text: str) -> ReportedMonth:
        """Raises FieldInvalid."""
        if not _MONTH.fullmatch(text):
            raise FieldInvalid("'month' must be a month such as 2026-10.", param="month")
        first = date.fromisoformat(f"{text}-01")
        after = (first + timedelta(days=31)).replace(day=1)
        return cls(text, first.isoformat(), after.isoformat())

    def as_json(self, *, final: bool) -> JsonObject:
        return {"name": self.name, "final": final}


class UsageOrder(msgspec.Struct, frozen=True):
    """By which figure the rows of a report are sorted, the largest first, and how many are shown; by their group where
    there is no figure, all where there is no number."""

    figure: str = ""
    top: int | None = None


def json_list(data: list[JsonObject]) -> JsonObject:
    return {"data": data, "next": None}


async def _usage(store: Store, _snapshot: ConfigSnapshot, query: Mapping[str, str], today: date) -> JsonObject:
    """`{"rows": […], "total": {…}}`; a row has the fields that it is grouped by, and its sums. The total is of all
    rows, however many are shown. Where a month is asked for, there is `"month": {"name": …, "final": …}`, too."""
    month = ReportedMonth.read(query["month"]) if query.get("month") else None
    asked, order = _usage_query(query, month, today), _usage_order(query)
    rows = await store.usage(asked)
    total = await _totals(rows)
    if order.figure:
        rows = await sorted_in_slices(rows, SLICE, FIGURES[order.figure], reverse=True)
    most = len(rows) if order.top is None else order.top
    grouped: list[JsonObject] = []
    async for row in drained_in_slices(rows, SLICE):
        if len(grouped) < most:
            grouped.append({name: getattr(row, name) for name in asked.by} | _figures(row))
    report: JsonObject = {"rows": grouped, "total": total}
    if month is not None:
        report["month"] = month.as_json(final=month.after <= await store.closed_until())
    return report


async def keys_used_since(store: Ledger, day: str) -> set[str]:
    """The ids of the keys that the ledger has from this day on. Raises StoreUnavailable."""
    return {row.key for row in await store.usage(UsageQuery(by=("key",), since=day))}


async def close_month(store: Store, query: Mapping[str, str]) -> JsonObject:
    """Let this month and those before it change no more: `{"month": {"name": …, "final": true}}`. Raises FieldInvalid,
    StoreUnavailable."""
    refuse_unknown(query, ("month",))
    month = ReportedMonth.read(query.get("month", ""))
    if not await store.close_ledger(month.after):
        first_day = date.fromisoformat(month.after) + timedelta(days=1)
        raise FieldInvalid(f"{month.name} can be closed from {first_day}, 00:00 UTC on.", param="month")
    return {"month": month.as_json(final=True)}


async def usage_overview(store: Store, today: date) -> JsonObject:
    """What the first page of the console shows of the ledger, each part as `usage` reports it: `today`, the `days` of
    this month, and its most expensive `teams`. All come from one reading."""
    rows = await store.usage(UsageQuery(by=("day", "team"), since=today.replace(day=1).isoformat()))
    month = await _totals(rows)
    of_today = [row for row in rows if row.day >= today.isoformat()]
    by_day, by_team = await _by(rows, "day"), await _by(rows, "team")
    costs = {team: sum(row.cost for row in each) async for team, each in in_slices(by_team.items(), 1)}
    dearest = nlargest(_DEAREST, costs, key=lambda team: costs[team])
    total_of_today = await _totals(of_today)
    overview = {
        "today": {"rows": [total_of_today] if of_today else [], "total": total_of_today},
        "days": {"rows": [{"day": day} | await _totals(each) for day, each in by_day.items()], "total": month},
        "teams": {"rows": [{"team": team} | await _totals(by_team[team]) for team in dearest], "total": month},
    }
    for groups in (by_day, by_team):
        groups.clear()
    of_today.clear()
    async for _ in drained_in_slices(rows, SLICE):
        pass
    return overview


async def _by(rows: Iterable[UsageRow], name: str) -> dict[str, list[UsageRow]]:
    """The rows of each group, in the order of the groups."""
    found: dict[str, list[UsageRow]] = {}
    async for row in in_slices(rows, SLICE):
        found.setdefault(getattr(row, name), []).append(row)
    return dict(sorted(found.items()))


async def _limits(store: Store, snapshot: ConfigSnapshot, query: Mapping[str, str], _today: date) -> JsonObject:
    refuse_unknown(query, ("team", "scope"))
    team, scope = query.get("team", ""), query.get("scope", "")
    if team and team not in snapshot.teams:
        known = ", ".join(sorted(snapshot.teams)) or "none"
        raise FieldInvalid(f"There is no team {team[:64]!r}; there are {known}.", param="team")
    if scope and scope not in LISTED_SCOPES:
        raise FieldInvalid(f"'scope' cannot be {scope[:64]!r}; it is one of {', '.join(LISTED_SCOPES)}.", param="scope")
    return json_list(await _statuses(store, snapshot, team, lambda limit: scope in ("", limit.scope), lambda _: True))


async def quotas_running_out(store: Store, snapshot: ConfigSnapshot) -> JsonObject:
    """Of `limits` the quotas that are nearly used up, or will be before they reset at the present pace."""
    return json_list(await _statuses(store, snapshot, "", lambda limit: limit.is_quota, _runs_out))


async def _statuses(
    store: Store,
    snapshot: ConfigSnapshot,
    team: str,
    is_asked: Callable[[Limit], bool],
    is_shown: Callable[[LimitStatus], bool],
) -> list[JsonObject]:
    limits: dict[tuple[object, ...], Limit] = {}
    async for limit in in_slices(snapshot.each_limit(team), SLICE):
        if is_asked(limit):
            limits[limit.identity] = limit
    each, listed = list(limits.values()), list[JsonObject]()
    for at in range(0, len(each), _LIMITS_AT_ONCE):
        limit_statuses = await store.limit_statuses(each[at : at + _LIMITS_AT_ONCE])
        await asyncio.sleep(0)
        listed += [limit_status_object(limit_status) for limit_status in limit_statuses if is_shown(limit_status)]
        await asyncio.sleep(0)
    return listed


def _runs_out(limit_status: LimitStatus) -> bool:
    return limit_status.used >= _NEARLY * limit_status.limit.amount or bool(limit_status.runs_out_ms)


REPORTS: Mapping[str, Report] = {"usage": _usage, "limits": _limits}


def _usage_query(given: Mapping[str, str], month: ReportedMonth | None, today: date) -> UsageQuery:
    """A query as written: `by` a list with commas. Raises FieldInvalid."""
    refuse_unknown(given, USAGE_PARAMETERS)
    by = tuple(dict.fromkeys(part for part in given.get("by", "").split(",") if part))
    for part in by:
        if part not in GROUPS:
            raise FieldInvalid(f"'by' cannot be {part[:64]!r}; it is made of {', '.join(GROUPS)}.", param="by")
    days = {name: _day(name, given[name], today) for name in ("since", "until") if given.get(name)}
    if month is not None:
        if days:
            raise FieldInvalid("'month' is a whole month: leave 'since' and 'until' out.", param="month")
        days = {"since": month.first, "until": month.after}
    since, until = days.get("since", ""), days.get("until", "")
    if until and until < since:
        raise FieldInvalid(f"'until' ({until}) is before 'since' ({since}).", param="until")
    filters = {name: given[name] for name in _FILTERS if name in given}
    return UsageQuery(by=by, **days, **filters)


def _usage_order(given: Mapping[str, str]) -> UsageOrder:
    """Raises FieldInvalid."""
    figure, top = given.get("sort", ""), given.get("top", "")
    if figure and figure not in FIGURES:
        raise FieldInvalid(f"'sort' cannot be {figure[:64]!r}; it is one of {', '.join(FIGURES)}.", param="sort")
    if not top:
        return UsageOrder(figure)
    if not re.fullmatch(r"[1-9]\d{0,8}", top, re.ASCII):
        raise FieldInvalid("'top' must be a number of rows, such as 10.", param="top")
    return UsageOrder(figure or "usd", int(top))


async def _totals(rows: Sequence[UsageRow]) -> JsonObject:
    totals, micro_dollars = dict.fromkeys(FIGURES, 0), 0
    async for at in in_slices(range(0, len(rows), SLICE), 1):
        part = rows[at : at + SLICE]
        for name, figure in COUNTS.items():
            totals[name] += sum(map(figure, part))
        micro_dollars += sum(row.cost for row in part)
    return {**totals, "usd": micro_dollars / 1_000_000}


def _figures(row: UsageRow) -> JsonObject:
    return {name: figure(row) for name, figure in FIGURES.items()}


def _day(name: str, text: str, today: date) -> str:
    """A day as the ledger writes it: of `2026-11-01`, `month` (its first day) or `7d` (today is the last of seven)."""
    if text == "month":
        return today.replace(day=1).isoformat()
    last_days = _LAST_DAYS.fullmatch(text)
    if last_days:
        return (today - timedelta(days=int(last_days[1]) - 1)).isoformat()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise FieldInvalid(f"{name!r} must be a day such as 2026-11-01, or 7d, or month.", param=name) from None
