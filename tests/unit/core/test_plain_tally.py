from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.endpoints import CHAT
from gateway.core.plain_tally import KEPT_MAX, PlainTally
from gateway.core.refusals import Fault
from gateway.core.usage import Usage

REPORT = json.dumps({"prompt_tokens": 12, "completion_tokens": 45, "total_tokens": 57}).encode()
NUMBERS = Usage(12, 45)


def plain(body: bytes, step: int = 10**9, *, fault: Fault | None = None) -> PlainTally:
    tally = PlainTally(CHAT, fault=fault)
    for at in range(0, len(body), step):
        tally.feed(body[at : at + step])
    return tally


def body_of(size: int, *, first: bool = False) -> bytes:
    """A body of about this size, of which no middle can be left out unseen."""
    content = '"choices":[{"message":{"content":"\\"usage\\": {}"}},[' + "[1.5]," * (size // 6) + "0]]"
    usage = f'"usage":{REPORT.decode()}'
    return ("{" + (f"{usage},{content}" if first else f"{content},{usage}") + "}\n").encode()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("size", [0, 1_000, KEPT_MAX - 200, KEPT_MAX - 10, KEPT_MAX, 5 * KEPT_MAX])
@pytest.mark.parametrize("step", [997, 65_536, 10**9])
def test_the_usage_of_a_plain_answer_is_found_at_either_end(size: int, first: bool, step: int) -> None:
    body = body_of(size, first=first)
    tally = plain(body, step)
    assert tally.usage == NUMBERS


@settings(deadline=None, max_examples=20)
@given(st.integers(-400, 400), st.integers(1, 400))
def test_usage_at_the_border_of_what_is_kept_is_found(offset: int, last: int) -> None:
    body = body_of(KEPT_MAX + offset)
    tally = PlainTally(CHAT)
    tally.feed(body[:-last])
    tally.feed(body[-last:])
    assert tally.usage == NUMBERS


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"usage":null}', b'{"usage":{"a":1e999}}', b"\xff"])
def test_a_plain_answer_without_usage_has_none(body: bytes) -> None:
    assert plain(body).usage is None


def test_an_error_body_has_neither_usage_nor_text() -> None:
    tally = plain(b'{"error":{"message":"bad"},"usage":' + REPORT + b"}", fault=Fault.CALLER)
    assert (tally.usage, tally.delivered, tally.failed) == (None, 0, True)


@given(st.binary(max_size=100))
def test_no_plain_body_raises(body: bytes) -> None:
    for wrapped in (body, b'{"usage":' + body + b"}", b"x" * KEPT_MAX + b'"usage":' + body + b"}"):
        plain(wrapped).usage  # noqa: B018


def test_events_that_were_not_asked_for_are_read_as_events() -> None:
    word = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
    tally = plain(b": ping\n\n" + word * 3 + b'data: {"choices":[],"usage":' + REPORT + b"}\n\ndata: [DONE]")
    assert (tally.usage, tally.delivered) == (NUMBERS, 3)
    broken = plain(word * 2 + b'data: {"error":{"message":"out of memory"}}\n\n')
    broken.close()
    assert broken.fault is Fault.UNKNOWN


@pytest.mark.parametrize("number", ["1", "1" * 5000])
def test_the_text_of_an_answer_without_usage_is_weighed_whatever_is_beside_it(number: str) -> None:
    text = "All of this was delivered. " * 40
    body = f'{{"created":{number},"choices":[{{"message":{{"content":"{text}"}}}}]}}'
    tally = PlainTally(CHAT)
    tally.feed(body.encode())
    tally.close()
    assert tally.usage is None
    assert tally.delivered > len(text) / 5
    assert not tally.failed


def test_an_error_in_a_choice_beside_text_is_a_failure_with_what_was_delivered() -> None:
    choice = {"message": {"content": "word " * 200}, "error": {"code": 502, "message": "it broke"}}
    tally = PlainTally(CHAT)
    tally.feed(json.dumps({"choices": [choice]}).encode())
    tally.close()
    assert (tally.fault, tally.is_empty, tally.delivered > 100) == (Fault.PROVIDER, False, True)
