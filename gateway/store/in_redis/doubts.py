"""Calls of which nobody knows whether they were carried out, and what undoes them if they were.

It is looked after them once they can no longer be carried out late, and while their holds would last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.core.errors import StoreUnavailable

_PAUSE_S = 1.0
_MOST = 4_096
"""Beyond so many, what was carried out unheard stays: holds end by themselves."""


class Doubts:
    def __init__(self, slack_s: float, hold_ttl_s: float) -> None:
        self._slack_s = slack_s
        self._hold_ttl_s = hold_ttl_s
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, undo: Callable[[], Awaitable[None]]) -> None:
        """`undo` raises StoreUnavailable as long as it cannot be done."""
        if len(self._tasks) < _MOST:
            task = asyncio.get_running_loop().create_task(self._resolve(undo))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _resolve(self, undo: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self._slack_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._hold_ttl_s):
                while True:
                    with suppress(StoreUnavailable):
                        return await undo()
                    await asyncio.sleep(_PAUSE_S)
