"""The ledger in Redis: how its rows are written, and how a report combines the rows of several hashes.

A team and day have three hashes, each finer than the one before:

1. `ledger`: by key and model, the first seven columns. This is the first schema, which older gateways read and write.
2. `details`: by key, model, upstream and cost centre, all columns.
3. `users`: the same by end user, for requests that name one.

settle.lua adds to all that apply in one step. A report adds up the rows of the finest hash that it needs and, of each
coarser one, what the finer does not explain. What an older gateway has settled is only in the first, so its row has no
upstream; a request that named no end user has a row without user. So gateways of both schemas can share a Redis during
an upgrade or a rollback, and all of them see all requests. A sorted set has the scores that decide which users have
rows; another hash has the rows of each.

A row is a string of little-endian doubles. The name of a row of details is a JSON array, with a fifth part if the
requests are late: their month. A row of users has this name, a line feed and the user, or nothing if it is the sum of
other users.

A closed day does not change. Each team has the first open day next to its days, where settle.lua sees it in the same
step; the organisation has it for all teams, so that a new team copies it before its first bill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import sub
from struct import unpack
from typing import NamedTuple

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.end_users import OTHER_USERS
from gateway.core.reservation import LedgerEntry
from gateway.store.contract import LEDGER_DAYS
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.ledger import Figures, RowName, add_figures

LEDGER_MS = LEDGER_DAYS * DAY_MS

CLOSED = "closed"
"""Beside the days of a team: the first open day is its score."""

BY_MODEL, BY_DETAILS = 2, 5
"""How many parts the names of rows have in `ledger` and in `details`."""

_DETAILS_NAME = msgspec.json.Decoder(tuple[str, ...])

NameReader = Callable[[bytes], RowName]
RowTaker = Callable[[RowName, Sequence[float]], None]


class BillName(NamedTuple):
    """What the bills of one row have in common: all of a `LedgerEntry` but its figures. `for_user`: whether they name
    an end user."""

    day: str
    team: str
    key: str
    model: str
    upstream: str
    cost_center: str
    late: str
    for_user: bool

    def keys(self, keys: StoreKeys) -> tuple[str, ...]:
        """Those that settle.lua writes a bill to."""
        team, day = self.team, self.day
        hashes = (keys.ledger(team, day), keys.details(team, day), keys.days(team))
        users = (keys.users(team, day), keys.user_scores(team, day), keys.user_names(team, day))
        return hashes if not self.for_user else (*hashes, *users)

    def fields(self) -> tuple[str | bytes, ...]:
        """What the rows are called in the ledger and in its details."""
        details = self[2:7] if self.late else self[2:6]
        return f"{self.key}|{self.model}", msgspec.json.encode(details)


def bill_name(entry: LedgerEntry) -> BillName:
    return BillName(
        entry.day,
        entry.team,
        entry.key,
        entry.model,
        entry.upstream,
        entry.cost_center,
        entry.late,
        entry.user != "",
    )


class Unexplained:
    """Rows of a hash, less those of the finer one."""

    def __init__(self, parts: int) -> None:
        """`parts`: how many its names have."""
        self._parts = parts
        self._rows: dict[tuple[str, ...], Figures] = {}

    def add(self, name: RowName, figures: Sequence[float]) -> None:
        add_figures(self._rows, name[: self._parts], figures)

    def explain(self, name: RowName, figures: Sequence[float]) -> None:
        row = self._rows.get(name[: self._parts])
        if row is not None:
            self._rows[name[: self._parts]] = (*map(sub, row, figures), *row[len(figures) :])

    def rows(self) -> Iterator[tuple[RowName, list[float]]]:
        """What is settled between the reading of the two hashes is in the finer one alone, so it may be negative."""
        for name, row in self._rows.items():
            if row[0] > 0:
                yield RowName(*name), [max(0, figure) for figure in row]


def ledger_name(field: bytes) -> RowName:
    key, _, model = field.decode().partition("|")
    return RowName(key, model)


def details_name(field: bytes) -> RowName:
    return RowName(*_DETAILS_NAME.decode(field))


def user_name(field: bytes) -> RowName:
    details, _, user = field.partition(b"\n")
    return details_name(details)._replace(user=user.decode() or OTHER_USERS)


def figures_in(row: bytes) -> tuple[float, ...]:
    return unpack(f"<{len(row) // 8}d", row)
