"""The search for garbage: for objects that refer to each other, and to which nothing else refers.

Requests leave next to none, and Python's collector searches at the wrong times for a process with thousands of open
streams. It begins once there are some thousand objects more than at its last search. If streams end as fast as others
begin, that takes long; by then all streams have been replaced, and the search goes through the objects of every open
one. Nothing else happens in the process for that tenth of a second.

So here the clock decides. Four times a second, the search goes through what was made since the last time and still
exists: it takes longer the more streams have begun, not the more are open. A search through everything, including what
was built at the start, runs while nothing is in flight: the objects of a configuration refer to each other, and a
reload leaves the old ones. In a process that is never without requests it runs all the same, but seldom.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

EVERY_S = 0.25

ALL_EVERY_S = 600.0
"""Between two searches through everything, at least."""

AT_LATEST_S = 6 * ALL_EVERY_S
"""After so long they no longer wait until nothing is in flight."""

_BURST = 10_000
"""So many objects more than at the last search do not wait for the next."""

_NEVER = 1_000_000_000
_ALL, _YOUNG = 2, 1


class GarbageSearch:
    """`in_flight` is how many requests there are, `monotonic` a clock."""

    def __init__(self, in_flight: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._in_flight = in_flight
        self._monotonic = monotonic
        self._all_from = monotonic() + ALL_EVERY_S

    async def run(self) -> None:
        """Search, for as long as this is awaited."""
        leave_garbage()
        while True:
            await asyncio.sleep(EVERY_S)
            self.search()

    def search(self) -> None:
        """Search through what has come since the last time, or through everything where that is due."""
        late_s = self._monotonic() - self._all_from
        if late_s < 0 or (self._in_flight() and late_s < AT_LATEST_S - ALL_EVERY_S):
            gc.collect(_YOUNG)
            return
        gc.unfreeze()
        gc.collect(_ALL)
        gc.freeze()
        self._all_from = self._monotonic() + ALL_EVERY_S


def leave_garbage() -> None:
    """Search seldom without being asked from now on, and never among what was built to last."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_BURST, _NEVER, _NEVER)
