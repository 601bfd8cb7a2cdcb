from __future__ import annotations

import asyncio
from itertools import pairwise

from gateway.runtime.release import RELEASED_AT_ONCE, release_in_parts


async def test_much_is_released_a_little_in_each_turn_of_the_loop() -> None:
    one, other = (dict.fromkeys(range(size)) for size in (5 * RELEASED_AT_ONCE, 1))
    releasing = asyncio.ensure_future(release_in_parts(one, other))
    sizes = [len(one) + len(other)]
    while not releasing.done():
        await asyncio.sleep(0)
        sizes.append(len(one) + len(other))
    assert max(before - after for before, after in pairwise(sizes)) <= RELEASED_AT_ONCE
    assert sizes[-1] == 0
