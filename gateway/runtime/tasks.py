"""Runs every task that outlives the call which starts it, so that no loop ends unnoticed.

A plain `asyncio` task keeps its exception until a caller asks for it: a loop that renews leases or watches a file could
end on one unexpected error, and the process would go on without it. So an owner starts its tasks in a
`BackgroundTasks`:

* `keep_running` is for loops. One that raises is logged, counted and started again after a pause,
  which doubles while it goes on failing. One that returns is over.
* `start` is for work that ends. An exception is logged and counted, whether or not the result is awaited.
* `close` cancels both and waits for their end.

A connection is its own owner of the task that its request may need (`start_owned`): it has one at most, and ends it.

`asyncio.create_task` and its kin are called only in this package; a house test checks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.runtime.backoff import Backoff

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
"""Between a failure and the next start: doubled while the loop fails within `STEADY_S`."""

STEADY_S = 60.0
"""A loop that ran for so long starts with the first pause again."""

LogError = Callable[[str, BaseException], None]
"""Logs an unexpected exception with its traceback, and what was being done."""

T = TypeVar("T")


def _not_counted(_task: str) -> None:
    """The default: failures are logged alone."""


class BackgroundTasks:
    """The tasks of one owner. `count_failure` gets the name of a task each time that one fails; names are few and
    fixed, since they become a label of a metric."""

    def __init__(
        self,
        log_error: LogError,
        count_failure: Callable[[str], None] = _not_counted,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._log_error = log_error
        self._count_failure = count_failure
        self._first_pause_s = first_pause_s
        self._loops: set[asyncio.Task[None]] = set()
        self._work: set[asyncio.Task[Any]] = set()

    def keep_running(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run what `loop()` gives until it returns, or the task is cancelled; again after each failure."""
        task = asyncio.get_running_loop().create_task(self._supervised(name, loop), name=name)
        self._loops.add(task)
        task.add_done_callback(self._loops.discard)
        return task

    def start(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run this once."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel everything and wait for its end."""
        while tasks := {*self._loops, *self._work}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _supervised(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        clock = asyncio.get_running_loop().time
        backoff = Backoff(self._first_pause_s, LONGEST_PAUSE_S)
        while True:
            began = clock()
            try:
                return await loop()
            except Exception as error:  # noqa: BLE001 # Whatever it is, the loop has to go on.
                self._failed(name, error)
            if clock() - began >= STEADY_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(task.get_name(), error)

    def _failed(self, name: str, error: BaseException) -> None:
        self._count_failure(name)
        self._log_error(f"background task {name} failed", error)


def start_owned(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Run work that handles its own exceptions, in the loop that runs. The caller keeps the task, and cancels it if it
    has to end early."""
    # Without a name it would get one with a number: a fifth of what it takes to make a task, for nothing.
    return asyncio.Task(work, loop=loop, name="owned")


async def wait_first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of these, and cancel the others. Raises what that one raises."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
