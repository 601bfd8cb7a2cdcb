from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from time import monotonic

import pytest
import uvloop

from gateway.runtime.timer_sweep import STEP_S, TimerSweep

STANDS_STILL_S = 0.03
"""Longer than the time to what is read meanwhile."""


class Expirations:
    """Counts, and does what it was told."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.then = then
        self.happened = asyncio.Event()
        self.times = 0
        self.at = 0.0

    def expired(self) -> None:
        self.times += 1
        self.at = monotonic()
        self.happened.set()
        self.then()


async def test_it_expires_at_its_time_or_a_little_later() -> None:
    timers, one = TimerSweep(), Expirations()
    when = monotonic() + 0.05
    timers.add(one, when)
    async with asyncio.timeout(5):
        await one.happened.wait()
    assert one.at >= when
    assert one.times == 1


@pytest.mark.parametrize("wait_s", [0, 0.002, 0.03, 0.25, 1, 3.99, 4, 60, 3600])
async def test_a_time_is_rounded_up_by_a_sixteenth_at_most(wait_s: float) -> None:
    timers, when = TimerSweep(), monotonic() + wait_s
    at = timers.add(Expirations(), when)
    late = at - when
    assert 0 < late <= max(0.002, min(STEP_S, wait_s / 16))


async def test_those_that_expire_at_about_the_same_time_share_one_timer() -> None:
    timers, when = TimerSweep(), monotonic() + 60
    times = {timers.add(Expirations(), when + number / 1_000) for number in range(1_000)}
    assert len(times) <= 1 + 1 / STEP_S


async def test_what_is_discarded_does_not_expire() -> None:
    timers, one, other = TimerSweep(), Expirations(), Expirations()
    when = monotonic() + 0.02
    at = timers.add(one, when)
    timers.add(other, when)
    timers.discard(one, at)
    async with asyncio.timeout(5):
        await other.happened.wait()
    assert one.times == 0
    timers.discard(other, at)


async def test_what_is_discarded_by_another_that_expires_with_it_does_not_expire() -> None:
    timers = TimerSweep()
    when = monotonic() + 0.02
    each = Expirations(), Expirations()
    at = [timers.add(one, when) for one in each]
    each[0].then = lambda: timers.discard(each[1], at[1])
    each[1].then = lambda: timers.discard(each[0], at[0])
    later = Expirations()
    timers.add(later, when + 0.05)
    async with asyncio.timeout(5):
        await later.happened.wait()
    assert each[0].times + each[1].times == 1


async def test_one_that_raises_does_not_keep_the_others_from_expiring() -> None:
    loop, raised = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _loop, context: raised.append(context["exception"]))
    timers, when = TimerSweep(), monotonic() + 0.02
    each = [Expirations(lambda: 1 / 0) for _ in range(3)]
    for one in each:
        timers.add(one, when)
    async with asyncio.timeout(5):
        for one in each:
            await one.happened.wait()
        await asyncio.sleep(0)
    assert len(raised) == 3


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_what_arrived_while_the_process_stood_still_is_read_before_a_time_has_come(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(_stand_still_beyond_a_time()) == ["read", "expired"]


async def _stand_still_beyond_a_time() -> list[str]:
    """What happens afterwards, where a byte arrived meanwhile."""
    loop, happened = asyncio.get_running_loop(), list[str]()
    ours, theirs = socket.socketpair()
    one = Expirations(lambda: happened.append("expired"))

    def read() -> None:
        happened.append(ours.recv(5).decode())
        if happened == ["stop"]:
            happened.clear()
            time.sleep(STANDS_STILL_S)
            theirs.send(b"read")

    with ours, theirs:
        loop.add_reader(ours, read)
        TimerSweep().add(one, monotonic() + STANDS_STILL_S / 3)
        theirs.send(b"stop")
        await one.happened.wait()
        loop.remove_reader(ours)
    return happened
