"""How long Redis keeps the records of reservations, which make settling twice harmless.

A record is written to last for long. Once every reservation of its second is settled, and this process
knows it, nothing can come again but a repetition within the hour, and it may end then. What this
process never learned about, because it or Redis went away, stays until a journal can have settled it.
"""

from __future__ import annotations

LONG_MS = 7 * 86_400_000
"""A settlement of which the gateway does not know whether it happened can be repeated for a week."""

SHORT_MS = 3_600_000
"""One of which it does know, for an hour."""

_QUIET_MS = 2_000
"""A second is over when it is this far behind: clocks are only nearly the same."""


class Records:
    """Counts what is open in each second; `done` gives the records that may end."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._keys: dict[int, set[str]] = {}

    def begin(self, at_ms: int, keys: list[str]) -> None:
        second = at_ms // 1000
        self._open[second] = self._open.get(second, 0) + 1
        self._keys.setdefault(second, set()).update(keys)

    def end(self, at_ms: int) -> None:
        second = at_ms // 1000
        if second in self._open:
            self._open[second] -= 1

    def done(self, now_ms: int) -> list[str]:
        over = (now_ms - _QUIET_MS) // 1000
        seconds = [second for second, count in self._open.items() if second < over and count <= 0]
        keys: list[str] = []
        for second in seconds:
            del self._open[second]
            keys += self._keys.pop(second)
        return keys
