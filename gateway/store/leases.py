"""Keeps the holds of this process alive for as long as their requests run: one call for all that are due."""

from __future__ import annotations

import asyncio

from gateway.core.errors import StoreUnavailable
from gateway.core.reservation import AdmissionRequest, Refusal, Reservation, Settlement
from gateway.store.contract import HOLD_STEPS, HOLD_TTL_MS, Store
from gateway.store.wrapper import StoreWrapper


class LeaseRenewer(StoreWrapper[Store]):
    """The same store, whose reservations last until they are settled. `start` once the event loop runs."""

    def __init__(self, store: Store, hold_ttl_ms: int = HOLD_TTL_MS) -> None:
        super().__init__(store)
        # A hold that is renewed when it is two steps old misses two rounds before it is lost.
        self._round_s = hold_ttl_ms / HOLD_STEPS / 1000
        self._fresh: set[str] = set()
        self._held: set[str] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def admit(self, request: AdmissionRequest) -> Reservation | Refusal:
        verdict = await self._store.admit(request)
        if isinstance(verdict, Reservation):
            self._fresh.add(request.id)
        return verdict

    async def settle(self, settlement: Settlement) -> None:
        self._fresh.discard(settlement.id)
        self._held.discard(settlement.id)
        await self._store.settle(settlement)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await super().close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._round_s)
            # What was made since the last round is not old yet: most of it will have ended by the next.
            due = list(self._held)
            self._held |= self._fresh
            self._fresh = set()
            try:
                await self._store.renew(due)
            except StoreUnavailable:
                continue
