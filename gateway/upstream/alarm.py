"""A timer that is cheap to move later: it rings at the earliest time asked for and asks what is next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic


class Alarm:
    """`ring` is called when the time has come and returns when to ring again, or None. Times are
    monotonic seconds."""

    __slots__ = ("_handle", "_loop", "_ring", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], float | None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._when = 0.0

    def by(self, when: float) -> None:
        """Ring no later than `when`; free where it would anyhow."""
        if self._handle is not None:
            if self._when <= when:
                return
            self._handle.cancel()
        self._when = when
        self._handle = self._loop.call_later(when - monotonic(), self._due)

    def silence(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _due(self) -> None:
        self._handle = None
        when = self._ring()
        if when is not None:
            self.by(when)
