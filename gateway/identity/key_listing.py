"""The lists that operators get, page by page: of keys, of keys for another store, and of the audit.

A list of keys has first those of the configuration, then those of the store.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.core.calendar import DAY_MS, day_of
from gateway.core.errors import FieldInvalid
from gateway.core.json_object import JsonObject
from gateway.core.key_ids import KEY_ID
from gateway.core.parameters import number_of, refuse_unknown
from gateway.core.snapshot import ConfigSnapshot
from gateway.identity.contract import AdministeredKeys
from gateway.identity.key_objects import audit_object, config_key_object, exported_key, stored_key_object
from gateway.identity.requests import AdministrationRequest
from gateway.runtime.slices import in_slices

PAGE_DEFAULT, PAGE_MAX = 100, 1_000
STATUSES = ("active", "expired", "revoked", "disabled")
_OBJECTS_AT_ONCE = 50

_DURATION = re.compile(r"([1-9][0-9]{0,4})d")
_PLACE = f"([0-9-][0-9]{{14}}:{KEY_ID})?"
"""What StoredKey.place gives, also for a key that was made before 1970 as its import says; empty for the beginning."""

_CURSOR = re.compile(rf"config:[0-9]{{1,9}}|store:{_PLACE}")


class _Cursor(NamedTuple):
    """The beginning of a page of keys: a key of the configuration, or the cursor of the store."""

    of_config: int | None
    following: str


KeysUsedSince = Callable[[str], Awaitable[Collection[str]]]
"""The ids of the keys that the ledger has from this day on. Raises StoreUnavailable."""


class KeyListing:
    """`snapshot` gives the configuration in force, `zone` is where its days begin."""

    def __init__(
        self,
        store: AdministeredKeys,
        snapshot: Callable[[], ConfigSnapshot],
        zone: ZoneInfo,
        used_since: KeysUsedSince,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._zone = zone
        self._used_since = used_since

    async def keys(self, request: AdministrationRequest) -> JsonObject:
        query = request.query
        refuse_unknown(query, ("team", "status", "source", "unused", "limit", "cursor"))
        limit, cursor, now_ms = _limit_of(query), _cursor_of(query), await self._store.time_ms()
        status, source = _choice(query, "status", STATUSES), _choice(query, "source", ("config", "store"))
        team, unused_ms = query.get("team", ""), _unused_ms(query)
        listed: list[JsonObject] = []
        following = cursor.following
        if cursor.of_config is not None and source != "store":
            callers = [each for each in self._snapshot().callers.values() if team in ("", each.team)]
            shown = callers[cursor.of_config : cursor.of_config + limit]
            used = await self._used_keys(unused_ms, now_ms)
            listed = [
                config_key_object(caller, now_ms)
                async for caller in in_slices(shown, _OBJECTS_AT_ONCE)
                if caller.key_id not in used
            ]
            end = cursor.of_config + len(shown)
            following = f"config:{end}" if end < len(callers) else "store:"
        if following.startswith("store:") and source != "config" and len(listed) < limit:
            place = following.removeprefix("store:")
            stored, after = await self._stored_page(team, place, limit - len(listed), now_ms)
            listed += [key for key in stored if _is_unused(key, unused_ms, now_ms)]
            following = f"store:{after}" if after else ""
        if following == "store:" and source == "config":
            following = ""
        found = [key for key in listed if status in ("", key["status"])]
        return {"data": found, "next": following or None}

    async def _used_keys(self, unused_ms: int | None, now_ms: int) -> Collection[str]:
        """The keys that the ledger has in that time. For keys of the configuration, nothing else records their use."""
        if unused_ms is None:
            return ()
        return await self._used_since(day_of(self._zone, now_ms - unused_ms))

    async def _stored_page(self, team: str, cursor: str, limit: int, now_ms: int) -> tuple[list[JsonObject], str]:
        page = await self._store.page(team, cursor, limit)
        used = await self._store.last_used([key.id for key in page.keys])
        snapshot = self._snapshot()
        shown = [
            stored_key_object(key, snapshot, now_ms, used_ms)
            async for key, used_ms in in_slices(zip(page.keys, used, strict=True), _OBJECTS_AT_ONCE)
        ]
        return shown, page.next

    async def export(self, request: AdministrationRequest) -> JsonObject:
        refuse_unknown(request.query, ("team", "limit", "cursor"))
        limit, cursor = _limit_of(request.query), request.query.get("cursor", "")
        if not re.fullmatch(_PLACE, cursor):
            raise FieldInvalid("'cursor' must be what `next` of another page said.", param="cursor")
        page = await self._store.page(request.query.get("team", ""), cursor, limit)
        return {"data": [exported_key(key) for key in page.keys], "next": page.next or None}

    async def audit(self, request: AdministrationRequest) -> JsonObject:
        refuse_unknown(request.query, ("limit", "cursor"))
        cursor = request.query.get("cursor", "")
        if not re.fullmatch(r"([0-9]{1,19}(-[0-9]{1,19})?)?", cursor):
            raise FieldInvalid("'cursor' must be what `next` of another page said.", param="cursor")
        page = await self._store.audit(cursor, _limit_of(request.query))
        return {"data": [audit_object(entry) for entry in page.entries], "next": page.next or None}


def _limit_of(query: Mapping[str, str]) -> int:
    return number_of(query, "limit", most=PAGE_MAX, default=PAGE_DEFAULT)


def _choice(query: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    given = query.get(name, "")
    if given and given not in choices:
        raise FieldInvalid(f"{name!r} must be one of {', '.join(choices)}.", param=name)
    return given


def _cursor_of(query: Mapping[str, str]) -> _Cursor:
    given = query.get("cursor", "") or "config:0"
    if not _CURSOR.fullmatch(given):
        raise FieldInvalid("'cursor' must be what `next` of another page said.", param="cursor")
    kind, _, place = given.partition(":")
    return _Cursor(int(place), "store:") if kind == "config" else _Cursor(None, given)


def _unused_ms(query: Mapping[str, str]) -> int | None:
    given = query.get("unused")
    if given is None:
        return None
    days = _DURATION.fullmatch(given)
    if days is None:
        raise FieldInvalid("'unused' must be a number of days such as 30d.", param="unused")
    return int(days[1]) * DAY_MS


def _is_unused(key: JsonObject, unused_ms: int | None, now_ms: int) -> bool:
    """A key of the store that was neither used nor created for this long."""
    if unused_ms is None:
        return True
    last = key["last_used_at"] or key["created_at"]
    return last is not None and datetime.fromisoformat(last).timestamp() * 1000 <= now_ms - unused_ms
