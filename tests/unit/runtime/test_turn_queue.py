"""What begins in a turn of the event loop, and who waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from gateway.runtime.turn_queue import LineFull, TurnQueue


async def _begin(queue: TurnQueue, line: str, begun: list[str]) -> None:
    if not queue.try_begin():
        await queue.wait(line)
    begun.append(line)


async def test_a_few_begin_in_a_turn_however_long_it_takes() -> None:
    queue = TurnQueue(per_turn=4)
    assert [queue.try_begin() for _ in range(10_000)].count(True) == 4
    await asyncio.sleep(0)
    assert [queue.try_begin() for _ in range(10_000)].count(True) == 4


async def test_what_waits_without_a_task_begins_in_rotation_and_in_front_of_what_comes_meanwhile() -> None:
    queue, begun = TurnQueue(per_turn=3), list[str]()

    def begin(line: str) -> bool:
        begun.append(line)
        return True

    def begin_and_send_more(line: str) -> bool:
        begun.append(line)
        assert not queue.try_begin()
        queue.begin_later("more", partial(begin, "more"))
        return True

    for line in "aab":
        queue.begin_later(line, partial(begin_and_send_more, line))
    queue.begin_later("gone", lambda: False)
    for _ in range(3):
        await asyncio.sleep(0)
    assert begun == ["a", "b", "a", "more", "more", "more"]
    await asyncio.sleep(0)
    assert queue.try_begin()


async def test_a_defect_of_one_that_begins_holds_nobody_up() -> None:
    queue, begun, defects = TurnQueue(per_turn=2), list[str](), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context["exception"]))

    def fail() -> bool:
        raise KeyError("a defect")

    def begin() -> bool:
        begun.append("b")
        return True

    queue.begin_later("a", fail)
    queue.begin_later("b", begin)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (begun, [type(each) for each in defects]) == (["b"], [KeyError])


async def test_each_turn_lets_as_many_of_those_who_wait_begin() -> None:
    queue, begun, counts = TurnQueue(per_turn=4), list[str](), list[int]()
    tasks = [asyncio.create_task(_begin(queue, "a", begun)) for _ in range(40)]
    while len(begun) < 40:
        await asyncio.sleep(0)
        counts.append(len(begun))
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) == 4
    await asyncio.gather(*tasks)


async def test_one_does_not_wait_behind_a_burst_of_another_line() -> None:
    queue, begun = TurnQueue(per_turn=4), list[str]()
    tasks = [asyncio.create_task(_begin(queue, "burst", begun)) for _ in range(400)]
    tasks.append(asyncio.create_task(_begin(queue, "other", begun)))
    await asyncio.gather(*tasks)
    assert begun.index("other") < 12
    assert Counter(begun) == {"burst": 400, "other": 1}


async def test_lines_take_turns_as_long_as_each_has_some() -> None:
    queue, begun = TurnQueue(per_turn=3), list[str]()
    # While one waits, all who come wait, whatever is left of the turn.
    first = asyncio.create_task(queue.wait("first"))
    tasks = [asyncio.create_task(_begin(queue, line, begun)) for line in "aaaaaaaaabbbccc"]
    await asyncio.gather(first, *tasks)
    assert "".join(begun) == "abcabcabcaaaaaa"


async def test_a_line_that_is_full_takes_no_more_and_others_do() -> None:
    queue, begun = TurnQueue(per_turn=1, waiting_max=2), list[str]()
    tasks = [asyncio.create_task(_begin(queue, "burst", begun)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(LineFull):
        await queue.wait("burst")
    await asyncio.gather(_begin(queue, "other", begun), *tasks)
    assert Counter(begun) == {"burst": 3, "other": 1}


async def test_who_gives_up_waiting_takes_nobody_s_turn() -> None:
    queue = TurnQueue(per_turn=1)
    gone, stays = asyncio.create_task(queue.wait("a")), asyncio.create_task(queue.wait("a"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone, stays], timeout=5)
    assert gone.cancelled()
    assert stays.done()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert queue.try_begin()
