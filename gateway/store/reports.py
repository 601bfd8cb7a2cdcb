"""What operators ask of a store, as JSON: the same from the admin API and from the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.core.errors import FieldInvalid
from gateway.core.limit_status import limit_status_object
from gateway.core.snapshot import ConfigSnapshot
from gateway.store.bill import bill, query_from
from gateway.store.contract import Store

Told = dict[str, Any]

Report = Callable[[Store, ConfigSnapshot, Mapping[str, str]], Awaitable[Told]]
"""Answers a query as written in a URL. Raises FieldInvalid, StoreUnavailable."""


def listed(data: list[Told]) -> Told:
    return {"data": data, "next": None}


async def _usage(store: Store, _catalogue: ConfigSnapshot, query: Mapping[str, str]) -> Told:
    asked = query_from(query)
    return bill(await store.usage(asked), asked.by)


async def _limits(store: Store, snapshot: ConfigSnapshot, query: Mapping[str, str]) -> Told:
    team = query.get("team", "")
    if team and team not in snapshot.teams:
        known = ", ".join(sorted(snapshot.teams)) or "none"
        raise FieldInvalid(f"There is no team {team[:64]!r} with a key; there are {known}.", param="team")
    limit_statuses = await store.limit_statuses(snapshot.limits_of(team))
    return listed([limit_status_object(limit_status) for limit_status in limit_statuses])


REPORTS: Mapping[str, Report] = {"usage": _usage, "limits": _limits}
