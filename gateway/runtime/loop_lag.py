"""Measures how late the event loop is: by how much a timer fires after its time.

A computation on the loop delays every stream of the process by as much; this is where it shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_EVERY_S = 0.1


async def watch_loop_lag(observe: Callable[[float], None], monotonic: Callable[[], float]) -> None:
    """Observe the lag, in seconds, for as long as this is awaited. `monotonic` is not the loop's
    own clock, which does not advance while the loop computes."""
    while True:
        due = monotonic() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        observe(max(0.0, monotonic() - due))
