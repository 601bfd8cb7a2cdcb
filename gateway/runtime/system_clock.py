"""The system's clock and ids. Tests inject others, so that they never sleep."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator

_TWO_DIGITS = tuple(f"{number:02x}" for number in range(256))


class SystemClock:
    """A `gateway.core.clock.Clock`."""

    monotonic = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def id_maker() -> Callable[[], str]:
    """A source of ids that no two processes share: 64 random bits for the process, then a count of eight digits.

    Each request needs two. To join an id from digits that are written already takes a third of writing its number.
    """
    process = secrets.token_hex(8)

    def beginning_with(digits: int) -> Iterator[str]:
        return map("".join, itertools.product((f"{process}{digits:04x}",), _TWO_DIGITS, _TWO_DIGITS))

    return itertools.chain.from_iterable(map(beginning_with, itertools.count())).__next__
