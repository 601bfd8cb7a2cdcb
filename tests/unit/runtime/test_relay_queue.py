"""Whose answer is read on next."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

import pytest

from gateway.runtime.relay_queue import COSTLY_S, PAUSE, TURN_S, RelayQueue
from gateway.runtime.turn import PASSED_BYTES, Turn


class Answer:
    """One that has no end. Each read takes so long to be passed on, as it says; it counts them."""

    def __init__(self, queue: RelayQueue, cost_s: float) -> None:
        self.reads = 0
        self._queue = queue
        self._cost_s = cost_s

    def begin(self) -> None:
        self._queue.wait(self._read, self._cost_s)

    def _read(self) -> bool:
        self.reads += 1
        self.begin()
        return True


class Client:
    """Takes what is written."""

    held = b""

    def write_now(self, data: bytes) -> None:
        pass


async def test_one_answer_goes_on_in_every_other_turn() -> None:
    answer = Answer(RelayQueue(Turn()), TURN_S / 10)
    answer.begin()
    for turn in range(20):
        assert answer.reads == turn // 2
        await asyncio.sleep(0)


async def test_many_answers_share_what_one_turn_has_in_rotation() -> None:
    queue = RelayQueue(Turn())
    answers = [Answer(queue, TURN_S / 4) for _ in range(20)]
    for answer in answers:
        answer.begin()
    for turn in range(1, 41):
        await asyncio.sleep(0)
        assert sum(answer.reads for answer in answers) == 4 * (turn // 2)
    assert {answer.reads for answer in answers} == {4}


async def test_a_costly_answer_waits_for_several_times_what_it_took() -> None:
    queue, cost_s = RelayQueue(Turn()), 5 * COSTLY_S
    answer, began = Answer(queue, cost_s), monotonic()
    answer.begin()
    while not answer.reads:
        await asyncio.sleep(0)
    assert monotonic() - began >= PAUSE * cost_s


async def test_many_costly_answers_go_on_one_at_a_time_and_hold_up_no_other() -> None:
    queue, cost_s = RelayQueue(Turn()), 5 * COSTLY_S
    costly = [Answer(queue, cost_s) for _ in range(10)]
    ordinary = Answer(queue, TURN_S / 10)
    began = monotonic()
    for answer in (*costly, ordinary):
        answer.begin()
    turns = 0
    while sum(answer.reads for answer in costly) < 3:
        await asyncio.sleep(0)
        turns += 1
    assert monotonic() - began >= 3 * PAUSE * cost_s
    assert ordinary.reads >= turns // 2 - 1
    assert [answer.reads for answer in costly] == [1] * 3 + [0] * 7


async def test_a_flood_of_new_costly_answers_does_not_keep_those_that_wait_waiting() -> None:
    queue, cost_s = RelayQueue(Turn()), 2 * COSTLY_S
    waiting, began = Answer(queue, cost_s), monotonic()
    waiting.begin()
    new: list[Answer] = []
    while not waiting.reads and monotonic() - began < 20 * PAUSE * cost_s:
        new.append(Answer(queue, cost_s))
        new[-1].begin()
        await asyncio.sleep(cost_s / 2)
    assert waiting.reads == 1


async def test_answers_that_have_ended_take_no_time_of_those_that_wait_behind_them() -> None:
    queue, cost_s = RelayQueue(Turn()), 5 * COSTLY_S
    for _ in range(20):
        queue.wait(lambda: False, cost_s)
    waiting, began = Answer(queue, cost_s), monotonic()
    waiting.begin()
    while not waiting.reads:
        await asyncio.sleep(0)
    assert monotonic() - began < 10 * PAUSE * cost_s


@pytest.mark.parametrize("cost_s", [TURN_S / 10, 2 * COSTLY_S])
async def test_one_that_fails_costs_those_behind_it_nothing(cost_s: float) -> None:
    queue, told = RelayQueue(Turn()), asyncio.Event()
    failures: list[str] = []
    queue.loop.set_exception_handler(lambda loop, context: failures.append(repr(context["exception"])))
    queue.wait(partial(next, iter(list[bool]())), cost_s)
    queue.wait(lambda: not told.set(), cost_s)  # type: ignore[func-returns-value]  # It goes on.
    async with asyncio.timeout(10):
        await told.wait()
    assert failures == ["StopIteration()"]


async def test_what_waits_has_the_next_share_before_what_comes() -> None:
    turn, lefts = Turn(), list[int]()
    turn.left = 0

    def go_on() -> bool:
        lefts.append(turn.left)
        return True

    RelayQueue(turn).wait(go_on, 0)
    turn.hold(Client(), b"x")
    await asyncio.sleep(0)
    assert (turn.left, lefts) == (0, [])
    await asyncio.sleep(0)
    assert lefts == [PASSED_BYTES]


async def test_what_waits_goes_on_as_far_as_the_turn_has_bytes_left() -> None:
    turn, gone_on = Turn(), list[None]()
    queue = RelayQueue(turn)

    def go_on() -> bool:
        turn.left -= PASSED_BYTES // 2
        gone_on.append(None)
        return True

    for _ in range(5):
        queue.wait(go_on, 0)
    for expected in (0, 2, 2, 4, 4, 5):
        await asyncio.sleep(0)
        assert len(gone_on) == expected
