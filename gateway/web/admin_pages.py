"""The admin API under /admin/v1: what operators may know of a running gateway, as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gateway.core.caller import Caller
from gateway.core.catalogue import Catalogue
from gateway.core.errors import UrlUnknown
from gateway.core.limit import Limit
from gateway.core.standing import rfc3339, standing_object
from gateway.journey import Rooms
from gateway.store.bill import bill, query_from

PREFIX = "/admin/v1/"
Told = dict[str, Any]
Content = Callable[[Rooms, Mapping[str, str]], Awaitable[Told]]


async def content_of(path: str, rooms: Rooms, query: Mapping[str, str]) -> Told:
    """The JSON at a path. Raises UrlUnknown, FieldInvalid, StoreUnavailable."""
    name, _, rest = path.removeprefix(PREFIX).partition("/")
    if name == "keys" and rest:
        return _one_key(rooms, rest)
    content = PAGES.get(name)
    if content is None or rest:
        raise UrlUnknown(f"There is nothing at {path[:200]!r}; there are {', '.join(PREFIX + page for page in PAGES)}.")
    return await content(rooms, query)


async def _usage(rooms: Rooms, query: Mapping[str, str]) -> Told:
    asked = query_from(query)
    return bill(await rooms.store.usage(asked), asked.by)


async def _limits(rooms: Rooms, query: Mapping[str, str]) -> Told:
    limits = limits_of(rooms.catalogue, query.get("team", ""))
    return _listed([standing_object(standing) for standing in await rooms.store.standings(limits)])


async def _teams(rooms: Rooms, _query: Mapping[str, str]) -> Told:
    keys: dict[str, list[str]] = {}
    for caller in rooms.catalogue.callers.values():
        keys.setdefault(caller.team, []).append(caller.key_id)
    return _listed([{"name": team, "keys": ids} for team, ids in keys.items()])


async def _keys(rooms: Rooms, query: Mapping[str, str]) -> Told:
    team, now_ms = query.get("team", ""), rooms.clock.now_ms()
    callers = rooms.catalogue.callers.values()
    return _listed([_key_object(caller, now_ms) for caller in callers if team in ("", caller.team)])


async def _upstreams(rooms: Rooms, _query: Mapping[str, str]) -> Told:
    served: dict[str, Told] = {}
    for model in {model.name: model for model in rooms.catalogue.models.values()}.values():
        for target in model.targets:
            told = served.setdefault(target.upstream.name, {"name": target.upstream.name, "models": []})
            told["models"].append(model.name)
    return _listed(list(served.values()))


def limits_of(catalogue: Catalogue, team: str) -> list[Limit]:
    """Every limit with one subject, of one team or of all: those on each end user are left out."""
    found: dict[tuple[object, ...], Limit] = {}
    for caller in catalogue.callers.values():
        if team in ("", caller.team):
            found |= {limit.identity: limit for limit in caller.limits}
    for model in catalogue.models.values():
        found |= {limit.identity: limit for limit in model.limits}
    return list(found.values())


def _one_key(rooms: Rooms, key_id: str) -> Told:
    for caller in rooms.catalogue.callers.values():
        if caller.key_id == key_id:
            return _key_object(caller, rooms.clock.now_ms())
    raise UrlUnknown(f"There is no key with the id {key_id[:64]!r}.")


def _key_object(caller: Caller, now_ms: int) -> Told:
    expired = caller.expires_ms is not None and caller.expires_ms <= now_ms
    return {
        "id": caller.key_id,
        "name": caller.key_name,
        "team": caller.team,
        "models": sorted({pattern for patterns in caller.models for pattern in patterns}),
        "limits": [limit.name for limit in caller.limits if limit.subject == caller.key_id],
        "expires_at": rfc3339(caller.expires_ms) if caller.expires_ms is not None else None,
        "status": "disabled" if caller.disabled else "expired" if expired else "active",
        "source": "config",
    }


def _listed(data: list[Told]) -> Told:
    return {"data": data, "next": None}


PAGES: dict[str, Content] = {
    "usage": _usage,
    "limits": _limits,
    "teams": _teams,
    "keys": _keys,
    "upstreams": _upstreams,
}
