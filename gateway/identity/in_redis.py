"""Keys in Redis, under one hash tag.

    {k}:keys         hash: id → the key as JSON
    {k}:places       sorted set: time of creation and id, in the order of creation; `{k}:places:TEAM` those of a team
    {k}:chains       sorted set: of each key that took another's place, the id that its limits are counted under, its
                     time of creation and its id
    {k}:used         hash: id → when it was last used, in milliseconds
    {k}:revoked      sorted set: ids by when they were revoked, in milliseconds
    {k}:grants       hash: id → the grant as JSON; the counters that it raises are elsewhere
    {k}:changes      stream: the audit, and at the same time what directories follow
    {k}:session:NAME the holder of a browser session; it expires with the session

One hash tag lets one script write all parts of a change. The id of a change is the position that a directory follows.
Keys stay until REVOKED_DAYS after they were revoked; the stream ends 400 days after the last change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.errors import StoreUnavailable
from gateway.identity.contract import (
    AUDIT_ENTRIES,
    CHANGES_MAX,
    AuditEntry,
    AuditPage,
    KeyChanges,
    KeyPage,
    StoredGrant,
    StoredKey,
)
from gateway.runtime.backoff import Backoff
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.scripts import LuaScript

_FOLDER = Path(__file__).with_name("lua")
_WRITE = LuaScript("write_keys", _FOLDER / "write_keys.lua")
_FORGET = LuaScript("forget_keys", _FOLDER / "forget_keys.lua")
_GRANTS = LuaScript("write_grants", _FOLDER / "write_grants.lua")
_CHANGES = LuaScript("key_changes", _FOLDER / "key_changes.lua")

_CHANGES_LIFE_MS = 400 * DAY_MS
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

_CHAINED = "complete"
"""In the set of chains once it has the keys that versions without it have written."""

_PAGE = 500

_KEY = msgspec.json.Decoder(StoredKey)
_GRANT = msgspec.json.Decoder(StoredGrant)
_ENTRY = msgspec.json.Decoder(AuditEntry)


class RedisKeyStore:
    """`client` carries everything: a key that is looked up must not delay admissions."""

    def __init__(self, client: Router, prefix: str, tasks: BackgroundTasks) -> None:
        self._client = client
        self._tasks = tasks
        names = StoreKeys(prefix)
        self._keys = names.identity("keys")
        self._places = names.identity("places")
        self._chains = names.identity("chains")
        self._used = names.identity("used")
        self._revoked = names.identity("revoked")
        self._grants = names.identity("grants")
        self._changes = names.identity("changes")
        self._channel = names.identity("changed")
        self._names = names
        self._has_chains = False

    async def get(self, ids: Sequence[str]) -> list[StoredKey | None]:
        found = await self._client.ask(self._keys, ("HMGET", self._keys, *ids)) if ids else []
        return [None if packed is None else _KEY.decode(packed) for packed in found]

    async def counted_as(self, key_id: str) -> list[StoredKey]:
        await self._complete_chains()
        members = await self._client.ask(self._chains, ("ZRANGEBYLEX", self._chains, f"[{key_id}:", f"({key_id};"))
        found = await self.get([key_id, *[member.decode().rpartition(":")[2] for member in members]])
        return sorted([key for key in found if key is not None and key.counted_as == key_id], key=lambda key: key.place)

    async def _complete_chains(self) -> None:
        """Add what versions without this set have written, once for all processes and page by page."""
        whole = ("ZRANGEBYLEX", self._chains, f"[{_CHAINED}", f"[{_CHAINED}")
        if self._has_chains or await self._client.ask(self._chains, whole):
            self._has_chains = True
            return
        cursor = ""
        while True:
            page = await self.page("", cursor, _PAGE)
            members = [part for key in page.keys if (member := _chain_member(key)) for part in ("0", member)]
            if members:
                await self._client.ask(self._chains, ("ZADD", self._chains, *members))
            cursor = page.next
            if not cursor:
                break
        await self._client.ask(self._chains, ("ZADD", self._chains, "0", _CHAINED))

    async def page(self, team: str, cursor: str, limit: int) -> KeyPage:
        places = self._team_places(team) if team else self._places
        after = f"({cursor}" if cursor else "-"
        found = await self._client.ask(places, ("ZRANGEBYLEX", places, after, "+", "LIMIT", "0", str(limit + 1)))
        shown = [place.decode() for place in found[:limit]]
        keys = await self.get([place.partition(":")[2] for place in shown])
        return KeyPage([key for key in keys if key is not None], shown[-1] if len(found) > limit else "")

    async def write(self, keys: Sequence[StoredKey], entry: AuditEntry) -> AuditEntry | None:
        of_teams = [self._team_places(key.team) for key in keys]
        names = [self._keys, self._places, self._changes, self._revoked, self._chains, *of_teams]
        line = msgspec.json.encode(entry)
        arguments: list[str | bytes | int] = [line, AUDIT_ENTRIES, _CHANGES_LIFE_MS, self._channel]
        for key in keys:
            arguments += (key.id, key.revision - 1, msgspec.json.encode(key), key.place, key.revoked_ms or 0)
            arguments.append(_chain_member(key))
        reply = await self._run(_WRITE, names, arguments)
        return _with_place(entry, reply[2]) if reply[0] else None

    async def forget_revoked(self, before_ms: int, limit: int) -> int:
        command = ("ZRANGEBYSCORE", self._revoked, "-inf", f"({before_ms}", "LIMIT", "0", str(limit))
        ids = [key_id.decode() for key_id in await self._client.ask(self._revoked, command)]
        if not ids:
            return 0
        keys = await self.get(ids)
        # A key that is gone is forgotten, too: else it would be found again each time, in front of all others.
        of_teams = [self._places if key is None else self._team_places(key.team) for key in keys]
        places = ["" if key is None else key.place for key in keys]
        members = ["" if key is None else _chain_member(key) for key in keys]
        arguments: list[str | bytes | int] = [part for each in zip(ids, places, members, strict=True) for part in each]
        names = [self._keys, self._places, self._used, self._revoked, self._chains, *of_teams]
        await self._run(_FORGET, names, arguments)
        return len(keys)

    async def grants(self) -> list[StoredGrant]:
        found = await self._client.ask(self._grants, ("HVALS", self._grants))
        return sorted(map(_GRANT.decode, found), key=lambda grant: (grant.created_ms, grant.id))

    async def write_grant(
        self, grant: StoredGrant, entry: AuditEntry, ended: Sequence[str] = (), seen: Sequence[str] | None = None
    ) -> AuditEntry | None:
        expected = () if seen is None else (" ".join(seen),)
        reply = await self._change_grants(entry, ended, grant.id, msgspec.json.encode(grant), *expected)
        return _with_place(entry, reply[2]) if reply[0] else None

    async def remove_grant(self, grant_id: str, entry: AuditEntry) -> AuditEntry | None:
        reply = await self._change_grants(entry, [grant_id])
        return _with_place(entry, reply[2]) if reply[0] else None

    async def _change_grants(self, entry: AuditEntry, removed: Sequence[str], *added: str | bytes) -> list[Any]:
        line = msgspec.json.encode(entry)
        arguments: list[str | bytes | int] = [line, AUDIT_ENTRIES, _CHANGES_LIFE_MS, " ".join(removed), *added]
        return await self._run(_GRANTS, [self._grants, self._changes], arguments)

    async def changes(self, position: str) -> KeyChanges:
        reply = await self._run(_CHANGES, [self._changes], [position, CHANGES_MAX])
        ids = [key_id for part in reply[3:] for key_id in part.decode().split()] if reply[0] else None
        return KeyChanges(reply[2].decode(), ids)

    async def touch(self, used: Mapping[str, int]) -> None:
        if used:
            pairs = [part for key_id, at_ms in used.items() for part in (key_id, str(at_ms))]
            await self._client.ask(self._used, ("HSET", self._used, *pairs))

    async def last_used(self, ids: Sequence[str]) -> list[int | None]:
        found = await self._client.ask(self._used, ("HMGET", self._used, *ids)) if ids else []
        return [None if at_ms is None else int(at_ms) for at_ms in found]

    async def audit(self, cursor: str, limit: int) -> AuditPage:
        command = ("XREVRANGE", self._changes, cursor or "+", "-", "COUNT", str(limit + 1))
        found = await self._client.ask(self._changes, command)
        # A change's fields come as a flat list: k, the ids, e, the line.
        entries = [_with_place(_ENTRY.decode(fields[3]), change) for change, fields in found[:limit]]
        return AuditPage(entries, found[limit][0].decode() if len(found) > limit else "")

    async def keep_session(self, name: str, holder: str, life_ms: int) -> None:
        key = self._session_key(name)
        await self._client.ask(key, ("SET", key, holder, "PX", str(life_ms)))

    async def session(self, name: str) -> str | None:
        key = self._session_key(name)
        holder = await self._client.ask(key, ("GET", key))
        return None if holder is None else holder.decode()

    async def end_session(self, name: str) -> None:
        key = self._session_key(name)
        await self._client.ask(key, ("DEL", key))

    async def time_ms(self) -> int:
        return await self._client.time(self._keys)

    def subscribe(self, notify: Callable[[], None]) -> None:
        async def listen() -> None:
            backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            while True:
                try:
                    stream = await self._client.subscribe(self._keys, self._channel, lambda _message: notify())
                except StoreUnavailable:
                    await asyncio.sleep(backoff.next_s())
                    continue
                backoff.reset()
                # What was said before is lost.
                notify()
                try:
                    await stream.ended
                finally:
                    stream.abort()

        self._tasks.keep_running("listen to changes of keys", listen)

    async def close(self) -> None:
        await self._tasks.close()

    def _session_key(self, name: str) -> str:
        return self._names.identity(f"session:{name}")

    def _team_places(self, team: str) -> str:
        return self._names.identity(f"places:{team}")

    async def _run(self, script: LuaScript, names: list[str], arguments: list[str | bytes | int]) -> list[Any]:
        return cast(list[Any], await self._client.run(script, names[0], script.command(names, arguments)))


def _chain_member(key: StoredKey) -> str:
    """Empty for a key that is the first of its chain."""
    return f"{key.counted_as}:{key.place}" if key.counted_as != key.id else ""


def _with_place(entry: AuditEntry, change: bytes) -> AuditEntry:
    """The id of a change begins with its time."""
    place = change.decode()
    return msgspec.structs.replace(entry, id=place, at_ms=int(place.partition("-")[0]))
