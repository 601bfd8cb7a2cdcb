"""When the task goes on that awaits a future, and with what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from gateway.runtime.eager_future import EagerFuture

WHERE = ContextVar("WHERE", default="nowhere")


async def in_callback(bring: Callable[[], None], seen: Callable[[], list[str]]) -> list[str]:
    """What is `seen` when a callback of the event loop, which calls `bring`, is over."""
    over: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def callback() -> None:
        bring()
        over.set_result([*seen()])

    asyncio.get_running_loop().call_soon(callback)
    return await over


class Waiting:
    """A task that awaits the replies of two futures."""

    def __init__(self) -> None:
        self.first, self.second = EagerFuture(), EagerFuture()
        self.seen: list[str] = []
        self.task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        WHERE.set("in the task")
        try:
            for reply in (self.first, self.second):
                self.seen.append(f"{await reply} {WHERE.get()}")
        except (ValueError, asyncio.CancelledError) as error:
            self.seen.append(type(error).__name__)
            raise


async def test_the_task_goes_on_in_the_callback_that_brings_the_result_and_in_its_own_context() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    WHERE.set("in the test")
    assert await in_callback(lambda: waiting.first.set_result("one"), lambda: waiting.seen) == ["one in the task"]
    assert await in_callback(lambda: waiting.second.set_result("two"), lambda: waiting.seen[1:]) == ["two in the task"]
    assert waiting.task.done()


async def test_a_task_that_begins_to_wait_when_all_has_come_need_not_wait() -> None:
    waiting = Waiting()
    waiting.first.set_result("one")
    waiting.second.set_result("two")
    await asyncio.sleep(0)
    assert waiting.seen == ["one in the task", "two in the task"]


async def test_a_task_that_waits_for_the_first_takes_both_that_come_in_one_callback() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)

    def bring() -> None:
        waiting.second.set_result("two")
        waiting.first.set_result("one")

    assert await in_callback(bring, lambda: waiting.seen) == ["one in the task", "two in the task"]


async def test_an_error_may_come_from_a_task_and_who_waits_goes_on_later() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    waiting.first.set_exception(ValueError("bad"))
    assert not waiting.seen
    with pytest.raises(ValueError, match="bad"):
        await waiting.task
    assert waiting.seen == ["ValueError"]


async def test_who_is_cancelled_goes_on_later_and_takes_no_result_any_more() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    assert waiting.task.cancel()
    assert waiting.first.done()
    with pytest.raises(asyncio.InvalidStateError):
        waiting.first.set_result("one")
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert waiting.seen == ["CancelledError"]


async def test_what_a_task_raises_stays_with_the_task() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    waiting.second.set_exception(ValueError("bad"))
    assert await in_callback(lambda: waiting.first.set_result("one"), lambda: waiting.seen) == [
        "one in the task",
        "ValueError",
    ]
    with pytest.raises(ValueError, match="bad"):
        await waiting.task
