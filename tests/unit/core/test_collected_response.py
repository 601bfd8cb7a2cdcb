from __future__ import annotations

import asyncio

import pytest

from gateway.core.body_kind import BodyKind
from gateway.core.collected_response import CollectedResponse
from gateway.core.errors import UpstreamBroke
from gateway.core.redaction import Redactor
from tests.unit.fakes import ScriptedAnswer


async def test_what_was_collected_comes_before_what_the_upstream_still_sends() -> None:
    answer = ScriptedAnswer(b"ab", b"cd", hangs=True)
    collected = CollectedResponse(answer, 10)
    assert (collected.body, collected.is_too_long) == (b"abcd", False)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    answer.say(b"ef")
    await collected.finished()
    assert received == [b"ab", b"cd", b"ef"]


async def test_an_answer_that_is_too_long_waits_at_the_upstream() -> None:
    answer = ScriptedAnswer(b"{bc", b"def", b"ghi")
    collected = CollectedResponse(answer, 4)
    assert (collected.body, collected.is_too_long, answer.paused) == (b"{bcdef", True, True)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    assert received == [b"{bc", b"def"]
    collected.resume()
    await collected.finished()
    assert received == [b"{bc", b"def", b"ghi"]


async def test_an_answer_that_breaks_says_so_when_it_is_waited_for() -> None:
    collected = CollectedResponse(ScriptedAnswer(b"a", failure=UpstreamBroke("It broke.")), 4)
    with pytest.raises(UpstreamBroke):
        await collected.finished()
    assert (collected.body, collected.is_whole) == (b"a", False)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((b"da", b"ta: x"), BodyKind.EVENTS),
        ((b"\r\n", b' {"a":1}'), BodyKind.JSON),
        ((b"<html>",), BodyKind.OTHER),
    ],
)
async def test_what_an_answer_is_is_known_once_its_bytes_show_it(pieces: tuple[bytes, ...], kind: BodyKind) -> None:
    answer = ScriptedAnswer(hangs=True)
    collected = CollectedResponse(answer, 1_000)
    assert collected.kind is None
    waiting = asyncio.ensure_future(collected.woken())
    for piece in pieces:
        assert not waiting.done()
        answer.bring(piece)
    await waiting
    assert collected.kind is kind


async def test_who_waits_for_the_whole_of_an_answer_waits_no_longer_than_it_is_collected() -> None:
    answer = ScriptedAnswer(b'{"', hangs=True)
    collected = CollectedResponse(answer, 4)
    waiting = asyncio.ensure_future(collected.woken())
    answer.bring(b"bc")
    assert not waiting.done()
    answer.bring(b"def")
    await waiting
    assert (collected.is_over, collected.is_too_long) == (False, True)


class AvailableAnswer(ScriptedAnswer):
    """It has come whole, in one piece."""

    def available(self) -> bytes:  # type: ignore[override]  # Other answers are not.
        self.say()
        return self._waiting.pop()


async def test_an_available_answer_is_collected_without_a_reader_and_can_be_passed_on_once() -> None:
    collected = CollectedResponse(AvailableAnswer(b'{"a":1}'), 1_000)
    assert (collected.body, collected.kind, collected.is_too_long) == (b'{"a":1}', BodyKind.JSON, False)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    assert received == [b'{"a":1}']


async def test_an_available_answer_is_redacted_as_a_whole() -> None:
    secret = "sk-an-upstreams-own-key"
    collected = CollectedResponse(AvailableAnswer(f'{{"you sent":"{secret}"}}'.encode()), 1_000, Redactor.of([secret]))
    collected.redact_body()
    assert (collected.body, collected.redacted) == (b'{"you sent":"[redacted]"}', 1)
    received: list[bytes] = []
    collected.deliver_to(received.append)
    collected.end()
    assert received == [b'{"you sent":"[redacted]"}']
