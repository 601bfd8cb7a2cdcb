"""Gives the store what this process counts of losses: each minute, in the background.

While the store is out it waits in the process, which is when most of it is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.losses import LossSlot
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import LossStore

WRITE_EVERY_S = 60.0


class LossSource(Protocol):
    def sample(self) -> None:
        """Count what has been lost since the last call."""
        ...

    @property
    def unsaved(self) -> list[LossSlot]: ...

    def saved(self, slots: Sequence[LossSlot]) -> None:
        """The store has these."""
        ...


class LossWriter:
    """`start` once the event loop runs; `tasks` are closed with it."""

    def __init__(
        self,
        store: LossStore,
        source: LossSource,
        clock: Clock,
        tasks: BackgroundTasks,
        write_every_s: float = WRITE_EVERY_S,
    ) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self._tasks = tasks
        self._write_every_s = write_every_s

    def start(self) -> None:
        self._tasks.keep_running("write losses", self._write_in_rounds)

    async def write(self) -> None:
        """Raises StoreUnavailable."""
        self._source.sample()
        unsaved = self._source.unsaved
        await self._store.add_losses(self._clock.now_ms(), unsaved)
        self._source.saved(unsaved)

    async def close(self) -> None:
        """Write once more, where the store answers."""
        await self._tasks.close()
        with suppress(StoreUnavailable):
            await self.write()

    async def _write_in_rounds(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                await self.write()
            await asyncio.sleep(self._write_every_s)
