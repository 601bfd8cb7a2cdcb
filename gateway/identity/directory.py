"""The stored keys that one process knows: those that requests have used lately, and hashes that are not a key.

    a request → `callers`, a plain dictionary → known: no call, no task
                     ↓ not there
                `find` → the store, by one call → kept, as a key or as an unknown hash

Nothing is kept beyond its next change. The store numbers changes, and a directory follows them by its position: each
POLL_S, and at once when a message of the store announces one. So a lost message delays a revocation by at most POLL_S.
A key that changes while it is looked up is not kept. If the store cannot say what has changed (it was restored, or a
failover lost the last changes), everything is forgotten.

While the store does not answer, the known keys stay valid: `store.on_outage` decides what happens to requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.errors import StoreUnavailable
from gateway.core.key_ids import key_id_of
from gateway.core.limits import Scope
from gateway.core.snapshot import Caller, ConfigSnapshot, KeyTerms
from gateway.identity.contract import REVOKED_DAYS, FollowedKeys, StoredKey, StoredKeys
from gateway.runtime.release import release_in_parts
from gateway.runtime.tasks import BackgroundTasks

POLL_S = 0.4
"""Between two polls for changes: a revoked key stops within a second, even if a message is lost."""

FLUSH_S = 60.0
"""Between two notes of when keys were last used: at most one write per minute and key."""

FORGET_S = 3_600.0
"""Between two removals of keys that were revoked long ago."""

KNOWN_MAX = 10_000
UNKNOWN_MAX = 10_000
"""The number of keys, and of unknown hashes, that are kept; the oldest are dropped, and looked up again when they are
needed."""

LOOKUPS_MAX = 256
"""Concurrent look-ups. A client that sends unknown hashes must not fill the memory with them."""

LISTED_MAX = 10_000
"""Keys of the store in one report."""

_PAGE = 100


class _Lookup:
    """A look-up that several requests may wait for. `stale`: the key has changed meanwhile."""

    def __init__(self) -> None:
        self.stale = False
        self.answer: asyncio.Task[StoredKey | StoreUnavailable | None] | None = None


class KeyDirectory:
    """Implements `contract.CallerDirectory`. `callers` are those of the snapshot in force."""

    def __init__(
        self, store: FollowedKeys, snapshot: ConfigSnapshot, now_ms: Callable[[], int], tasks: BackgroundTasks
    ) -> None:
        self.callers: dict[str, Caller] = {}
        self.used: set[str] = set()
        self._store = store
        self._snapshot = snapshot
        self._now_ms = now_ms
        self._tasks = tasks
        self._keys: dict[str, StoredKey] = {}
        """By id, including those that have no caller under this snapshot yet."""
        self._unknown: dict[str, str] = {}
        """Hashes that are not a key, by the id that the key would have."""
        self._lookups: dict[str, _Lookup] = {}
        self._position = ""
        self._changed = asyncio.Event()

    def start(self) -> None:
        self._store.subscribe(self._changed.set)
        self._tasks.keep_running("follow changes of keys", self._follow)
        self._tasks.keep_running("note the use of keys", self._note_use)
        self._tasks.keep_running("forget keys that were revoked long ago", self._forget_revoked)

    async def close(self) -> None:
        await self._tasks.close()
        with suppress(StoreUnavailable):
            await self.flush()

    def keep(self, snapshot: ConfigSnapshot) -> None:
        """Another configuration is in force: teams may have other limits, or may be removed."""
        self._snapshot = snapshot
        self._forget_callers()

    def is_unknown(self, digest: str) -> bool:
        return self._unknown.get(key_id_of(digest)) == digest

    async def find(self, digest: str) -> Caller | None:
        key_id = key_id_of(digest)
        key = self._keys.get(key_id)
        if key is None and self._unknown.get(key_id) != digest:
            key = await self._look_up(key_id, digest)
        if key is None or key.sha256 != digest:
            return None
        caller = caller_of(key, self._snapshot)
        if caller is not None and self._keys.get(key_id) is key:
            self.callers[digest] = caller
        return caller

    async def counted_as(self, key_id: str) -> list[Caller]:
        keys = await self._store.counted_as(key_id)
        callers = [caller_of(key, self._snapshot) for key in reversed(keys) if key.revoked_ms is None]
        return [caller for caller in callers if caller is not None]

    async def with_stored_keys(self, team: str) -> ConfigSnapshot:
        return await with_stored_keys(self._snapshot, self._store, team)

    async def catch_up(self) -> None:
        """Forget what has changed since the last time. Raises StoreUnavailable."""
        changes = await self._store.changes(self._position)
        self._position = changes.position
        if changes.ids is None:
            self._forget_all()
        else:
            for key_id in changes.ids:
                self._forget(key_id)

    async def flush(self) -> None:
        """Note the use of the keys that were used since the last time. Raises StoreUnavailable."""
        used = self.used.copy()
        if used:
            await self._store.touch(dict.fromkeys(used, self._now_ms()))
            self.used -= used

    async def forget_revoked(self) -> None:
        """Remove some of the keys that were revoked REVOKED_DAYS ago, the next time more. Raises StoreUnavailable."""
        before_ms = await self._store.time_ms() - REVOKED_DAYS * DAY_MS
        await self._store.forget_revoked(before_ms, _PAGE)

    async def _look_up(self, key_id: str, digest: str) -> StoredKey | None:
        """Raises StoreUnavailable."""
        lookup = self._lookups.get(key_id)
        if lookup is None:
            if len(self._lookups) >= LOOKUPS_MAX:
                raise StoreUnavailable("Too many unknown keys are being looked up. Try again.", retry_after_ms=1000)
            lookup = self._lookups[key_id] = _Lookup()
            # A task of the process: one request that is cancelled leaves the others their answer.
            lookup.answer = self._tasks.start("look a key up", self._ask(lookup, key_id, digest))
        assert lookup.answer is not None, "it is asked when it is made"
        found = await asyncio.shield(lookup.answer)
        if isinstance(found, StoreUnavailable):
            raise StoreUnavailable(found.message, retry_after_ms=found.retry_after_ms)
        return found

    async def _ask(self, lookup: _Lookup, key_id: str, digest: str) -> StoredKey | StoreUnavailable | None:
        """Keeps the result before any other task runs, so that no change comes between the answer and that."""
        try:
            [key] = await self._store.get([key_id])
        except StoreUnavailable as error:
            return error
        finally:
            del self._lookups[key_id]
        if key is not None and key.revoked_ms is not None:
            key = None
        if not lookup.stale and key is not None and key.sha256 == digest:
            self._keys[key_id] = key
            if len(self._keys) > KNOWN_MAX:
                self._forget(next(iter(self._keys)))
        elif not lookup.stale:
            self._unknown[key_id] = digest
            if len(self._unknown) > UNKNOWN_MAX:
                del self._unknown[next(iter(self._unknown))]
        return key

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            with suppress(StoreUnavailable):
                await self.catch_up()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()

    async def _note_use(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            with suppress(StoreUnavailable):
                await self.flush()

    async def _forget_revoked(self) -> None:
        while True:
            await asyncio.sleep(FORGET_S)
            with suppress(StoreUnavailable):
                await self.forget_revoked()

    def _forget(self, key_id: str) -> None:
        self._unknown.pop(key_id, None)
        if lookup := self._lookups.get(key_id):
            lookup.stale = True
        if key := self._keys.pop(key_id, None):
            self.callers.pop(key.sha256, None)

    def _forget_all(self) -> None:
        for lookup in self._lookups.values():
            lookup.stale = True
        self._keys.clear()
        self._unknown.clear()
        self._forget_callers()

    def _forget_callers(self) -> None:
        forgotten, self.callers = self.callers, {}
        if forgotten:
            self._tasks.start("release callers", release_in_parts(forgotten))


def caller_of(key: StoredKey, snapshot: ConfigSnapshot) -> Caller | None:
    """None if the configuration does not have its team any more."""
    team = snapshot.teams.get(key.team)
    if team is None:
        return None
    return team.caller_of(
        KeyTerms(
            key_id=key.id,
            name=key.name,
            subject=key.counted_as,
            models=key.models,
            limits=key.limits,
            networks=tuple(ip_network(network) for network in key.networks),
            expires_ms=key.expires_ms,
            disabled=key.disabled,
        )
    )


def configured_key(snapshot: ConfigSnapshot, key_id: str) -> Caller | None:
    """The key of the configuration with this id."""
    return next((caller for caller in snapshot.callers.values() if caller.key_id == key_id), None)


async def with_stored_keys(snapshot: ConfigSnapshot, store: StoredKeys, team: str) -> ConfigSnapshot:
    """For reports: the configuration with the first LISTED_MAX keys of a team, or of all, that are not revoked and have
    their own limits. Raises StoreUnavailable."""
    found: dict[str, Caller] = {}
    cursor = ""
    while len(found) < LISTED_MAX:
        page = await store.page(team, cursor, _PAGE)
        for key in page.keys:
            caller = caller_of(key, snapshot) if key.revoked_ms is None else None
            if caller is not None and any(limit.scope is Scope.KEY for limit in caller.limits):
                found[key.sha256] = caller
        cursor = page.next
        if not cursor:
            break
        await asyncio.sleep(0)
    return msgspec.structs.replace(snapshot, callers=snapshot.callers | found)
