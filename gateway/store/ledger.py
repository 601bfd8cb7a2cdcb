"""The rows of the ledger, as both backends keep them and add them up.

A team has rows for each day. A row is a name (`RowName`) and its figures (`COLUMNS`). The columns after the first
seven are zero for most requests: a row has either these seven or all.

Clients choose end users, so there can be any number of them. A team and day keep the rows of `USERS_MAX` users. When
they are full, a new user takes the place of the one with the lowest score, whose figures are added to rows with the
same key, model, upstream and cost centre and the user `OTHER_USERS`. The score of a user is its cost plus the score of
the user that it displaced. This is the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, 2005): with N the cost of
all requests that name a user, every user of more than N / USERS_MAX is kept, and lacks at most N / USERS_MAX that was
counted before it took its place. Sums over all users are exact, and so are all other groups.

A user has at most `ROWS_OF_A_USER` rows, one for each key, model, upstream and cost centre; what is beyond is added to
the others, too, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from operator import add
from typing import Any, NamedTuple

import msgspec

from gateway.core.reservation import LedgerEntry
from gateway.core.usage import UsageSource
from gateway.runtime.slices import drained_in_slices, sorted_in_slices
from gateway.store.contract import UsageQuery, UsageRow

COLUMNS = (
    *("requests", "input", "cached_input", "output", "reasoning", "estimated", "cost"),
    *("cache_write", "cache_write_1h", "audio_input", "image_input", "audio_output", "image_output"),
    *("images", "searches", "audio_ms", "characters", "estimated_ms"),
)
"""The figures of a row, in the order in which they are kept; others may be added at the end."""

GROUPS = ("day", "month", "team", "key", "model", "upstream", "cost_center", "late", "user")

USERS_MAX = 10_000
"""Users that have rows of a team and day, besides `OTHER_USERS`."""

_ESTIMATED = UsageSource.ESTIMATED  # Slow to reach through the class in Python 3.11.

SLICE = 100
"""Rows that are read, sorted or summed in one turn of the event loop: they take less than a millisecond."""

_USUAL_COLUMNS = 7
_NO_MORE = (0,) * (len(COLUMNS) - _USUAL_COLUMNS)
"""Of the other columns."""

ROWS_OF_A_USER = 64
"""Rows that one user has at most; settle.lua repeats it."""


Figures = tuple[float, ...]
"""A row, in the order of COLUMNS. Python's search for garbage stops looking at a tuple of numbers; a list for each of
tens of thousands of rows would make it take tens of milliseconds."""


class RowName(NamedTuple):
    """What the requests of a row have in common, in a team and on a day; `user` is empty where none is named, `late`
    where the day is that of the request."""

    key: str
    model: str
    upstream: str = ""
    cost_center: str = ""
    late: str = ""
    user: str = ""


class UsageSums:
    """Add rows in any order, then take `rows`, which are sorted by their group."""

    def __init__(self, query: UsageQuery) -> None:
        self._query = query
        self._places = [GROUPS.index(name) for name in query.by]
        filters = {name: getattr(query, name) for name in ("team", "key", "model", "upstream", "cost_center", "user")}
        self._filters = [(GROUPS.index(name), wanted) for name, wanted in filters.items() if wanted]
        self._sums: dict[tuple[str, ...], Figures] = {}

    def add(self, day: str, team: str, name: RowName, figures: Sequence[float]) -> None:
        """`figures` are whole numbers, of the first columns at least."""
        row = (day, day[:7], team, *name)
        for place, wanted in self._filters:
            if row[place] != wanted:
                return
        add_figures(self._sums, tuple([row[place] for place in self._places]), figures)

    def covers(self, day: str) -> bool:
        return day >= self._query.since and (not self._query.until or day < self._query.until)

    async def rows(self) -> list[UsageRow]:
        """Made, and the sums freed, in slices: there may be tens of thousands."""
        groups = await sorted_in_slices(list(self._sums), SLICE, key=tuple)
        return [self._row(group, self._sums.pop(group)) async for group in drained_in_slices(groups, SLICE)]

    def _row(self, group: tuple[str, ...], total: Sequence[float]) -> UsageRow:
        fields: dict[str, Any] = dict(zip(self._query.by, group, strict=True))
        # Rows may have fewer figures than there are columns.
        return UsageRow(**fields | dict(zip(COLUMNS, map(int, total), strict=False)))


def add_figures(rows: dict[Any, Figures], name: Any, figures: Sequence[float]) -> None:
    """Add to the row of this name."""
    row = rows.get(name)
    if row is None:
        rows[name] = tuple(figures)
    elif len(row) == len(figures):
        rows[name] = tuple(map(add, row, figures))
    else:
        rows[name] = tuple(map(sum, zip_longest(row, figures, fillvalue=0)))


def name_of(entry: LedgerEntry) -> RowName:
    return RowName(entry.key, entry.model, entry.upstream, entry.cost_center, entry.late, entry.user)


def moved_to(entry: LedgerEntry, open_day: str) -> LedgerEntry:
    """An entry whose day is closed, as the first open day has it."""
    return msgspec.structs.replace(entry, day=open_day, late=entry.late or entry.day[:7])


def figures_of(entry: LedgerEntry) -> tuple[int, ...]:
    """Of the first seven columns where the others are zero."""
    usage = entry.usage
    estimated = usage.total if usage.source is _ESTIMATED and not usage.estimated_ms else 0
    figures = (1, usage.input, usage.cached_input, usage.output, usage.reasoning, estimated, entry.cost)
    more = (
        usage.cache_write, usage.cache_write_1h,
        usage.audio_input, usage.image_input, usage.audio_output, usage.image_output,
        usage.images, usage.searches, usage.audio_ms, usage.characters, usage.estimated_ms,
    )  # fmt: skip
    return figures if more == _NO_MORE else (*figures, *more)


def weight_of(entry: LedgerEntry) -> float:
    """What an entry adds to the score of its user: micro-dollars, and millionths of tokens, by which those are
    ordered that cost nothing."""
    return entry.cost + (1 + entry.usage.total) / 1_000_000
