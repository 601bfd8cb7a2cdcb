"""The keepers that the suite runs over: a store, and a way to let its time pass."""

from __future__ import annotations

from typing import Protocol
from zoneinfo import ZoneInfo

from gateway.store.contract import Store
from gateway.store.in_memory import InMemoryStore

HOLD_TTL_MS = 600
"""The suite lets holds die young, since some keepers' time cannot be hurried."""


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
    def __init__(self, zone: ZoneInfo) -> None:
        self.clock = FalseClock()
        self.store: Store = InMemoryStore(self.clock, zone, HOLD_TTL_MS)

    async def pass_ms(self, duration_ms: int) -> None:
        self.clock.at_ms += duration_ms
