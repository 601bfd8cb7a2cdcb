"""How many requests may be tried again: a part of those that come, so that retries cannot storm.

When every upstream of a model fails, retries would multiply the load just when there is too much.
"""

from __future__ import annotations

PER_REQUEST = 0.2
"""Each request adds this much of a retry: over time, at most one request in five is tried again."""
PER_SECOND = 0.5
"""Where requests are rare a fifth of them is nothing: so much is added anyhow."""
MOST = 20.0
"""What can be saved up. It is also what there is to begin with."""


class RetryBudget:
    """One for each model, so that the retries of one cannot use up another's. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._left = MOST
        self._at = now

    def request(self, now: float) -> None:
        """A request is sent for the first time."""
        self._left = min(MOST, self._left + PER_REQUEST + (now - self._at) * PER_SECOND)
        self._at = now

    def take(self) -> bool:
        """Whether one may be sent again now; if so, that is one less."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
