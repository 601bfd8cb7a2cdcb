"""Whose request may begin next."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from gateway.core.errors import Overloaded
from gateway.runtime.start_queue import PAUSE_S_PER_BYTE, StartQueue


async def _begin(queue: StartQueue, team: str, begun: list[str]) -> None:
    if not queue.try_begin():
        await queue.wait(team)
    begun.append(team)


async def _turn() -> None:
    await asyncio.sleep(0)


async def test_few_requests_begin_at_once() -> None:
    queue = StartQueue(per_turn=4)
    began = [queue.try_begin() for _ in range(100_000)]
    assert began[:4] == [True] * 4
    assert began.count(True) < 10_000
    async with asyncio.timeout(5):
        while not queue.try_begin():
            await _turn()


async def test_one_request_does_not_wait_behind_a_burst_of_another_team() -> None:
    queue, begun = StartQueue(per_turn=4), list[str]()
    tasks = [asyncio.create_task(_begin(queue, "burst", begun)) for _ in range(400)]
    tasks.append(asyncio.create_task(_begin(queue, "other", begun)))
    await asyncio.gather(*tasks)
    assert begun.index("other") < 20
    assert Counter(begun) == {"burst": 400, "other": 1}


async def test_teams_take_turns_as_long_as_each_has_requests() -> None:
    queue, begun = StartQueue(per_turn=3), list[str]()
    # While one waits, all who come wait, whatever the time.
    first = asyncio.create_task(queue.wait("first"))
    tasks = [asyncio.create_task(_begin(queue, team, begun)) for team in "aaaaaaaaabbbccc"]
    await asyncio.gather(first, *tasks)
    assert "".join(begun) == "abcabcabcaaaaaa"


async def test_a_full_line_is_refused_and_other_teams_still_wait() -> None:
    queue, begun = StartQueue(per_turn=1, waiting_max=2), list[str]()
    assert queue.try_begin()
    tasks = [asyncio.create_task(_begin(queue, "burst", begun)) for _ in range(3)]
    await _turn()
    with pytest.raises(Overloaded, match="Send fewer at once") as refused:
        await queue.wait("burst")
    assert refused.value.retry_after_ms
    tasks.append(asyncio.create_task(_begin(queue, "other", begun)))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert "other" in begun
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) <= 1


async def test_who_gives_up_waiting_takes_nobody_s_turn() -> None:
    queue = StartQueue(per_turn=1)
    gone, stays = asyncio.create_task(queue.wait("a")), asyncio.create_task(queue.wait("a"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone, stays], timeout=5)
    assert gone.cancelled()
    assert stays.done()
    await _turn()
    assert queue.try_begin()


async def test_a_large_body_is_parsed_at_once_and_the_next_after_a_pause() -> None:
    queue = StartQueue()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await queue.wait_large("a", 1_000_000)
    first = loop.time() - began
    await queue.wait_large("a", 1_000_000)
    assert loop.time() - began - first >= 0.9 * 1_000_000 * PAUSE_S_PER_BYTE


async def test_large_bodies_of_one_team_do_not_hold_back_those_of_another() -> None:
    queue, parsed = StartQueue(), list[str]()

    async def parse(team: str) -> None:
        await queue.wait_large(team, 100_000)
        parsed.append(team)

    await asyncio.gather(*[parse("burst") for _ in range(50)], parse("other"))
    assert parsed.index("other") <= 2
    assert Counter(parsed) == {"burst": 50, "other": 1}


async def test_who_leaves_the_line_of_large_bodies_stops_nobody() -> None:
    queue, dice = StartQueue(), Random(7)
    tasks = [asyncio.create_task(queue.wait_large("a", 20_000)) for _ in range(200)]
    for task in tasks[:-1]:
        for _ in range(dice.randrange(20)):
            await _turn()
        task.cancel()
    await asyncio.wait_for(tasks[-1], 5)
