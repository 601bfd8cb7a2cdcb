"""The keepers that the suite runs over: a store, and a way to let its time pass."""

from __future__ import annotations

import asyncio
from typing import Protocol
from zoneinfo import ZoneInfo

from gateway.store.contract import Store
from gateway.store.in_memory import InMemoryStore
from gateway.store.in_redis import RedisOptions, RedisStore

HOLD_TTL_MS = 600
"""The suite lets holds die young, since some keepers' time cannot be hurried."""

UTC = ZoneInfo("UTC")
PATIENCE_S = 5.0
"""For a call to Redis in a test that is not about time: the machine may be busy."""


class Keeper(Protocol):
    store: Store

    async def pass_ms(self, duration_ms: int) -> None:
        """Return when so much of the store's time has passed."""
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
    def __init__(self, zone: ZoneInfo = UTC) -> None:
        self.clock = FalseClock()
        self.store: Store = InMemoryStore(self.clock, zone, HOLD_TTL_MS)

    async def pass_ms(self, duration_ms: int) -> None:
        self.clock.at_ms += duration_ms


class RedisKeeper:
    """Redis' time cannot be moved: it passes."""

    def __init__(self, url: str, process: str = "one", zone: ZoneInfo = UTC) -> None:
        self.store: Store = RedisStore(redis_options(url, process), zone)

    async def pass_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000 + 0.002)


def redis_options(url: str, process: str = "one", timeout_s: float = PATIENCE_S) -> RedisOptions:
    return RedisOptions(url=url, process=process, timeout_s=timeout_s, hold_ttl_ms=HOLD_TTL_MS)
