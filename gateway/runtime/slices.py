"""Divides long computations into slices, between which the event loop serves requests.

A report over 10,000 keys takes hundreds of milliseconds. In one go no request would go on meanwhile; in a thread it
would hold the interpreter lock for nearly as long. In slices of about a millisecond it delays a request by one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from heapq import merge
from typing import Any, TypeVar

T = TypeVar("T")


async def in_slices(items: Iterable[T], size: int) -> AsyncIterator[T]:
    """The items. After each `size` of them, others have their turn: what the items come from may have changed then, so
    give a copy of what does."""
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            await asyncio.sleep(0)


async def drained_in_slices(items: list[T], size: int) -> AsyncIterator[T]:
    """The items of a list that is empty in the end: to free tens of thousands at once takes tens of milliseconds."""
    items.reverse()
    async for _ in in_slices(range(len(items)), size):
        yield items.pop()


async def sorted_in_slices(items: Sequence[T], size: int, key: Callable[[T], Any], *, reverse: bool = False) -> list[T]:
    """As `sorted` gives them."""
    runs = [
        sorted(items[at : at + size], key=key, reverse=reverse) async for at in in_slices(range(0, len(items), size), 1)
    ]
    return [item async for item in in_slices(merge(*runs, key=key, reverse=reverse), size)]
