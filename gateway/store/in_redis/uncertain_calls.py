"""Calls that may have been carried out although their answer was lost, until they are undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks


class UncertainCalls:
    """Undoes what may have been carried out though this process did not hear of it, or could not be given back.

    Nothing is undone before the call can no longer be carried out late. What fails is tried again until it is done."""

    PAUSE_S = 1.0
    MOST = 4_096
    """Beyond so many, what was carried out unheard stays: holds end by themselves."""

    _AT_ONCE = 64

    def __init__(self, tasks: BackgroundTasks, slack_s: float) -> None:
        self._tasks = tasks
        self._slack_s = slack_s
        self._waiting: dict[Callable[[], Awaitable[None]], None] = {}
        self._any = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def undo_later(self, undo: Callable[[], Awaitable[None]]) -> None:
        """`undo` raises StoreUnavailable as long as it cannot be done."""
        if len(self._waiting) >= self.MOST:
            return
        self._waiting[undo] = None
        self._any.set()
        if self._running is None:
            self._running = self._tasks.keep_running("uncertain calls", self._undo_for_good)

    async def _undo_for_good(self) -> None:
        while True:
            await self._any.wait()
            due = list(self._waiting)
            await asyncio.sleep(self._slack_s)
            for at in range(0, len(due), self._AT_ONCE):
                done = await asyncio.gather(*[self._try(undo) for undo in due[at : at + self._AT_ONCE]])
                if not all(done):
                    await asyncio.sleep(self.PAUSE_S)
                    break
            if not self._waiting:
                self._any.clear()

    async def _try(self, undo: Callable[[], Awaitable[None]]) -> bool:
        # What fails is tried again after all others, so that it holds up none of them.
        del self._waiting[undo]
        try:
            await undo()
        except (StoreUnavailable, asyncio.CancelledError) as failure:
            self._waiting[undo] = None
            if isinstance(failure, asyncio.CancelledError):
                raise
            return False
        return True
