"""The pauses between attempts of something that keeps failing."""

from __future__ import annotations


class Backoff:
    """Each pause is twice as long as the one before, up to `longest_s`; `reset` begins with the first again."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The pause before the next attempt."""
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, self._longest_s)
        return pause_s

    def reset(self) -> None:
        self._next_s = self._first_s
