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


async def test_a_full_line_is_refused_with_a_time_and_other_teams_still_wait() -> None:
    queue, begun = StartQueue(per_turn=1, waiting_max=2), list[str]()
    tasks = [asyncio.create_task(_begin(queue, "burst", begun)) for _ in range(3)]
    await _turn()
    with pytest.raises(Overloaded, match="2 requests of this team wait already") as refused:
        await queue.wait("burst")
    assert refused.value.retry_after_ms
    await asyncio.gather(_begin(queue, "other", begun), *tasks)
    assert Counter(begun) == {"burst": 3, "other": 1}


async def test_a_full_line_of_large_bodies_is_refused_too() -> None:
    queue = StartQueue(waiting_max=1)
    await queue.wait_large("a", 1_000_000)
    waits = asyncio.create_task(queue.wait_large("a", 1))
    await _turn()
    with pytest.raises(Overloaded, match="wait already"):
        await queue.wait_large("a", 1)
    await waits


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
