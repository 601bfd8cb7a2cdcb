from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from time import monotonic

import pytest
import uvloop

from gateway.core.errors import RequestMalformed, UpstreamTimedOut
from gateway.core.snapshot import Timeouts
from gateway.upstream.deadlines import CLIENT_BYTES_PER_S, CLIENT_GRACE_S, Deadlines, DeadlineTimer

TIMEOUTS = Timeouts(connect=1, first_byte=20, idle=5, total=100)
STANDS_STILL_S = 0.03
"""Longer than the deadline of what is read meanwhile."""


def failure(deadlines: Deadlines, now: float) -> tuple[str, str]:
    error = deadlines.error(now, "inducta")
    assert isinstance(error, UpstreamTimedOut)
    return error.outcome, error.message.removeprefix("Upstream 'inducta' ")


class Expirations:
    """Counts, and asks for the next time as it was told."""

    def __init__(self, *again: float | None) -> None:
        self.again = list(again)
        self.happened = asyncio.Event()
        self.times = 0

    def expired(self) -> float | None:
        self.times += 1
        self.happened.set()
        return self.again.pop(0) if self.again else None


async def test_a_timer_expires_at_the_earliest_time_asked_for() -> None:
    expirations = Expirations()
    timer = DeadlineTimer(asyncio.get_running_loop(), expirations.expired)
    timer.arm(monotonic() + 60)
    timer.arm(monotonic() + 0.01)
    timer.arm(monotonic() + 60)
    async with asyncio.timeout(5):
        await expirations.happened.wait()
    assert expirations.times == 1


async def test_a_timer_expires_again_when_it_is_told() -> None:
    expirations = Expirations(monotonic(), monotonic())
    timer = DeadlineTimer(asyncio.get_running_loop(), expirations.expired)
    timer.arm(monotonic())
    async with asyncio.timeout(5):
        while expirations.times < 3:
            expirations.happened.clear()
            await expirations.happened.wait()
    assert expirations.times == 3


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_what_arrived_while_the_process_stood_still_is_read_before_a_deadline_is_judged(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(_stand_still_beyond_a_deadline()) == ["read", "expired"]


async def _stand_still_beyond_a_deadline() -> list[str]:
    """What happens afterwards, where a byte arrived meanwhile."""
    loop, happened, over = asyncio.get_running_loop(), list[str](), asyncio.Event()
    ours, theirs = socket.socketpair()

    def read() -> None:
        happened.append(ours.recv(5).decode())
        if happened == ["stop"]:
            happened.clear()
            time.sleep(STANDS_STILL_S)
            theirs.send(b"read")

    def expired() -> None:
        happened.append("expired")
        over.set()

    with ours, theirs:
        loop.add_reader(ours, read)
        DeadlineTimer(loop, expired).arm(monotonic() + STANDS_STILL_S / 3)
        theirs.send(b"stop")
        await over.wait()
        loop.remove_reader(ours)
    return happened


async def test_a_cancelled_timer_does_not_expire() -> None:
    expirations, other = Expirations(), Expirations()
    loop = asyncio.get_running_loop()
    timer = DeadlineTimer(loop, expirations.expired)
    timer.arm(monotonic())
    timer.cancel()
    DeadlineTimer(loop, other.expired).arm(monotonic() + 0.02)
    await other.happened.wait()
    assert expirations.times == 0


async def test_asking_for_a_later_time_costs_no_timer() -> None:
    class CountingLoop:
        armed = 0

        def call_later(self, delay: float, callback: object) -> None:
            self.armed += 1
            return asyncio.get_running_loop().call_later(60, print)  # type: ignore[return-value]

    loop = CountingLoop()
    timer = DeadlineTimer(loop, lambda: None)  # type: ignore[arg-type]
    for later in range(100):
        timer.arm(monotonic() + 60 + later)
    assert loop.armed == 1
    timer.cancel()


def test_a_request_that_is_not_taken_has_the_idle_time() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    assert deadlines.next == 1005
    deadlines.sending(1003)
    assert deadlines.next == 1008
    assert failure(deadlines, 1008) == ("send_timeout", "read no byte of the request for 5 s.")


def test_the_first_byte_has_its_time_from_the_end_of_the_request() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.awaiting_response(1010)
    assert deadlines.next == 1030
    assert failure(deadlines, 1030) == ("first_byte_timeout", "sent no byte of an answer for 20 s.")


def test_each_piece_starts_the_idle_time_again() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.receiving(1001)
    assert deadlines.next == 1006
    deadlines.since = 1004
    assert deadlines.next == 1009
    assert failure(deadlines, 1009) == ("idle_timeout", "sent nothing more for 5 s.")


def test_the_total_time_binds_whatever_else_happens() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.receiving(1099)
    assert deadlines.next == 1100
    assert failure(deadlines, 1100) == (
        "total_timeout",
        "did not end its answer within 100 s in all.",
    )


def test_while_the_reader_has_paused_only_the_total_time_runs() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.receiving(1001)
    deadlines.paused()
    assert deadlines.next == 1100
    deadlines.receiving(1050)
    assert deadlines.next == 1055


def test_a_client_that_sends_no_more_has_the_idle_time_and_the_blame() -> None:
    deadlines = Deadlines(TIMEOUTS, began=1000)
    deadlines.waiting_for_client(1010, 0)
    assert deadlines.next == 1015
    error = deadlines.error(1015, "inducta")
    assert isinstance(error, RequestMalformed)
    assert error.message == "No more of the body arrived for 5 seconds. Send it faster."


def test_a_client_that_sends_a_little_now_and_then_has_so_long_in_all() -> None:
    deadlines = Deadlines(Timeouts(connect=1, first_byte=20, idle=60, total=900), 1000)
    for second in range(9):
        deadlines.waiting_for_client(1000 + second, second)
        assert deadlines.next > 1000 + second + 1
    deadlines.sending(1009)
    deadlines.waiting_for_client(1500, 9)
    assert 1500 < deadlines.next < 1501.1


def test_a_client_that_sends_more_than_the_least_rate_may_go_on() -> None:
    deadlines = Deadlines(Timeouts(connect=1, first_byte=20, idle=60, total=900), 1000)
    for second in range(500):
        deadlines.waiting_for_client(1000 + second, second * CLIENT_BYTES_PER_S)
        assert deadlines.next == 1000 + second + CLIENT_GRACE_S
