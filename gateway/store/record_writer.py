"""Writes the records of requests that have no settlement: in batches, in the background.

Each second all that wait are written together, by one call for each team. While the store is out they wait in memory,
a bounded number of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from gateway.core.errors import StoreUnavailable
from gateway.core.request_record import KeptRecord
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CallRefused, RecordStore

WRITE_EVERY_S = 1.0


class RecordSource(Protocol):
    def take(self) -> list[KeptRecord]:
        """Those that wait."""
        ...

    def put_back(self, records: Sequence[KeptRecord]) -> None:
        """They could not be written now."""
        ...

    def drop(self, records: Sequence[KeptRecord]) -> None:
        """The store refuses them."""
        ...


class RecordWriter:
    """`start` once the event loop runs; `tasks` are closed with it."""

    def __init__(
        self, store: RecordStore, source: RecordSource, tasks: BackgroundTasks, write_every_s: float = WRITE_EVERY_S
    ) -> None:
        self._store = store
        self._source = source
        self._tasks = tasks
        self._write_every_s = write_every_s

    def start(self) -> None:
        self._tasks.keep_running("write request records", self._write_in_rounds)

    async def write(self) -> None:
        """Raises StoreUnavailable."""
        waiting = self._source.take()
        if not waiting:
            return
        try:
            await self._store.keep_records(waiting)
        except CallRefused:
            self._source.drop(waiting)  # They would be refused again.
            raise
        except StoreUnavailable:
            self._source.put_back(waiting)
            raise

    async def close(self) -> None:
        """Write once more, where the store answers."""
        await self._tasks.close()
        with suppress(StoreUnavailable):
            await self.write()

    async def _write_in_rounds(self) -> None:
        while True:
            await asyncio.sleep(self._write_every_s)
            with suppress(StoreUnavailable):
                await self.write()
