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
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f"{rest:03d}".rstrip("0")
    text = f"{seconds}.{fraction}s" if fraction else f"{seconds}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def rfc3339(ms: int) -> str:
    """Of what is beyond the years that can be written so, the first or last moment of these."""
    return (
        datetime.fromtimestamp(min(max(ms, _FIRST_MS), FOREVER_MS - 1) / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
