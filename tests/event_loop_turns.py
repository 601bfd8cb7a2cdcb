"""What the event loop does beside a test: its turns while something long is computed, and the end of its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def turns_during(work: Awaitable[T]) -> tuple[T, int]:
    """What it gives, and how often others had their turn meanwhile."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    try:
        return await work, turns
    finally:
        running.cancel()


async def tasks_ended(name: str) -> None:
    """Wait until no task with this name runs."""
    while running := [task for task in asyncio.all_tasks() if task.get_name() == name]:
        await asyncio.wait(running)
