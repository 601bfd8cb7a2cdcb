"""Frees large dictionaries a little at a time.

Freeing 10,000 keys with their limits takes tens of milliseconds, and Python frees what a dictionary holds at once when
its last reference goes. The owner of a large one hands it to `release_in_parts` instead.
"""

from __future__ import annotations

import asyncio
from typing import Any

RELEASED_AT_ONCE = 50


async def release_in_parts(*mappings: dict[Any, Any]) -> None:
    """Empty these, which must not be in use any more, some entries in each turn of the event loop."""
    for mapping in mappings:
        while mapping:
            for _ in range(min(RELEASED_AT_ONCE, len(mapping))):
                mapping.popitem()
            await asyncio.sleep(0)
