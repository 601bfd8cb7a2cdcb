"""Calls whose answer was lost are undone once the store answers."""

from __future__ import annotations

import asyncio

from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.uncertain_calls import UncertainCalls


class Undoing:
    """A call to undo; the store is out for the first tries."""

    def __init__(self, failures: list[Exception]) -> None:
        self._failures = failures
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        if self._failures:
            raise self._failures.pop()
        self.done.set()


class HastyCalls(UncertainCalls):
    PAUSE_S = 0.001


async def test_an_uncertain_call_is_undone_once_the_store_answers() -> None:
    tasks = BackgroundTasks(lambda _what, _error: None)
    calls = HastyCalls(tasks, 0.001)
    slow, quick = Undoing([StoreUnavailable("out")] * 3), Undoing([])
    async with asyncio.timeout(5):
        for one in (slow, quick):
            calls.undo_later(one)
        await quick.done.wait()
        assert not slow.done.is_set()
        await slow.done.wait()
        later = Undoing([])
        calls.undo_later(later)
        await later.done.wait()
    await tasks.close()


async def test_a_call_that_cannot_be_undone_holds_up_no_other() -> None:
    failed: list[str] = []
    tasks = BackgroundTasks(lambda what, _error: failed.append(what), first_pause_s=0.001)
    calls = HastyCalls(tasks, 0.001)
    broken, other = Undoing([ZeroDivisionError()]), Undoing([StoreUnavailable("out")])
    async with asyncio.timeout(5):
        for one in (broken, other):
            calls.undo_later(one)
        await other.done.wait()
    assert failed == ["background task uncertain calls failed"]
    await tasks.close()


async def test_no_more_calls_are_kept_than_there_is_room_for() -> None:
    class FewCalls(HastyCalls):
        MOST = 2

    tasks = BackgroundTasks(lambda _what, _error: None)
    calls = FewCalls(tasks, 0.001)
    undoings = [Undoing([]) for _ in range(3)]
    for one in undoings:
        calls.undo_later(one)
    await asyncio.wait_for(undoings[1].done.wait(), 5)
    await tasks.close()
    assert not undoings[2].done.is_set()
