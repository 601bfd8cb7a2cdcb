from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import Overloaded
from gateway.web.body_memory import BodyMemory, HeldBytes


async def waiting_for(memory: BodyMemory, size: int, *, growing: bool = False) -> asyncio.Task[int]:
    """A request that waits."""
    task = asyncio.ensure_future(memory.take(size, size, growing=growing))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_what_fits_is_taken_at_once_and_the_wish_before_the_need() -> None:
    memory = BodyMemory(100)
    assert await memory.take(10, 60, growing=False) == 60
    assert await memory.take(10, 60, growing=False) == 10
    assert memory.held_bytes == 70


async def test_requests_wait_in_order_of_arrival_and_a_small_one_does_not_overtake() -> None:
    memory = BodyMemory(100)
    await memory.take(90, 90, growing=False)
    large, small = await waiting_for(memory, 50), await waiting_for(memory, 5)
    memory.give_back(30)
    await asyncio.sleep(0)
    assert not small.done()
    memory.give_back(60)
    assert (await large, await small) == (50, 5)
    assert memory.held_bytes == 55


async def test_a_body_that_grows_goes_before_those_that_have_not_begun() -> None:
    memory = BodyMemory(100)
    await memory.take(90, 90, growing=False)
    new = await waiting_for(memory, 20)
    assert await memory.take(10, 10, growing=True) == 10
    growing = await waiting_for(memory, 20, growing=True)
    memory.give_back(30)
    assert await growing == 20
    assert not new.done()
    memory.give_back(70)
    assert await new == 20


async def test_who_waits_too_long_is_refused_and_lets_the_next_in() -> None:
    wait_s = 0.4
    memory = BodyMemory(100, wait_s)
    await memory.take(90, 90, growing=False)
    large = asyncio.ensure_future(memory.take(80, 80, growing=False))
    # Its own time must not be over in the same turn.
    await asyncio.sleep(wait_s / 2)
    small = asyncio.ensure_future(memory.take(5, 5, growing=False))
    with pytest.raises(Overloaded) as refused:
        await large
    assert refused.value.retry_after_ms == 1000
    assert await small == 5
    assert memory.held_bytes == 95


async def test_a_client_that_leaves_while_it_waits_holds_nothing() -> None:
    memory = BodyMemory(100)
    await memory.take(90, 90, growing=False)
    first, second = await waiting_for(memory, 50), await waiting_for(memory, 50)
    memory.give_back(90)
    first.cancel()
    assert await second == 50
    with pytest.raises(asyncio.CancelledError):
        await first
    assert memory.held_bytes == 50


async def test_a_body_takes_what_it_needs_and_gives_all_of_it_back() -> None:
    memory = BodyMemory(1_000)
    held = HeldBytes(memory)
    await held.add(100)
    assert memory.held_bytes == 100
    await held.add(1)
    assert memory.held_bytes == 200
    held.trim()
    assert memory.held_bytes == 101
    held.release()
    held.release()
    assert memory.held_bytes == 0
