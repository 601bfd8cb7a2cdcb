"""Shares what this process learns about requests with other processes, and with those that start later.

At its start a process reads what all have shared; every minute it writes what it has learned since. No request waits
for either. While the store is out, nothing is learned from other processes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import Estimates
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CallRefused, SharedEstimates

SHARE_EVERY_S = 60.0
READ_EVERY_ROUNDS = 10

RETRY_EVERY_S = 5.0
"""The pause while the store is out and nothing was read yet."""


class EstimateSharing:
    """`start` once the event loop runs; `tasks` are closed with it."""

    def __init__(
        self,
        store: SharedEstimates,
        estimates: Estimates,
        tasks: BackgroundTasks,
        share_every_s: float = SHARE_EVERY_S,
        retry_every_s: float = RETRY_EVERY_S,
    ) -> None:
        self._store = store
        self._estimates = estimates
        self._tasks = tasks
        self._share_every_s = share_every_s
        self._retry_every_s = retry_every_s

    def start(self) -> None:
        self._tasks.keep_running("share estimates", self._share_in_rounds)

    async def read(self) -> None:
        """Begin with what others have learned. Raises StoreUnavailable."""
        self._estimates.begin_with(await self._store.shared_estimates())

    async def share(self) -> None:
        """Write what has been learned. Raises StoreUnavailable."""
        learned = self._estimates.to_share()
        if learned:
            await self._store.share_estimates(learned)
            self._estimates.shared(learned)

    async def close(self) -> None:
        """Share once more, if the store answers."""
        await self._tasks.close()
        with suppress(StoreUnavailable):
            await self.share()

    async def _share_in_rounds(self) -> None:
        while True:
            rounds = READ_EVERY_ROUNDS if await self._try_to_read() else 0
            await asyncio.sleep(0 if rounds else self._retry_every_s)
            for _ in range(rounds):
                await asyncio.sleep(self._share_every_s)
                with suppress(StoreUnavailable):
                    await self.share()

    async def _try_to_read(self) -> bool:
        """False if it has to be tried again soon."""
        try:
            await self.read()
        except CallRefused:
            return True
        except StoreUnavailable:
            return False
        return True
