"""Times and durations as answers and messages write them."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.calendar import FOREVER_MS

_FIRST_MS = -62_135_596_800_000
"""When the year 1 began, by UTC."""


def duration_text(milliseconds: int) -> str:
    """`0s`, `120ms`, `1s`, `6m0s`, `72h0m0s`: as OpenAI writes the time until a limit resets."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    # Five digits at most, so that none is rounded off.
    if minutes < 60:
        return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
    return f"{minutes // 60}h{minutes % 60}m{rest / 1000:g}s"


def rfc3339(ms: int) -> str:
    """Of what is beyond the years that can be written so, the first or last moment of these."""
    return (
        datetime.fromtimestamp(min(max(ms, _FIRST_MS), FOREVER_MS - 1) / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
