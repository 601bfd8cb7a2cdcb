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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.errors import FieldInvalid, StoreUnavailable, UrlUnknown
from gateway.core.json_object import JsonObject
from gateway.core.key_ids import KEY_ID
from gateway.core.parameters import refuse_unknown
from gateway.core.snapshot import ConfigSnapshot
from gateway.identity.contract import AdministeredKeys, AuditEntry, NoteChange, StoredKey
from gateway.identity.directory import configured_key
from gateway.identity.key_listing import KeyListing, KeysUsedSince
from gateway.identity.key_objects import (
    config_key_object,
    stored_key_object,
)
from gateway.identity.requests import (
    AdministrationRequest,
    json_object,
    nothing_at,
    of_method,
    written_in,
)
from gateway.identity.written_keys import WrittenKeys
from gateway.runtime.slices import in_slices
from gateway.settings.stored_keys import (
    KeyChangeSettings,
    NewKeySettings,
    RotationSettings,
)

IMPORTED_MAX = 200
"""Keys of one import, which are written in one step."""

_ATTEMPTS = 8
_CLASHES_AT_ONCE = 200
_IMPORTED_AT_ONCE = 1
"""The models and limits of a key are checked against all models of its team, which takes milliseconds if it has 500."""


def new_key() -> str:
    """A key as the gateway makes them: `gw_` and 32 random bytes in base64url."""
    return "gw_" + secrets.token_urlsafe(32)


class KeyAdministration:
    """`snapshot` gives the configuration in force, `zone` is where its days begin."""

    def __init__(
        self,
        store: AdministeredKeys,
        snapshot: Callable[[], ConfigSnapshot],
        zone: ZoneInfo,
        note_change: NoteChange,
        used_since: KeysUsedSince,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._note_change = note_change
        self._written_keys = WrittenKeys(snapshot, zone)
        listing = KeyListing(store, snapshot, zone, used_since)
        self.collections: Mapping[str, Mapping[str, Callable[[AdministrationRequest], Awaitable[JsonObject]]]] = {
            "keys": {"GET": listing.keys, "POST": self._create},
            "keys/export": {"GET": listing.export},
            "keys/import": {"POST": self._import},
            "audit": {"GET": listing.audit},
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

    async def _show(self, request: AdministrationRequest, key_id: str) -> JsonObject:
        refuse_unknown(request.query, ())
        now_ms = await self._store.time_ms()
        caller = configured_key(self._snapshot(), key_id)
        if caller is not None:
            return config_key_object(caller, now_ms)
        return await self._object(await self._stored(key_id), now_ms)

    async def _create(self, request: AdministrationRequest) -> JsonObject:
        written = written_in(NewKeySettings, request)
        now_ms = await self._store.time_ms()
        secret = new_key()
        key = self._written_keys.created(written, _digest(secret), now_ms)
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
            return self._written_keys.applied(key, written, set(body), now_ms)

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
            secret = new_key()
            ended, new = self._written_keys.rotated(old, written, _digest(secret), now_ms)
            before, after = await self._object(old, now_ms), await self._object(new, now_ms)
            entry = AuditEntry(request.actor, "key.rotate", old.id, before, after)
            if await self._write((ended, new), entry):
                return after | {"key": secret}
        raise _busy(key_id)

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
            key = self._written_keys.imported(item, f"keys[{place}]", now_ms)
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
        found = await self._store.get([key_id]) if re.fullmatch(KEY_ID, key_id) else [None]
        if found[0] is None:
            raise UrlUnknown(f"There is no key with the id {key_id[:64]!r}.")
        return found[0]

    async def _changeable(self, key_id: str) -> StoredKey:
        if configured_key(self._snapshot(), key_id) is not None:
            raise FieldInvalid(f"The key {key_id} is in the configuration: change it there, and reload.", param="id")
        key = await self._stored(key_id)
        if key.revoked_ms is not None:
            raise FieldInvalid(f"The key {key_id} is revoked permanently. Create another one.", param="id")
        return key

    async def _object(self, key: StoredKey, now_ms: int) -> JsonObject:
        [used_ms] = await self._store.last_used([key.id])
        return stored_key_object(key, self._snapshot(), now_ms, used_ms)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _busy(key_id: str) -> StoreUnavailable:
    return StoreUnavailable(f"The key {key_id} is being changed by others. Try again.", retry_after_ms=1000)
