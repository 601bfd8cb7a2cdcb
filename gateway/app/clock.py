"""The real clock, dice and ids. Tests give false ones, so that they never sleep."""

from __future__ import annotations

import secrets
import time


class SystemClock:
    """A `gateway.core.clock.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def new_id() -> str:
    """An id that nobody can guess and no two processes share: 96 random bits."""
    return secrets.token_hex(12)
