"""What a store of keys promises. Both backends run the suite in tests/contract/identity.

1. `write` writes all of its keys and the audit entry, or nothing: a key is written only over the revision that the
   writer has read.
2. After a `write`, `changes` reports its keys to every caller with an earlier position. A caller that cannot get all
   changes since its position gets a reset, and never too little.
3. A `subscribe`d function is usually called soon after a change. No caller may rely on it.
4. Times are the store's own.
5. Every method raises StoreUnavailable if the store does not answer in time.

Each caller names the part that it needs; both backends implement `KeyStore`, which is all of it.

A key is known by its id, the beginning of its SHA-256; the key itself is not kept anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.core.grants import Grant
from gateway.core.limits import Limit
from gateway.core.snapshot import Caller, ConfigSnapshot

AUDIT_ENTRIES = 10_000
"""The number of entries that are kept, the last ones."""

REVOKED_DAYS = 400
"""How long a revoked key is kept: as long as the ledger and the audit, which know it by its id."""

CHANGES_MAX = 1_000
"""A process that has missed more changes than this forgets all keys."""


class StoredKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as it is stored. Times are milliseconds since 1970; None: never.

    `limits` have no subject yet: it is `counted_as`, the id of the first key of a chain of rotations, so that
    counters go on when a key is rotated. `models` None: all of the team's. `networks` empty: everywhere."""

    id: str
    sha256: str
    name: str
    team: str
    created_ms: int
    counted_as: str
    revision: int = 1
    models: tuple[str, ...] | None = None
    limits: tuple[Limit, ...] = ()
    networks: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    expires_ms: int | None = None
    disabled: bool = False
    revoked_ms: int | None = None
    rotated_from: str = ""

    @property
    def place(self) -> str:
        """Its place in lists: in the order of creation."""
        return f"{self.created_ms:015d}:{self.id}"


class AuditEntry(msgspec.Struct, frozen=True):
    """Who did what to what, with the state before and after. The store sets `id` and `at_ms`."""

    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    id: str = ""
    at_ms: int = 0


NoteChange = Callable[[AuditEntry], None]
"""Gets each audit entry that was written, for the log."""


class StoredGrant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A temporary raise of a limit as operators know it; `limit` is as it was when it was granted. Times are
    milliseconds since 1970."""

    id: str
    limit: Limit
    amount: int
    created_ms: int
    until_ms: int
    reason: str
    actor: str

    @property
    def grant(self) -> Grant:
        return Grant(self.id, self.amount, self.until_ms)


class KeyPage(NamedTuple):
    """`next` is the cursor of the following page; empty for the last one."""

    keys: list[StoredKey]
    next: str


class AuditPage(NamedTuple):
    """The newest first."""

    entries: list[AuditEntry]
    next: str


class KeyChanges(NamedTuple):
    """The `ids` of the keys that have changed since a position; None if that is not known and any may have changed."""

    position: str
    ids: list[str] | None


class StoredKeys(Protocol):
    """Reads keys, and the time."""

    async def get(self, ids: Sequence[str]) -> list[StoredKey | None]:
        """The keys with these ids, by one call; None for an unknown id."""
        ...

    async def counted_as(self, key_id: str) -> list[StoredKey]:
        """The keys whose limits are counted under this id, in the order of creation: the key itself and those that
        took its place."""
        ...

    async def page(self, team: str, cursor: str, limit: int) -> KeyPage:
        """Keys of a team, or of all where it is empty, in the order of creation."""
        ...

    async def time_ms(self) -> int: ...


class FollowedKeys(StoredKeys, Protocol):
    """What a directory needs: keys, what changes of them, and where it notes their use."""

    async def changes(self, position: str) -> KeyChanges:
        """The changes since a position. An empty position is the beginning of a process, for which changes are
        unknown."""
        ...

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call this function after changes, until `close`."""
        ...

    async def touch(self, used: Mapping[str, int]) -> None:
        """Note when keys were last used, by their ids."""
        ...

    async def forget_revoked(self, before_ms: int, limit: int) -> int:
        """Remove at most this many keys that were revoked before this time. Returns their number."""
        ...


class AdministeredKeys(StoredKeys, Protocol):
    """What operators need: keys, their changes with the audit, and their use."""

    async def write(self, keys: Sequence[StoredKey], entry: AuditEntry) -> AuditEntry | None:
        """Write each key over its last revision (1 if it is new), or nothing and return None if one has another
        revision. Without keys it only adds to the audit. Returns the entry with its id and time."""
        ...

    async def last_used(self, ids: Sequence[str]) -> list[int | None]: ...

    async def audit(self, cursor: str, limit: int) -> AuditPage: ...


class GrantStore(StoredKeys, Protocol):
    """Grants as operators see them, beside the keys that some of them are for."""

    async def grants(self) -> list[StoredGrant]:
        """Every grant that was written and not removed, including those that have ended."""
        ...

    async def write_grant(
        self, grant: StoredGrant, entry: AuditEntry, ended: Sequence[str] = (), seen: Sequence[str] | None = None
    ) -> AuditEntry | None:
        """Write a grant and the audit entry, and remove the grants with these ids. `seen` are the ids of all grants
        that there may be before: if there are others, it writes nothing and returns None."""
        ...

    async def remove_grant(self, grant_id: str, entry: AuditEntry) -> AuditEntry | None:
        """Remove it and write the audit entry; None if it does not exist."""
        ...


class SessionStore(Protocol):
    """Browser sessions, by name."""

    async def keep_session(self, name: str, holder: str, life_ms: int) -> None:
        """Keep the holder of the browser session of this name, for this long."""
        ...

    async def session(self, name: str) -> str | None:
        """Its holder; None if it has ended."""
        ...

    async def end_session(self, name: str) -> None: ...


class KeyStore(FollowedKeys, AdministeredKeys, GrantStore, SessionStore, Protocol):
    """All of it, as each backend has it."""

    async def close(self) -> None: ...


class RaisedLimits(Protocol):
    """The counters that grants raise. Raises StoreUnavailable."""

    async def grant(self, limit: Limit, grant: Grant) -> None: ...

    async def withdraw(self, limit: Limit, grant: Grant) -> None: ...


class CallerDirectory(Protocol):
    """The stored keys as requests see them."""

    callers: dict[str, Caller]
    """The callers that this process has seen lately, by their SHA-256."""

    used: set[str]
    """Ids of keys that requests have used: the stage that accepts one adds it."""

    def is_unknown(self, digest: str) -> bool:
        """Whether the store has lately said that no key has this SHA-256, so that `find` gives None at once."""
        ...

    async def find(self, digest: str) -> Caller | None:
        """The caller with this SHA-256, from the store if it is not known; None if there is none. Raises
        StoreUnavailable."""
        ...

    async def counted_as(self, key_id: str) -> list[Caller]:
        """The stored keys whose limits are counted under this id and that are not revoked, the newest first. Raises
        StoreUnavailable."""
        ...

    async def with_stored_keys(self, team: str) -> ConfigSnapshot:
        """For reports: the configuration in force with the stored keys that have their own limits, of a team or of all.
        Raises StoreUnavailable."""
        ...
