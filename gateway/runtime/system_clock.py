"""The system's clock and ids. Tests inject others, so that they never sleep."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable


class SystemClock:
    """A `gateway.core.clock.Clock`."""

    monotonic = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def id_maker() -> Callable[[], str]:
    """A source of ids that no two processes share: 64 random bits for the process, then a count."""
    written = f"{secrets.token_hex(8)}%08x".__mod__
    return map(written, itertools.count()).__next__  # Each request needs two: without a frame of Python for each.
