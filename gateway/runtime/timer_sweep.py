"""The timers of what there are thousands of: each open stream has three, for its silence, for its upstream's and for
the next request of its connection.

A timer of the event loop takes half a KiB, in five objects. Here those that expire at about the same time share one.
For this a time is rounded up, by a sixteenth of what there is to wait at most, and by no more than STEP_S.

uvloop runs timers before it reads sockets. So `expired` is called a moment later: by then, what arrived while the
process stood still is read, and what is there already is not taken for late.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Protocol

STEP_S = 0.25
"""By so much a time is rounded up at most: of a wait of four seconds or more."""

READ_FIRST_S = 0.001
"""So much later all is read that was there."""

_LONG_S = 16 * STEP_S
_SHORTEST_S = 0.001


class Expiring(Protocol):
    """It is compared by identity."""

    def expired(self) -> None: ...


class TimerSweep:
    """One for each event loop. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[float, set[Expiring]] = {}
        """By the time at which they expire."""

    def add(self, one: Expiring, when: float) -> float:
        """Call `expired` at that time or a little later. The time for which it is noted, by which it is discarded."""
        now = monotonic()
        wait_s = max(when - now, _SHORTEST_S)
        # A power of two, so that equal times are equal numbers.
        step = STEP_S if wait_s >= _LONG_S else math.ldexp(1.0, math.frexp(wait_s)[1] - 5)
        at = ((now + wait_s) // step + 1) * step
        waiting = self._waiting.get(at)
        if waiting is None:
            waiting = self._waiting[at] = set()
            asyncio.get_running_loop().call_later(at - now, self._come, at)
        waiting.add(one)
        return at

    def discard(self, one: Expiring, at: float) -> None:
        """Do not call it. Harmless where it was called."""
        waiting = self._waiting.get(at)
        if waiting is not None:
            waiting.discard(one)

    def _come(self, at: float) -> None:
        asyncio.get_running_loop().call_later(READ_FIRST_S, self._expire, at)

    def _expire(self, at: float) -> None:
        waiting = self._waiting[at]
        try:
            while waiting:
                waiting.pop().expired()
        finally:
            if waiting:  # What one raises is for the event loop, and the others still expire.
                asyncio.get_running_loop().call_soon(self._expire, at)
            else:
                del self._waiting[at]
