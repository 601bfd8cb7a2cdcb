from __future__ import annotations

import asyncio

import pytest

from gateway.runtime.loop_lag import LOOK_EVERY_S, watch_loop_lag

PATIENCE_S = 10.0


class SkippingClock:
    """Real waits are short; this clock says that they took what it is told."""

    def __init__(self, *waits_s: float) -> None:
        self._now = 0.0
        self._waits = list(waits_s)
        self._odd = False

    def monotonic(self) -> float:
        if self._odd:
            self._now += self._waits.pop(0)
        self._odd = not self._odd
        return self._now


async def test_the_lag_is_what_a_wait_took_too_long() -> None:
    observed: asyncio.Queue[float] = asyncio.Queue()
    clock = SkippingClock(LOOK_EVERY_S + 0.25, LOOK_EVERY_S, LOOK_EVERY_S - 0.001, 1.0)
    watching = asyncio.ensure_future(watch_loop_lag(observed.put_nowait, clock.monotonic))
    lags = [await asyncio.wait_for(observed.get(), PATIENCE_S) for _ in range(3)]
    watching.cancel()
    assert lags == pytest.approx([0.25, 0.0, 0.0])
