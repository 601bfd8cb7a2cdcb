from __future__ import annotations

import asyncio
import threading

import pytest

from gateway.runtime.own_thread import run_in_own_thread

MORE_THAN_ANY_POOL = 80


async def test_work_that_hangs_keeps_nothing_else_waiting() -> None:
    ended = threading.Event()
    hanging = [asyncio.ensure_future(run_in_own_thread("hangs", ended.wait)) for _ in range(MORE_THAN_ANY_POOL)]
    async with asyncio.timeout(5):
        assert await run_in_own_thread("answers", lambda: "found") == "found"
    assert not any(one.done() for one in hanging)
    ended.set()
    assert await asyncio.gather(*hanging) == [True] * MORE_THAN_ANY_POOL


async def test_an_exception_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_in_own_thread("fails", lambda: 1 // 0)


async def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    ended = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await run_in_own_thread("hangs", ended.wait)
    ended.set()
    assert await run_in_own_thread("answers", lambda: 1) == 1
