from __future__ import annotations

import pytest

from gateway.core.body_kind import BodyKind
from gateway.core.collected_response import CollectedResponse
from gateway.core.errors import UpstreamBroke
from tests.unit.fakes import ScriptedAnswer


class Signal:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_what_was_collected_comes_before_what_the_upstream_still_sends() -> None:
    answer, changed = ScriptedAnswer(b"ab", b"cd", hangs=True), Signal()
    collected = CollectedResponse(answer, 10, changed)
    assert (collected.body, collected.is_too_long) == (b"abcd", False)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    answer.say(b"ef")
    await collected.finished()
    assert received == [b"ab", b"cd", b"ef"]


async def test_an_answer_that_is_too_long_waits_at_the_upstream() -> None:
    answer, changed = ScriptedAnswer(b"{bc", b"def", b"ghi"), Signal()
    collected = CollectedResponse(answer, 4, changed)
    assert (collected.body, collected.is_too_long, changed.times, answer.paused) == (b"{bcdef", True, 2, True)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    assert received == [b"{bc", b"def"]
    collected.resume()
    await collected.finished()
    assert received == [b"{bc", b"def", b"ghi"]


async def test_an_answer_that_breaks_says_so_when_it_is_waited_for() -> None:
    collected = CollectedResponse(ScriptedAnswer(b"a", failure=UpstreamBroke("It broke.")), 4, Signal())
    with pytest.raises(UpstreamBroke):
        await collected.finished()
    assert (collected.body, collected.is_whole) == (b"a", False)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((b"da", b"ta: x"), BodyKind.EVENTS),
        ((b"\r\n", b' {"a":1}'), BodyKind.JSON),
        ((b"<htm", b"l>"), BodyKind.OTHER),
    ],
)
async def test_what_an_answer_is_is_known_once_its_bytes_show_it(pieces: tuple[bytes, ...], kind: BodyKind) -> None:
    answer, changed = ScriptedAnswer(hangs=True), Signal()
    collected = CollectedResponse(answer, 1_000, changed)
    assert (collected.kind, changed.times) == (None, 0)
    answer.say(*pieces, b"more")
    assert (collected.kind, changed.times) == (kind, 1)
