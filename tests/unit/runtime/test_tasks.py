"""Background tasks: a loop that fails comes back, and nothing that fails is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.runtime.tasks import BackgroundTasks, wait_first


class Journal:
    """What was logged and counted."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, str]] = []
        self.counted: list[str] = []

    def log_error(self, event: str, error: BaseException) -> None:
        self.logged.append((event, str(error)))

    def tasks(self) -> BackgroundTasks:
        return BackgroundTasks(self.log_error, self.counted.append, first_pause_s=0.001)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_loop_that_fails_is_logged_counted_and_started_again() -> None:
    journal, starts = Journal(), 0

    async def loop() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise KeyError("torn")
        await asyncio.Event().wait()

    tasks = journal.tasks()
    tasks.keep_running("renew", loop)
    await until(lambda: starts == 3)
    assert journal.counted == ["renew", "renew"]
    assert journal.logged == [("background task renew failed", "'torn'")] * 2
    await tasks.close()


async def test_a_loop_that_returns_is_over() -> None:
    journal = Journal()

    async def loop() -> None:
        return None

    await journal.tasks().keep_running("once", loop)
    assert journal.counted == []


async def test_a_loop_is_cancelled_while_it_waits_for_its_next_start() -> None:
    journal = Journal()

    async def loop() -> None:
        raise OSError("gone")

    tasks = BackgroundTasks(journal.log_error, journal.counted.append, first_pause_s=60)
    task = tasks.keep_running("watch", loop)
    await until(lambda: journal.counted == ["watch"])
    await tasks.close()
    assert task.cancelled()


async def test_work_that_fails_is_logged_though_nobody_asks_for_it() -> None:
    journal = Journal()

    async def work() -> None:
        raise ValueError("half a line")

    tasks = journal.tasks()
    await asyncio.wait([tasks.start("close request", work())])
    assert (journal.counted, journal.logged) == (
        ["close request"],
        [("background task close request failed", "half a line")],
    )


async def test_a_cancelled_task_is_no_failure() -> None:
    journal = Journal()
    tasks = journal.tasks()
    work = tasks.start("wait", asyncio.Event().wait())
    await tasks.close()
    assert work.cancelled()
    assert journal.counted == []


async def test_waiting_for_the_first_cancels_the_others() -> None:
    cancelled = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def at_once() -> None:
        await asyncio.sleep(0)

    await wait_first(never(), at_once())
    await asyncio.wait_for(cancelled.wait(), 5)


@pytest.mark.parametrize("error", [KeyError, UnicodeError, RuntimeError, OSError, AssertionError])
async def test_no_kind_of_exception_ends_a_loop(error: type[Exception]) -> None:
    journal, starts = Journal(), 0

    async def loop() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise error("unexpected")
        await asyncio.Event().wait()

    tasks = journal.tasks()
    tasks.keep_running("any", loop)
    await until(lambda: starts == 2)
    await tasks.close()


async def test_what_the_first_raises_is_raised_and_the_others_are_cancelled() -> None:
    cancelled = asyncio.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        await wait_first(for_ever(), failing())
    await cancelled.wait()
