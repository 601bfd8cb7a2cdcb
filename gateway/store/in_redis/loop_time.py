"""Time in which the event loop could have read what lies in its sockets.

A busy loop fires a timer late, and often before it reads: by the clock alone, its own pause looks like a server's
silence. So time is counted in steps, each by a timer of its own: at most one in a turn of the loop, and sockets are
read between two turns. A step that ends far too late says little about others, and counts as a tenth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_LATE_STEPS = 2.5
_LATE_COUNTS = 0.1


class LoopTime:
    """Runs as long as `look`, called after each step, says that somebody waits."""

    def __init__(self, step_s: float, look: Callable[[], bool]) -> None:
        self._step_s = step_s
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.steps = 0.0

    def run(self) -> None:
        if self._timer is None:
            # Not the loop's own clock, which may stand still within a turn.
            self._due = time.monotonic() + self._step_s
            self._timer = asyncio.get_running_loop().call_later(self._step_s, self._count)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self) -> None:
        self._timer = None
        late = time.monotonic() - self._due > _LATE_STEPS * self._step_s
        self.steps += _LATE_COUNTS if late else 1
        if self._look():
            self.run()
