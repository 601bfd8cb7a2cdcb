"""The keepers that the suite runs over: a store, and a way to let its time pass."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import date, datetime
from struct import pack, unpack
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import pytest

from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import HOLD_STEPS, Store
from gateway.store.in_memory import InMemoryStore
from gateway.store.in_redis import RedisOptions, RedisStore
from gateway.store.in_redis.grants import HISTORY_UNIT
from tests.redis_servers import RedisServer

HOLD_TTL_MS = 600
"""The suite lets holds die young, since the time of some backends cannot be moved."""

LASTING_HOLDS_MS = 60_000
"""For tests that are not about the end of holds: the machine may be busy."""

STEP_MS = HOLD_TTL_MS // HOLD_STEPS

USERS_MAX = 3
"""The suite lets a day have few rows of users, since it would take long to fill it in earnest."""

UTC = ZoneInfo("UTC")
PATIENCE_S = 5.0
"""For a call to Redis in a test that is not about time: the machine may be busy."""


def sure_tasks() -> BackgroundTasks:
    """For loops that are not to fail."""
    return BackgroundTasks(_unexpected)


def _unexpected(doing: str, error: BaseException) -> None:
    pytest.fail(f"{doing}: {error!r}")


class Keeper(Protocol):
    store: Store

    async def pass_ms(self, duration_ms: int) -> None:
        """Return when so much of the store's time has passed."""
        ...

    def set_clock(self, by_ms: int) -> None:
        """Set the store's clock by so much, whole steps of holds."""
        ...

    def today(self) -> date:
        """By the store's clock, in UTC."""
        ...


class FalseClock:
    """A clock that stands still until it is moved; it starts at noon of 2026-11-05, UTC."""

    def __init__(self, now_ms: int = 1_793_880_000_000) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


class MemoryKeeper:
    def __init__(self, zone: ZoneInfo = UTC, hold_ttl_ms: int = HOLD_TTL_MS) -> None:
        self.clock = FalseClock()
        self.store: Store = InMemoryStore(self.clock, zone, hold_ttl_ms, USERS_MAX)

    async def pass_ms(self, duration_ms: int) -> None:
        self.clock.at_ms += duration_ms

    def set_clock(self, by_ms: int) -> None:
        self.clock.at_ms += by_ms

    def today(self) -> date:
        return datetime.fromtimestamp(self.clock.at_ms / 1000, tz=UTC).date()


class RedisKeeper:
    """Redis' time cannot be moved: it passes."""

    def __init__(
        self,
        url: str,
        servers: Sequence[RedisServer],
        process: str = "one",
        zone: ZoneInfo = UTC,
        hold_ttl_ms: int = HOLD_TTL_MS,
    ) -> None:
        self._servers = servers
        self.store: Store = RedisStore(redis_options(url, process, hold_ttl_ms=hold_ttl_ms), zone)

    async def pass_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000 + 0.002)

    def today(self) -> date:
        with contextlib.closing(self._servers[0].client()) as client:
            return datetime.fromtimestamp(client.time()[0], tz=UTC).date()

    def set_clock(self, by_ms: int) -> None:
        for server in self._servers:
            set_clock(server, by_ms, STEP_MS)


def set_clock(server: RedisServer, by_ms: int, step_ms: int) -> None:
    """What was written is moved the other way: that is the same to the scripts. `step_ms`: of holds."""
    with contextlib.closing(server.client()) as client:
        for key in client.scan_iter("*:c:*"):
            _move_counter(client, key, by_ms, step_ms)
        for key in client.scan_iter("*:r:*"):
            _move_record(client, key, by_ms, step_ms)


def _move_counter(client: Any, key: bytes, by_ms: int, step_ms: int) -> None:
    value = client.get(key)
    used, scale, stamp_ms, expiry_ms, *holds = unpack(f"<{len(value) // 8}d", value)
    if holds:
        holds[0] -= by_ms // step_ms
    for place in range(HOLD_STEPS + 6, len(holds), 4):
        # The end of a grant.
        holds[place + 2] -= by_ms * HISTORY_UNIT
    moved = (used, scale, stamp_ms - by_ms, expiry_ms - by_ms, *holds)
    client.set(key, pack(f"<{len(moved)}d", *moved), keepttl=True)


def _move_record(client: Any, key: bytes, by_ms: int, step_ms: int) -> None:
    for name, record in client.hgetall(key).items():
        last, _, rest = record.partition(b" ")
        if rest:
            client.hset(key, name, b"%d %s" % (int(last) - by_ms // step_ms, rest))


def redis_options(
    url: str, process: str = "one", timeout_s: float = PATIENCE_S, hold_ttl_ms: int = HOLD_TTL_MS
) -> RedisOptions:
    return RedisOptions(url, process, timeout_s=timeout_s, hold_ttl_ms=hold_ttl_ms, users_max=USERS_MAX)
