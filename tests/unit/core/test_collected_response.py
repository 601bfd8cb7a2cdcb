from __future__ import annotations

import pytest

from gateway.core.collected_response import CollectedResponse
from gateway.core.errors import UpstreamBroke
from tests.unit.fakes import ScriptedAnswer


class Signal:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_what_was_collected_comes_before_what_the_upstream_still_sends() -> None:
    answer, too_long = ScriptedAnswer(b"ab", b"cd", hangs=True), Signal()
    collected = CollectedResponse(answer, 10, too_long)
    assert (collected.body, collected.is_too_long, too_long.times) == (b"abcd", False, 0)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    answer.say(b"ef")
    await collected.finished()
    assert received == [b"ab", b"cd", b"ef"]


async def test_an_answer_that_is_too_long_waits_at_the_upstream() -> None:
    answer, too_long = ScriptedAnswer(b"abc", b"def", b"ghi"), Signal()
    collected = CollectedResponse(answer, 4, too_long)
    assert (collected.body, collected.is_too_long, too_long.times, answer.paused) == (b"abcdef", True, 1, True)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    assert received == [b"abc", b"def"]
    collected.resume()
    await collected.finished()
    assert received == [b"abc", b"def", b"ghi"]


async def test_an_answer_that_breaks_says_so_when_it_is_waited_for() -> None:
    collected = CollectedResponse(ScriptedAnswer(b"a", failure=UpstreamBroke("It broke.")), 4, Signal())
    with pytest.raises(UpstreamBroke):
        await collected.finished()
    assert (collected.body, collected.is_whole) == (b"a", False)
