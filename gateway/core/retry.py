"""Limits how much of the load may be retries, and reads a server's Retry-After.

Retries are at most a part of the requests: if every upstream of a model fails, they would multiply the load when it is
already too high.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

PER_REQUEST = 0.2
"""Each request adds this much of a retry: over time, at most one request in five is tried again."""
PER_SECOND = 0.5
"""Where requests are rare a fifth of them is nothing: so much is added anyhow."""
MOST = 20.0
"""What can be saved up. It is also what there is to begin with."""


class RetryBudget:
    """One for each model, so that the retries of one cannot use up another's. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.requests = 0
        """To be counted up by each request that is sent for the first time."""
        self._left = MOST
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one may be sent again now; if so, that is one less."""
        left = min(MOST, self._left + self.requests * PER_REQUEST + (now - self._at) * PER_SECOND)
        is_given = left >= 1.0
        self._left, self._at, self.requests = left - is_given, now, 0
        return is_given


def read_retry_after(headers: Mapping[str, str], now_ms: int) -> float:
    """Seconds, 0 where there is none or it cannot be read. Names are in lower case. RFC 9110, 10.2.3;
    `retry-after-ms` is OpenAI's, and finer."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    written = headers.get("retry-after")
    if written is None:
        return 0.0
    seconds = _number(written)
    return seconds if seconds is not None else _until(written, now_ms)


def _number(written: str | None) -> float | None:
    try:
        number = float(written or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _until(date: str, now_ms: int) -> float:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now_ms / 1000)
    except (ValueError, OverflowError):
        return 0.0
