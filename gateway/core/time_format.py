"""Times and durations as answers and messages write them."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.calendar import FOREVER_MS
from gateway.core.remembered import remembered

_FIRST_MS = -62_135_596_800_000
"""When the year 1 began, by UTC."""

_FRACTIONS = tuple([f".{milliseconds:03}".rstrip("0") + "s" if milliseconds else "s" for milliseconds in range(1000)])
"""Of a second, by its milliseconds, each with its point, where it is not none, and the unit. Each answer with limits
has a few."""


def duration_text(milliseconds: int) -> str:
    """`0s`, `120ms`, `1s`, `6m0s`, `72h0m0s`: as OpenAI writes the time until a limit resets."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    return _whole_seconds(milliseconds // 1000) + _FRACTIONS[milliseconds % 1000]


@remembered(1_024)
def _whole_seconds(seconds: int) -> str:
    """What is before the fraction. Windows end together, so that most answers of a second say the same."""
    if seconds < 60:
        return str(seconds)
    minutes, seconds = seconds // 60, seconds % 60
    if minutes < 60:
        return f"{minutes}m{seconds}"
    return f"{minutes // 60}h{minutes % 60}m{seconds}"


def rfc3339(ms: int) -> str:
    """Of what is beyond the years that can be written so, the first or last moment of these."""
    return (
        datetime.fromtimestamp(min(max(ms, _FIRST_MS), FOREVER_MS - 1) / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
