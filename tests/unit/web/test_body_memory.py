from __future__ import annotations

import asyncio
import random

import pytest

from gateway.core.errors import Overloaded
from gateway.web.body_memory import SMALL_BYTES, BodyMemory, HeldBytes

MIB = 1024 * 1024


async def waiting_for(memory: BodyMemory, size: int, *, team: str = "a", number: int = 9) -> asyncio.Task[None]:
    """A body that waits."""
    task = asyncio.ensure_future(memory.take(team, number, size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def body_of(memory: BodyMemory, team: str = "a") -> HeldBytes:
    return HeldBytes(memory, team)


async def test_one_body_may_have_all_of_it_whatever_its_team() -> None:
    memory = BodyMemory(100)
    await memory.take("a", 1, 100)
    assert memory.held_bytes == 100


async def test_a_team_has_three_quarters_and_beside_another_less() -> None:
    memory = BodyMemory(100)
    for number in range(75):
        await memory.take("a", number, 1)
    more = await waiting_for(memory, 1)
    # What is free belongs to whoever comes, by the same rule.
    for number in range(18):
        await memory.take("b", number, 1)
    other = await waiting_for(memory, 2, team="b")
    memory.give_back("a", 74)
    await more
    await other
    assert (memory.held_bytes, memory.waiting) == (75 - 74 + 1 + 18 + 2, 0)


async def test_bodies_of_a_team_wait_in_the_order_in_which_they_came_and_none_overtakes() -> None:
    memory = BodyMemory(100)
    await memory.take("a", 1, 70)
    late, early = await waiting_for(memory, 10, number=3), await waiting_for(memory, 40, number=2)
    memory.give_back("a", 20)
    await asyncio.sleep(0)
    assert not late.done()
    memory.give_back("a", 50)
    await early
    await late
    assert memory.held_bytes == 50


async def test_a_team_that_waits_keeps_no_other_one_waiting() -> None:
    memory = BodyMemory(100)
    await memory.take("a", 1, 70)
    waiting = await waiting_for(memory, 40)
    await memory.take("b", 2, 20)
    memory.give_back("a", 70)
    await waiting


async def test_a_small_body_takes_what_large_ones_may_not() -> None:
    memory = BodyMemory(4 * MIB)
    for number in range(3):
        await memory.take("a", number, MIB)
    waiting = await waiting_for(memory, MIB)
    small = [body_of(memory) for _ in range(MIB // SMALL_BYTES)]
    assert all(body.add_small(SMALL_BYTES) for body in small)
    assert not body_of(memory).add_small(1)
    memory.give_back("a", MIB)
    assert not waiting.done()
    for body in small:
        body.release()
    await waiting
    assert memory.held_bytes == 3 * MIB


async def test_the_body_that_may_grow_waits_for_no_older_one_of_its_team() -> None:
    memory = BodyMemory(100)
    await memory.take("a", 1, 50)
    await memory.take("a", 2, 20)
    await memory.take("a", 2, 10, grows=True)
    older = asyncio.ensure_future(memory.take("a", 1, 15, grows=True))
    assert memory.take_small(20)
    await asyncio.sleep(0)
    growing = asyncio.ensure_future(memory.take("a", 2, 5, grows=True))
    await asyncio.sleep(0)
    memory.give_back_small(20)
    await growing
    assert not older.done()
    memory.release("a", 2, 35)
    await older
    assert memory.held_bytes == 65


async def test_who_waits_too_long_is_refused_and_lets_the_next_in() -> None:
    wait_s = 0.4
    memory = BodyMemory(100, wait_s)
    await memory.take("a", 1, 70)
    large = asyncio.ensure_future(memory.take("a", 2, 80))
    # Its own time must not be over in the same turn.
    await asyncio.sleep(wait_s / 2)
    next_one = asyncio.ensure_future(memory.take("a", 3, 5))
    with pytest.raises(Overloaded) as refused:
        await large
    assert refused.value.retry_after_ms == 1000
    await next_one
    assert memory.held_bytes == 75


async def test_a_client_that_leaves_while_it_waits_holds_nothing() -> None:
    memory = BodyMemory(100)
    await memory.take("a", 1, 70)
    first, second = await waiting_for(memory, 50), await waiting_for(memory, 50)
    memory.give_back("a", 70)
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert memory.held_bytes == 50


async def test_one_that_leaves_just_before_its_turn_is_passed_over() -> None:
    memory = BodyMemory(100)
    await memory.take("a", 1, 70)
    first, second = await waiting_for(memory, 50), await waiting_for(memory, 50)
    first.cancel()
    memory.give_back("a", 70)
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (memory.held_bytes, memory.waiting) == (50, 0)


async def test_a_body_takes_what_it_announces_before_it_comes() -> None:
    memory = BodyMemory(8 * MIB)
    body = body_of(memory)
    await body.expect(2 * MIB)
    assert memory.held_bytes == 2 * MIB
    await body.add(2 * MIB)
    body.trim()
    assert memory.held_bytes == 2 * MIB
    body.release()
    body.release()
    assert memory.held_bytes == 0


async def test_one_that_is_shorter_than_expected_gives_back_the_rest_and_a_longer_one_takes_as_much_again() -> None:
    memory = BodyMemory(64 * MIB)
    body = body_of(memory)
    await body.expect(MIB)
    await body.add(MIB + 1)
    assert memory.held_bytes == 2 * MIB
    body.trim()
    assert memory.held_bytes == MIB + 1
    body.release()
    small = body_of(memory)
    await small.expect(10)
    await small.add(SMALL_BYTES + 10)
    assert memory.held_bytes == SMALL_BYTES + 10
    small.trim()
    small.release()
    assert memory.held_bytes == 0


@pytest.mark.parametrize("expected", [10 * MIB, MIB, 3 * MIB])
async def test_many_that_come_at_once_in_pieces_become_whole_one_after_the_other(expected: int) -> None:
    """Each that took memory as its pieces come would hold a part of it, and none could go on."""
    memory, dice = BodyMemory(256 * MIB, wait_s=30), random.Random(5)
    most = 0

    async def upload(team: str) -> None:
        nonlocal most
        body, size = body_of(memory, team), 10 * MIB
        await body.expect(expected)
        for _ in range(10):
            await body.add(size // 10)
            most = max(most, memory.held_bytes)
            for _ in range(dice.randrange(5)):
                await asyncio.sleep(0)
        body.trim()
        await asyncio.sleep(0)
        body.release()

    await asyncio.gather(*(upload(f"team-{number % 3}") for number in range(300)))
    assert memory.held_bytes == memory.waiting == 0
    assert 128 * MIB < most <= 256 * MIB
