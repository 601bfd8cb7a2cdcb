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

    @staticmethod
    def moment() -> float:
        """Now, for `learn`."""
        return time.monotonic()

    def now_ms(self) -> int:
        return round(time.monotonic() * 1000 + self._ahead_ms)

    def learn(self, told_ms: int, asked: float | None = None) -> None:
        """The store told this time in answer to a question of the moment `asked`, or just now.

        The answer may have waited for a busy event loop to read it. So the store's clock showed `told_ms` at some
        moment since `asked`, and what is believed of it changes only where it cannot be true.
        """
        now = time.monotonic()
        earliest = now if asked is None else asked
        self.told_ms = told_ms
        self._ahead_ms = min(max(self._ahead_ms, told_ms - now * 1000), told_ms - earliest * 1000)
