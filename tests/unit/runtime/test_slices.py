from __future__ import annotations

import asyncio
from random import Random

from gateway.runtime.slices import drained_in_slices, in_slices, sorted_in_slices


class Turns:
    """How often the event loop came by."""

    def __init__(self) -> None:
        self.count = 0

    async def follow(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def test_others_have_their_turn_after_each_slice() -> None:
    turns = Turns()
    following = asyncio.ensure_future(turns.follow())
    seen = [(item, turns.count) async for item in in_slices(range(100), 10)]
    following.cancel()
    assert [item for item, _ in seen] == list(range(100))
    in_one_turn = [turn for _, turn in seen]
    assert max(map(in_one_turn.count, in_one_turn)) == 10


async def test_what_was_drained_has_left_the_list() -> None:
    items = list(range(100))
    seen = [(item, len(items)) async for item in drained_in_slices(items, 10)]
    assert seen == [(number, 99 - number) for number in range(100)]


async def test_a_sort_in_slices_gives_what_a_sort_gives() -> None:
    random = Random(7)
    items = [(random.randrange(20), place) for place in range(1_000)]
    for reverse in (False, True):
        found = await sorted_in_slices(items, 64, key=lambda item: item[0], reverse=reverse)
        assert found == sorted(items, key=lambda item: item[0], reverse=reverse)
    assert await sorted_in_slices([], 64, key=str) == []
