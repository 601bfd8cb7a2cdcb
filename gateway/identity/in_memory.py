"""Keys in the memory of one process: for the demo, for tests, and for `memory://`."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.core.clock import Clock
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


class InMemoryKeyStore:
    """A position is the number of changes so far."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[str, StoredKey] = {}
        self._order: list[tuple[str, str]] = []
        """Place and team, sorted."""
        self._chains: dict[str, list[str]] = {}
        """The ids of the keys whose limits are counted under an id."""
        self._used: dict[str, int] = {}
        self._grants: dict[str, StoredGrant] = {}
        self._audit: deque[AuditEntry] = deque(maxlen=AUDIT_ENTRIES)
        self._changed: deque[str] = deque(maxlen=CHANGES_MAX)
        self._changes = 0
        self._entries = 0
        self._subscribers: list[Callable[[], None]] = []
        self._sessions: dict[str, tuple[str, int]] = {}
        """Holder and end."""

    async def get(self, ids: Sequence[str]) -> list[StoredKey | None]:
        return [self._keys.get(key_id) for key_id in ids]

    async def counted_as(self, key_id: str) -> list[StoredKey]:
        return sorted([self._keys[each] for each in self._chains.get(key_id, ())], key=lambda key: key.place)

    async def page(self, team: str, cursor: str, limit: int) -> KeyPage:
        found: list[StoredKey] = []
        for at in range(bisect_right(self._order, (cursor, "\U0010ffff")), len(self._order)):
            place, of_team = self._order[at]
            if team in ("", of_team):
                if len(found) == limit:
                    return KeyPage(found, found[-1].place)
                found.append(self._keys[place.partition(":")[2]])
        return KeyPage(found, "")

    async def write(self, keys: Sequence[StoredKey], entry: AuditEntry) -> AuditEntry | None:
        if any(self._revision(key.id) != key.revision - 1 for key in keys):
            return None
        for key in keys:
            if key.id not in self._keys:
                insort(self._order, (key.place, key.team))
                self._chains.setdefault(key.counted_as, []).append(key.id)
            self._keys[key.id] = key
            self._changed.append(key.id)
        self._changes += len(keys)
        written = self._note(entry)
        for notify in self._subscribers if keys else ():
            notify()
        return written

    async def forget_revoked(self, before_ms: int, limit: int) -> int:
        revoked = [key for key in self._keys.values() if key.revoked_ms is not None and key.revoked_ms < before_ms]
        for key in revoked[:limit]:
            del self._keys[key.id]
            self._order.remove((key.place, key.team))
            self._chains[key.counted_as].remove(key.id)
            if not self._chains[key.counted_as]:
                del self._chains[key.counted_as]
            self._used.pop(key.id, None)
        return len(revoked[:limit])

    async def grants(self) -> list[StoredGrant]:
        return list(self._grants.values())

    async def write_grant(
        self, grant: StoredGrant, entry: AuditEntry, ended: Sequence[str] = (), seen: Sequence[str] | None = None
    ) -> AuditEntry | None:
        if seen is not None and self._grants.keys() != set(seen):
            return None
        for grant_id in ended:
            self._grants.pop(grant_id, None)
        self._grants[grant.id] = grant
        return self._note(entry)

    async def remove_grant(self, grant_id: str, entry: AuditEntry) -> AuditEntry | None:
        return self._note(entry) if self._grants.pop(grant_id, None) else None

    async def changes(self, position: str) -> KeyChanges:
        now = str(self._changes)
        missed = self._changes - int(position) if position.isdecimal() else -1
        if not 0 <= missed <= len(self._changed):
            return KeyChanges(now, None)
        return KeyChanges(now, list(self._changed)[len(self._changed) - missed :])

    async def touch(self, used: Mapping[str, int]) -> None:
        self._used.update(used)

    async def last_used(self, ids: Sequence[str]) -> list[int | None]:
        return [self._used.get(key_id) for key_id in ids]

    async def audit(self, cursor: str, limit: int) -> AuditPage:
        # A cursor of Redis has a second number, which counts what is written in one millisecond.
        last = int(cursor.partition("-")[0]) if cursor else self._entries
        newest_first = [entry for entry in reversed(self._audit) if int(entry.id) <= last]
        rest = newest_first[limit:]
        return AuditPage(newest_first[:limit], rest[0].id if rest else "")

    async def keep_session(self, name: str, holder: str, life_ms: int) -> None:
        now_ms = self._clock.now_ms()
        self._sessions = {other: kept for other, kept in self._sessions.items() if kept[1] > now_ms}
        self._sessions[name] = holder, now_ms + life_ms

    async def session(self, name: str) -> str | None:
        holder, end_ms = self._sessions.get(name, ("", 0))
        return holder if self._clock.now_ms() < end_ms else None

    async def end_session(self, name: str) -> None:
        self._sessions.pop(name, None)

    async def time_ms(self) -> int:
        return self._clock.now_ms()

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._subscribers.append(notify)

    async def close(self) -> None:
        self._subscribers.clear()

    def _note(self, entry: AuditEntry) -> AuditEntry:
        self._entries += 1
        written = msgspec.structs.replace(entry, id=str(self._entries), at_ms=self._clock.now_ms())
        self._audit.append(written)
        return written

    def _revision(self, key_id: str) -> int:
        known = self._keys.get(key_id)
        return known.revision if known is not None else 0
