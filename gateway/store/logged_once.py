"""Logs an error that is found again and again only the first time.

The replay of the journals meets the same damaged file each second. What is met again stays known; of what is not, the
last `REMEMBERED` are, so that files that come and go for months do not fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable

REMEMBERED = 1_000


class LoggedOnce:
    def __init__(self, log_error: Callable[[str], None], remembered: int = REMEMBERED) -> None:
        self._log_error = log_error
        self._remembered = remembered
        self._known: dict[str, None] = {}
        """The one that was met longest ago is the first."""

    def __call__(self, message: str, about: object = None) -> None:
        """Of several messages about one thing only the first is logged."""
        key = str(about or message)
        if key in self._known:
            del self._known[key]
        else:
            self._log_error(message)
        self._known[key] = None
        if len(self._known) > self._remembered:
            del self._known[next(iter(self._known))]
