"""What the gateway believes of the store's clock: its own monotonic clock, set by each answer.

Only good for asking at the right time: every decision is made by the store, by its own clock.
"""

from __future__ import annotations

import time


class StoreClock:
    def __init__(self) -> None:
        self._ahead_ms = time.time() * 1000 - time.monotonic() * 1000
        self.told_ms = 0
        """The latest time that the store told."""

    def now_ms(self) -> int:
        return round(time.monotonic() * 1000 + self._ahead_ms)

    def learn(self, told_ms: int) -> None:
        self.told_ms = told_ms
        self._ahead_ms = told_ms - time.monotonic() * 1000
