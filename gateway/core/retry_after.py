"""How long a server asks to be left alone: Retry-After in seconds or as a date, and its form in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


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
