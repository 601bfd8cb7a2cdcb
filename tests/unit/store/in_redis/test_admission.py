from __future__ import annotations

import asyncio

from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.admission import RecordLifetimes, UncertainCalls

AT = 1_000_000


def test_a_record_may_end_once_all_of_its_second_is_settled() -> None:
    records = RecordLifetimes()
    records.begin(AT, ["a"])
    records.begin(AT + 999, ["a", "b"])
    records.end(AT)
    assert records.settled(AT + 60_000) == {}
    records.end(AT + 999)
    assert records.settled(AT + 60_000) == {1_000: {"a", "b"}}


def test_a_record_is_known_until_it_is_forgotten() -> None:
    records = RecordLifetimes()
    records.begin(AT, ["a"])
    records.end(AT)
    for _ in range(2):
        assert records.settled(AT + 60_000) == {1_000: {"a"}}
    records.forget(1_000)
    assert records.settled(AT + 60_000) == {}


def test_a_second_that_may_not_be_over_is_left() -> None:
    records = RecordLifetimes()
    records.begin(AT, ["a"])
    records.end(AT)
    assert records.settled(AT + 2_999) == {}
    assert records.settled(AT + 3_000) == {1_000: {"a"}}


def test_what_was_never_begun_here_ends_nothing() -> None:
    records = RecordLifetimes()
    records.end(AT)
    assert records.settled(AT + 60_000) == {}


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
            calls.add(one)
        await quick.done.wait()
        assert not slow.done.is_set()
        await slow.done.wait()
        later = Undoing([])
        calls.add(later)
        await later.done.wait()
    await tasks.close()


async def test_a_call_that_cannot_be_undone_holds_up_no_other() -> None:
    failed: list[str] = []
    tasks = BackgroundTasks(lambda what, _error: failed.append(what), first_pause_s=0.001)
    calls = HastyCalls(tasks, 0.001)
    broken, other = Undoing([ZeroDivisionError()]), Undoing([StoreUnavailable("out")])
    async with asyncio.timeout(5):
        for one in (broken, other):
            calls.add(one)
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
        calls.add(one)
    await asyncio.wait_for(undoings[1].done.wait(), 5)
    await tasks.close()
    assert not undoings[2].done.is_set()
