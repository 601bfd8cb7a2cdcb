"""Renews the holds of this process for as long as their requests run.

In each round, a sixth of the time for which a hold lasts, every reservation is renewed that was open when the round
began and still is. The renewals are spread over the round in chunks, so that many long streams are no burst of work,
for the store or for the event loop.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import HOLD_STEPS, HOLD_TTL_MS, Counters

RENEWED_AT_ONCE = 50
"""Reservations in one call."""


class LeaseRenewer:
    """Lets the reservations of a store last until they are settled. `start` once the event loop runs; `tasks` are
    closed with it."""

    def __init__(self, store: Counters, tasks: BackgroundTasks, hold_ttl_ms: int = HOLD_TTL_MS) -> None:
        self._store = store
        self._tasks = tasks
        self._round_s = hold_ttl_ms / HOLD_STEPS / 1000

    def start(self) -> None:
        self._tasks.keep_running("lease renewals", self._renew_in_rounds)

    async def close(self) -> None:
        await self._tasks.close()

    async def _renew_in_rounds(self) -> None:
        while True:
            due = list(self._store.open_ids)
            chunks = [due[at : at + RENEWED_AT_ONCE] for at in range(0, len(due), RENEWED_AT_ONCE)] or [[]]
            began = asyncio.get_running_loop().time()
            for number, chunk in enumerate(chunks, 1):
                at = began + self._round_s * number / len(chunks)
                await asyncio.sleep(max(0, at - asyncio.get_running_loop().time()))
                # A chunk that fails is renewed in the next round: holds last for six.
                with suppress(StoreUnavailable):
                    open_ids = self._store.open_ids
                    await self._store.renew([name for name in chunk if name in open_ids])
