"""What operators can do with keys, and how the audit records it: one implementation for the admin API and the command
line.

A change and its audit entry are written in one step. If another process has changed the key in the meantime, the key is
read again and the change is applied to the new state.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.errors import FieldInvalid, StoreUnavailable, UrlUnknown
from gateway.core.json_object import JsonObject
from gateway.core.limits import Limit, Meter, Scope
from gateway.core.parameters import refuse_unknown
from gateway.core.snapshot import ConfigSnapshot, matches
from gateway.identity.contract import KEY_ID_DIGITS, AuditEntry, KeyStore, NoteChange, StoredKey
from gateway.identity.key_objects import (
    audit_object,
    config_key_object,
    exported_key,
    stored_key_object,
)
from gateway.identity.requests import (
    AdministrationRequest,
    json_object,
    nothing_at,
    of_method,
    section,
    written_in,
)
from gateway.runtime.slices import in_slices
from gateway.settings.diagnostics import nearest
from gateway.settings.stored_keys import (
    ImportedKeySettings,
    KeyChangeSettings,
    NewKeySettings,
    RotationSettings,
)
from gateway.settings.value_readers import moment_in

PAGE_DEFAULT, PAGE_MAX = 100, 1_000
IMPORTED_MAX = 200
"""Keys of one import, which are written in one step."""

STATUSES = ("active", "expired", "revoked", "disabled")
_ATTEMPTS = 8
_CLASHES_AT_ONCE = 200
_OBJECTS_AT_ONCE = 50
_IMPORTED_AT_ONCE = 1
"""The models and limits of a key are checked against all models of its team, which takes milliseconds if it has 500."""

_DURATION = re.compile(r"([1-9][0-9]{0,4})d")
_PLACE = r"([0-9-][0-9]{14}:[0-9a-f]{12})?"
"""What StoredKey.place gives, also for a key that was made before 1970 as its import says; empty for the beginning."""

_CURSOR = re.compile(rf"config:[0-9]{{1,9}}|store:{_PLACE}")


def new_key() -> str:
    """A key as the gateway makes them: `gw_` and 32 random bytes in base64url."""
    return "gw_" + secrets.token_urlsafe(32)


class _Cursor(NamedTuple):
    """The beginning of a page of keys: a key of the configuration, or the cursor of the store."""

    of_config: int | None
    following: str


KeysUsedSince = Callable[[str], Awaitable[Collection[str]]]
"""The ids of the keys that the ledger has from this day on. Raises StoreUnavailable."""


class KeyAdministration:
    """`snapshot` gives the configuration in force, `zone` is where its days begin."""

    def __init__(
        self,
        store: KeyStore,
        snapshot: Callable[[], ConfigSnapshot],
        zone: ZoneInfo,
        note_change: NoteChange,
        used_since: KeysUsedSince,
    ) -> None:
        self._store = store
        self._used_since = used_since
        self._snapshot = snapshot
        self._zone = zone
        self._note_change = note_change
        self.collections: Mapping[str, Mapping[str, Callable[[AdministrationRequest], Awaitable[JsonObject]]]] = {
            "keys": {"GET": self._list, "POST": self._create},
            "keys/export": {"GET": self._export},
            "keys/import": {"POST": self._import},
            "audit": {"GET": self._audit},
        }
        self.members: Mapping[str, Mapping[str, Callable[[AdministrationRequest, str], Awaitable[JsonObject]]]] = {
            "": {"GET": self._show, "PATCH": self._change, "DELETE": self._revoke},
            "rotate": {"POST": self._rotate},
        }
        """The actions below keys/{id}."""

    async def answer(self, request: AdministrationRequest) -> JsonObject:
        """Raises FieldInvalid, BodyUnreadable, UrlUnknown, MethodNotAllowed, StoreUnavailable."""
        collection = self.collections.get(request.path)
        if collection is not None:
            return await of_method(collection, request.method)(request)
        kind, _, rest = request.path.partition("/")
        key_id, _, verb = rest.partition("/")
        member = self.members.get(verb)
        if kind != "keys" or member is None or (not verb and rest.endswith("/")):
            raise nothing_at(request.path)
        return await of_method(member, request.method)(request, key_id)

    async def note(self, entry: AuditEntry) -> None:
        """Add an entry about a change that was made elsewhere. Raises StoreUnavailable."""
        self._note_change(await self._store.write((), entry) or entry)

    async def clashes(self, snapshot: ConfigSnapshot) -> list[str]:
        """Keys of this configuration with the id of a stored key: they could not be distinguished. Raises
        StoreUnavailable."""
        callers = list(snapshot.callers.values())
        found: list[str] = []
        for at in range(0, len(callers), _CLASHES_AT_ONCE):
            await asyncio.sleep(0)  # The store may answer at once, and a part takes a fraction of a millisecond.
            asked = callers[at : at + _CLASHES_AT_ONCE]
            stored = await self._store.get([caller.key_id for caller in asked])
            found += [
                f"teams.{caller.team}: the key {caller.key_name} has the id {key.id} of the stored key {key.name} of"
                f" team {key.team}; leave one of them out"
                for caller, key in zip(asked, stored, strict=True)
                if key is not None
            ]
        return found

    async def _list(self, request: AdministrationRequest) -> JsonObject:
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
        first = datetime.fromtimestamp((now_ms - unused_ms) / 1000, self._zone).date()
        return await self._used_since(first.isoformat())

    async def _stored_page(self, team: str, cursor: str, limit: int, now_ms: int) -> tuple[list[JsonObject], str]:
        page = await self._store.page(team, cursor, limit)
        used = await self._store.last_used([key.id for key in page.keys])
        snapshot = self._snapshot()
        shown = [
            stored_key_object(key, snapshot, now_ms, used_ms)
            async for key, used_ms in in_slices(zip(page.keys, used, strict=True), _OBJECTS_AT_ONCE)
        ]
        return shown, page.next

    async def _show(self, request: AdministrationRequest, key_id: str) -> JsonObject:
        refuse_unknown(request.query, ())
        now_ms = await self._store.time_ms()
        caller = next((each for each in self._snapshot().callers.values() if each.key_id == key_id), None)
        if caller is not None:
            return config_key_object(caller, now_ms)
        return await self._object(await self._stored(key_id), now_ms)

    async def _create(self, request: AdministrationRequest) -> JsonObject:
        written = written_in(NewKeySettings, request)
        now_ms = await self._store.time_ms()
        secret = new_key()
        digest = hashlib.sha256(secret.encode()).hexdigest()
        blank = StoredKey(_id(digest), digest, written.name, written.team, now_ms, counted_as=_id(digest))
        key = self._applied(blank, written, written.given, now_ms)
        return await self._written("key.create", request, key, None, now_ms) | {"key": secret}

    async def _change(self, request: AdministrationRequest, key_id: str) -> JsonObject:
        body = json_object(request.body)
        written = written_in(KeyChangeSettings, request)
        if not body:
            names = ", ".join(KeyChangeSettings.__struct_fields__)
            raise FieldInvalid(f"Nothing is to be changed; name at least one of {names}.")
        action = "key.change"
        if set(body) == {"disabled"}:
            action = "key.disable" if written.disabled else "key.enable"

        def changed(key: StoredKey, now_ms: int) -> StoredKey:
            return self._applied(key, written, set(body), now_ms)

        return await self._changed(action, request, key_id, changed)

    async def _revoke(self, request: AdministrationRequest, key_id: str) -> JsonObject:
        def revoked(key: StoredKey, now_ms: int) -> StoredKey:
            return msgspec.structs.replace(key, revoked_ms=now_ms)

        return await self._changed("key.revoke", request, key_id, revoked)

    async def _rotate(self, request: AdministrationRequest, key_id: str) -> JsonObject:
        written = written_in(RotationSettings, request)
        for _ in range(_ATTEMPTS):
            old = await self._changeable(key_id)
            now_ms = await self._store.time_ms()
            if old.expires_ms is not None and old.expires_ms <= now_ms:
                raise FieldInvalid(f"The key {key_id} has expired. Create another one.", param="id")
            secret = new_key()
            digest = hashlib.sha256(secret.encode()).hexdigest()
            expires_ms = old.expires_ms if written.expires_at is None else self._end(written.expires_at, now_ms)
            new = msgspec.structs.replace(
                old,
                id=_id(digest),
                sha256=digest,
                created_ms=now_ms,
                revision=1,
                expires_ms=expires_ms,
                rotated_from=old.id,
            )
            ends_ms = now_ms + round(written.overlap.total_seconds() * 1000)
            ended = msgspec.structs.replace(
                old,
                revision=old.revision + 1,
                expires_ms=min(ends_ms, old.expires_ms or ends_ms),
                revoked_ms=None if written.overlap else now_ms,
            )
            before, after = await self._object(old, now_ms), await self._object(new, now_ms)
            entry = AuditEntry(request.actor, "key.rotate", old.id, before, after)
            if await self._write((ended, new), entry):
                return after | {"key": secret}
        raise _busy(key_id)

    async def _export(self, request: AdministrationRequest) -> JsonObject:
        refuse_unknown(request.query, ("team", "limit", "cursor"))
        limit, cursor = _limit_of(request.query), request.query.get("cursor", "")
        if not re.fullmatch(_PLACE, cursor):
            raise FieldInvalid("'cursor' must be what `next` of another page said.", param="cursor")
        page = await self._store.page(request.query.get("team", ""), cursor, limit)
        return {"data": [exported_key(key) for key in page.keys], "next": page.next or None}

    async def _import(self, request: AdministrationRequest) -> JsonObject:
        """Existing keys stay as they are, so that an import can be repeated."""
        given = json_object(request.body)
        items = given.get("keys")
        if set(given) != {"keys"} or not isinstance(items, list) or not 1 <= len(items) <= IMPORTED_MAX:
            raise FieldInvalid(f"'keys' must be a list of 1 to {IMPORTED_MAX} keys, and nothing else.", param="keys")
        now_ms = await self._store.time_ms()
        configured = {caller.key_id for caller in self._snapshot().callers.values()}
        keys: dict[str, StoredKey] = {}
        async for place, item in in_slices(enumerate(items), _IMPORTED_AT_ONCE):
            key = self._imported(item, f"keys[{place}]", now_ms)
            if key.id in configured:
                raise FieldInvalid(f"keys[{place}] is a key of the configuration.", param=f"keys[{place}]")
            keys[key.id] = key
        for _ in range(_ATTEMPTS):
            there = [key.id for key in await self._store.get(list(keys)) if key is not None]
            missing = [key for key in keys.values() if key.id not in there]
            ids: JsonObject = {"imported": [key.id for key in missing], "skipped": there}
            entry = AuditEntry(request.actor, "key.import", f"{len(missing)} keys", None, ids)
            if not missing or await self._write(missing, entry):
                return ids
        raise _busy("that is imported")

    async def _audit(self, request: AdministrationRequest) -> JsonObject:
        refuse_unknown(request.query, ("limit", "cursor"))
        cursor = request.query.get("cursor", "")
        if not re.fullmatch(r"([0-9]{1,19}(-[0-9]{1,19})?)?", cursor):
            raise FieldInvalid("'cursor' must be what `next` of another page said.", param="cursor")
        page = await self._store.audit(cursor, _limit_of(request.query))
        return {"data": [audit_object(entry) for entry in page.entries], "next": page.next or None}

    async def _changed(
        self, action: str, request: AdministrationRequest, key_id: str, change: Callable[[StoredKey, int], StoredKey]
    ) -> JsonObject:
        refuse_unknown(request.query, ())
        for _ in range(_ATTEMPTS):
            old = await self._changeable(key_id)
            now_ms = await self._store.time_ms()
            new = msgspec.structs.replace(change(old, now_ms), revision=old.revision + 1)
            if (written := await self._try(action, request, new, old, now_ms)) is not None:
                return written
        raise _busy(key_id)

    async def _written(
        self, action: str, request: AdministrationRequest, new: StoredKey, old: StoredKey | None, now_ms: int
    ) -> JsonObject:
        written = await self._try(action, request, new, old, now_ms)
        if written is None:
            raise _busy(new.id)
        return written

    async def _try(
        self, action: str, request: AdministrationRequest, new: StoredKey, old: StoredKey | None, now_ms: int
    ) -> JsonObject | None:
        before = None if old is None else await self._object(old, now_ms)
        after = await self._object(new, now_ms)
        return after if await self._write((new,), AuditEntry(request.actor, action, new.id, before, after)) else None

    async def _write(self, keys: Iterable[StoredKey], entry: AuditEntry) -> bool:
        written = await self._store.write(tuple(keys), entry)
        if written is not None:
            self._note_change(written)
        return written is not None

    async def _stored(self, key_id: str) -> StoredKey:
        found = await self._store.get([key_id]) if re.fullmatch(f"[0-9a-f]{{{KEY_ID_DIGITS}}}", key_id) else [None]
        if found[0] is None:
            raise UrlUnknown(f"There is no key with the id {key_id[:64]!r}.")
        return found[0]

    async def _changeable(self, key_id: str) -> StoredKey:
        if any(caller.key_id == key_id for caller in self._snapshot().callers.values()):
            raise FieldInvalid(f"The key {key_id} is in the configuration: change it there, and reload.", param="id")
        key = await self._stored(key_id)
        if key.revoked_ms is not None:
            raise FieldInvalid(f"The key {key_id} is revoked permanently. Create another one.", param="id")
        return key

    async def _object(self, key: StoredKey, now_ms: int) -> JsonObject:
        [used_ms] = await self._store.last_used([key.id])
        return stored_key_object(key, self._snapshot(), now_ms, used_ms)

    def _imported(self, item: Any, place: str, now_ms: int) -> StoredKey:
        if not isinstance(item, dict):
            raise FieldInvalid(f"{place} must be a key as `gateway keys export` writes it.", param=place)
        written = section(ImportedKeySettings, item, f"{place}.")
        digest = written.sha256
        created = now_ms if written.created_at is None else self._moment(written.created_at, now_ms)
        revoked = None if written.revoked_at is None else self._moment(written.revoked_at, now_ms)
        key_id = _id(digest)
        blank = StoredKey(key_id, digest, written.name, written.team, created, written.counted_as or key_id)
        key = self._applied(blank, written, written.given, None)
        return msgspec.structs.replace(key, revoked_ms=revoked)

    def _applied(
        self, key: StoredKey, written: KeyChangeSettings, names: Collection[str], now_ms: int | None
    ) -> StoredKey:
        """The key with the written values of these settings. Without a time, it may have expired already."""
        self._check_team(key.team)
        changes: dict[str, Any] = {}
        if "name" in names:
            changes["name"] = written.name or key.name
        if "models" in names:
            changes["models"] = written.models
            self._check_models(key.team, written.models or ())
        if "limits" in names:
            limits = tuple(limit.limit(Scope.KEY) for limit in written.limits or ())
            self._check_limits(key.team, changes.get("models", key.models), limits)
            changes["limits"] = limits
        if "networks" in names:
            changes["networks"] = tuple(str(network) for network in written.networks or ())
        if "metadata" in names:
            changes["metadata"] = written.metadata or {}
        if "expires_at" in names:
            changes["expires_ms"] = None if written.expires_at is None else self._end(written.expires_at, now_ms)
        if "disabled" in names:
            changes["disabled"] = bool(written.disabled)
        return msgspec.structs.replace(key, **changes)

    def _end(self, written: date | timedelta, now_ms: int | None) -> int:
        """When a key stops working. Without a time, it may have stopped already. Raises FieldInvalid."""
        end_ms = self._moment(written, now_ms or 0)
        if now_ms is not None and end_ms <= now_ms:
            raise FieldInvalid("'expires_at' must be later than now.", param="expires_at")
        return end_ms

    def _moment(self, written: date | timedelta, now_ms: int) -> int:
        if isinstance(written, timedelta):
            return now_ms + round(written.total_seconds() * 1000)
        return round(moment_in(written, self._zone).timestamp() * 1000)

    def _check_team(self, team: str) -> None:
        teams = self._snapshot().teams
        if team not in teams:
            hint = nearest(team, sorted(teams)) if teams else "the configuration has none"
            raise FieldInvalid(f"'team' must be a team of the configuration; {hint}", param="team")

    def _check_models(self, team: str, patterns: Iterable[str]) -> None:
        usable = [model.name for model in self._snapshot().models_of(self._snapshot().teams[team].caller)]
        for pattern in patterns:
            if not any(matches(name, (pattern,)) for name in usable):
                raise FieldInvalid(
                    f"'models': {pattern[:100]!r} matches no model that team {team} may use.", param="models"
                )

    def _check_limits(self, team: str, patterns: tuple[str, ...] | None, limits: Iterable[Limit]) -> None:
        """Check the key's limits: one that can bind nothing, or has nothing to count by, is an error, as in the
        configuration."""
        snapshot = self._snapshot()
        usable = [
            model
            for model in snapshot.models_of(snapshot.teams[team].caller)
            if patterns is None or matches(model.name, patterns)
        ]
        for limit in limits:
            counted = [model for model in usable if not limit.models or matches(model.name, limit.models)]
            if not counted:
                raise FieldInvalid(f"'limits': {limit.name} matches no model that the key may use.", param="limits")
            free = [model.name for model in counted if len(model.prices) < len(model.targets)]
            if limit.meter is Meter.USD and free:
                raise FieldInvalid(
                    f"'limits': {limit.name} counts models without a price: {', '.join(free[:5])}.", param="limits"
                )


def _id(digest: str) -> str:
    return digest[:KEY_ID_DIGITS]


def _busy(key_id: str) -> StoreUnavailable:
    return StoreUnavailable(f"The key {key_id} is being changed by others. Try again.", retry_after_ms=1000)


def _limit_of(query: Mapping[str, str]) -> int:
    given = query.get("limit", str(PAGE_DEFAULT))
    if not re.fullmatch("[0-9]{1,4}", given) or not 1 <= int(given) <= PAGE_MAX:
        raise FieldInvalid(f"'limit' must be a number from 1 to {PAGE_MAX}.", param="limit")
    return int(given)


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
