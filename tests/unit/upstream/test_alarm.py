from __future__ import annotations

import asyncio
from time import monotonic

from gateway.upstream.alarm import Alarm


class Bell:
    """Notes when it rings, and asks to ring again as it is told."""

    def __init__(self, *again: float | None) -> None:
        self.again = list(again)
        self.rung = asyncio.Event()
        self.times = 0

    def ring(self) -> float | None:
        self.times += 1
        self.rung.set()
        return self.again.pop(0) if self.again else None


async def test_an_alarm_rings_at_the_earliest_time_asked_for() -> None:
    bell = Bell()
    alarm = Alarm(asyncio.get_running_loop(), bell.ring)
    alarm.by(monotonic() + 60)
    alarm.by(monotonic() + 0.01)
    alarm.by(monotonic() + 60)
    async with asyncio.timeout(5):
        await bell.rung.wait()
    assert bell.times == 1


async def test_an_alarm_rings_again_when_it_is_told() -> None:
    bell = Bell(monotonic(), monotonic())
    alarm = Alarm(asyncio.get_running_loop(), bell.ring)
    alarm.by(monotonic())
    async with asyncio.timeout(5):
        while bell.times < 3:
            bell.rung.clear()
            await bell.rung.wait()
    assert bell.times == 3


async def test_a_silenced_alarm_does_not_ring() -> None:
    bell, other = Bell(), Bell()
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, bell.ring)
    alarm.by(monotonic())
    alarm.silence()
    Alarm(loop, other.ring).by(monotonic() + 0.02)
    await other.rung.wait()
    assert bell.times == 0


async def test_asking_for_a_later_time_costs_no_timer() -> None:
    class CountingLoop:
        timers = 0

        def call_later(self, delay: float, callback: object) -> None:
            self.timers += 1
            return asyncio.get_running_loop().call_later(60, print)  # type: ignore[return-value]

    loop = CountingLoop()
    alarm = Alarm(loop, lambda: None)  # type: ignore[arg-type]
    for later in range(100):
        alarm.by(monotonic() + 60 + later)
    assert loop.timers == 1
    alarm.silence()
