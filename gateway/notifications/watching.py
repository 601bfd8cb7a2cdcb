"""Notifies of what a process notices by itself: upstreams, the store, keys that expire, refused configurations.

Processes share flags in the store, so that one of them notifies for all. The flag of a lasting condition expires two
minutes after the last process that saw it has died; the end of that condition is then not notified of.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from gateway.core.calendar import DAY_MS
from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.health import UpstreamStatus
from gateway.core.notifications import EventType
from gateway.core.snapshot import ConfigSnapshot
from gateway.core.time_format import rfc3339
from gateway.identity.contract import StoredKeys
from gateway.notifications.delivery import NotificationDelivery

EXPIRES_SOON_MS = 7 * DAY_MS
LASTING_MS = 120_000
"""How long a flag lasts unless it is raised again."""

_AGAIN_S = 30.0
_SCAN_EVERY_S = 3_600.0
_SCAN_MS = 3_300_000
_CONFIGURATION_MS = 3_600_000
_STORE_BACK_MS = 60_000
_PAGE = 500

LOOK_EVERY_S = 5.0
DOWN_FOR_S = 10.0
UP_FOR_S = 30.0
"""For how long an upstream must be down, or up again, before a notification; the store, to be down."""


class WatchedParts(NamedTuple):
    """What is watched. `store_trouble` is None while the store answers."""

    upstreams: Callable[[], Sequence[UpstreamStatus]]
    store_trouble: Callable[[], str | None]
    keys: StoredKeys
    serving: Callable[[], ConfigSnapshot]


class Speaker(NamedTuple):
    """The gateway that a process notifies for of the store's outage."""

    gateway: str
    on_outage: str


class NotificationWatch:
    """`speaks`: whether this process notifies of the store's outage, about which no flag can be shared: one of each
    gateway does."""

    speaks = True

    def __init__(self, delivery: NotificationDelivery, watched: WatchedParts, speaker: Speaker, clock: Clock) -> None:
        self._delivery = delivery
        self._watched = watched
        self._speaker = speaker
        self._clock = clock
        self._upstreams: dict[str, _Lasting] = {}
        self._store = _Lasting()

    async def follow_health(self) -> None:
        """Notify of upstreams and of the store, for as long as this is awaited."""
        while True:
            if self._delivery.channels:
                await self._look_at_store()
                with suppress(StoreUnavailable):
                    await self._look_at_upstreams()
            await asyncio.sleep(LOOK_EVERY_S)

    async def follow_keys(self) -> None:
        """Notify of keys that expire within a week, once each, for as long as this is awaited."""
        while True:
            if self._delivery.channels:
                with suppress(StoreUnavailable):
                    await self.look_at_keys()
            await asyncio.sleep(_SCAN_EVERY_S)

    async def configuration_refused(self, problems: Sequence[str]) -> None:
        """Every process reads the same file: one of them notifies. Raises StoreUnavailable."""
        digest = hashlib.sha256("\n".join(problems).encode()).hexdigest()
        data = {"problems": list(problems)}
        flag = f"configuration {digest}"
        await self._delivery.post(EventType.CONFIGURATION_REFUSED, data, flag, _CONFIGURATION_MS)

    async def look_at_keys(self) -> None:
        """Raises StoreUnavailable."""
        if not await self._delivery.is_first("keys", _SCAN_MS):
            return
        now_ms = self._clock.now_ms()
        async for key in self._keys():
            if now_ms < key.expires_ms <= now_ms + EXPIRES_SOON_MS:
                terms = self._watched.serving().teams.get(key.team)
                data = {"key": key.id, "name": key.name, "team": key.team, "expires_at": rfc3339(key.expires_ms)}
                data["owner"] = terms.owner if terms is not None else ""
                flag = f"key {key.id} {key.expires_ms}"
                await self._delivery.post(EventType.KEY_EXPIRING, data, flag, EXPIRES_SOON_MS + DAY_MS, key.team)

    async def _keys(self) -> AsyncIterator[_ExpiringKey]:
        for caller in list(self._watched.serving().callers.values()):
            if caller.expires_ms is not None and not caller.disabled:
                yield _ExpiringKey(caller.key_id, caller.key_name, caller.team, caller.expires_ms)
        cursor = ""
        while True:
            page = await self._watched.keys.page("", cursor, _PAGE)
            for key in page.keys:
                if key.expires_ms is not None and key.revoked_ms is None and not key.disabled:
                    yield _ExpiringKey(key.id, key.name, key.team, key.expires_ms)
            cursor = page.next
            if not cursor:
                return
            await asyncio.sleep(0)  # The store may answer at once.

    async def _look_at_upstreams(self) -> None:
        """Raises StoreUnavailable."""
        now = self._clock.monotonic()
        seen = self._watched.upstreams()
        self._upstreams = {each.name: self._upstreams.get(each.name) or _Lasting() for each in seen}
        for each in seen:
            lasting, flag, data = self._upstreams[each.name], f"upstream {each.name}", {"upstream": each.name}
            lasting.look(now, bad=not each.up)
            if lasting.is_due(now, DOWN_FOR_S, again_s=_AGAIN_S):
                await self._delivery.post(EventType.UPSTREAM_DOWN, data, flag, LASTING_MS)
                lasting.notified_at = now
            elif lasting.is_over(now, UP_FOR_S):
                await self._delivery.clear(EventType.UPSTREAM_UP, data, flag)
                lasting.notified_at = None

    async def _look_at_store(self) -> None:
        now, trouble, store = self._clock.monotonic(), self._watched.store_trouble(), self._store
        store.look(now, bad=trouble is not None)
        if trouble is not None and store.notified_at is None and store.is_due(now, DOWN_FOR_S):
            store.notified_at = now
            if self.speaks:
                about = {"gateway": self._speaker.gateway, "reason": trouble, "on_outage": self._speaker.on_outage}
                await self._delivery.send_now(EventType.STORE_UNAVAILABLE, about)
        elif store.is_over(now, LOOK_EVERY_S):
            with suppress(StoreUnavailable):
                await self._delivery.post(EventType.STORE_AVAILABLE, {}, "store back", _STORE_BACK_MS)
                store.notified_at = None


class _ExpiringKey(NamedTuple):
    id: str
    name: str
    team: str
    expires_ms: int


class _Lasting:
    """Since when a condition is bad or good, and when it was last notified of; monotonic seconds."""

    __slots__ = ("bad", "notified_at", "since")

    def __init__(self) -> None:
        self.bad = False
        self.since = 0.0
        self.notified_at: float | None = None

    def look(self, now: float, *, bad: bool) -> None:
        if bad != self.bad:
            self.bad, self.since = bad, now

    def is_due(self, now: float, after_s: float, again_s: float = 0.0) -> bool:
        """Whether it has been bad for this long, and was not notified of lately."""
        if not self.bad or now - self.since < after_s:
            return False
        return self.notified_at is None or now - self.notified_at >= again_s

    def is_over(self, now: float, after_s: float) -> bool:
        """Whether it was notified of, and has been good for this long."""
        return self.notified_at is not None and not self.bad and now - self.since >= after_s
