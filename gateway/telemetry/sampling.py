"""Limits the log lines that clients without a key can cause, so that they cannot fill the disk."""

from __future__ import annotations

from collections import Counter

LINES = 50
"""In each period, of requests without a good key; as many of refused requests to the admin API."""

PERIOD_S = 10.0


class LineSample:
    """`admits` says which lines are written. The others are counted, by the error's code, until that is reported."""

    def __init__(self) -> None:
        self._written = 0
        self._left_out: Counter[str] = Counter()

    def admits(self, code: str) -> bool:
        if self._written < LINES:
            self._written += 1
            return True
        self._left_out[code] += 1
        return False

    def begin_period(self) -> dict[str, int]:
        """What the period before has left out, by code."""
        left_out, self._left_out = self._left_out, Counter()
        self._written = 0
        return dict(left_out)
