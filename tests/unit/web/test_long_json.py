from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.web.long_json import ITEMS_AT_ONCE, encoded_in_slices


@pytest.mark.parametrize("count", [0, 1, ITEMS_AT_ONCE, ITEMS_AT_ONCE + 1, 3 * ITEMS_AT_ONCE, 30_000])
async def test_an_object_is_encoded_as_if_in_one_go(count: int) -> None:
    def content() -> dict[str, Any]:
        items = [{"n": number, "none": None, "name": 'a "name"'} for number in range(count)]
        return {"data": items, "next": None, "part": {"rows": list(range(count)), "é": {}}, "empty": []}

    assert await encoded_in_slices(content()) == msgspec.json.encode(content())
    assert await encoded_in_slices({}) == b"{}"


async def test_items_of_a_long_list_are_gone_once_they_are_encoded() -> None:
    items: list[Any] = [{"n": number} for number in range(3 * ITEMS_AT_ONCE)]
    encoding = asyncio.ensure_future(encoded_in_slices({"data": items}))
    left = []
    while not encoding.done():
        await asyncio.sleep(0)
        left.append(sum(item is not None for item in items))
    assert left[:3] == [2 * ITEMS_AT_ONCE, ITEMS_AT_ONCE, 0]
