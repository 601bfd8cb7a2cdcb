"""Texts are found by the bytes around them, and nothing else passes for a text."""

from __future__ import annotations

from gateway.core.content_template import ContentTemplate
from gateway.core.endpoints import StreamFormat


def chunk(text: bytes, *, closing: bytes = b"}}]}") -> bytes:
    return b'data: {"choices":[{"delta":{"content":"' + text + b'"' + closing + b"\n\n"


def learned(text: bytes = b"word") -> ContentTemplate:
    template = ContentTemplate(StreamFormat.CHAT)
    template.learn(chunk(text))
    return template


def test_a_run_of_events_gives_its_texts_up_to_the_first_other_event() -> None:
    run = chunk(b"one") + chunk(b"") + chunk(rb"say \"two\"")
    for behind in (b"", b"data: [DONE]\n\n", chunk(b"three", closing=b'},"finish_reason":"stop"}]}'), chunk(b"x")[:-1]):
        assert learned().texts_of(run + behind, 0) == [b"one", b"", rb"say \"two\""]


def test_a_member_behind_the_text_is_no_text() -> None:
    template = learned()
    assert template.texts_of(chunk(b'one","tool_calls":"two'), 0) == []
    assert template.texts_of(chunk(b"one") + chunk(b'two","tool_calls":"three'), 0) == [b"one"]


def test_an_event_alone_has_its_text_between_the_same_places() -> None:
    template, event = learned(), chunk(b"another")
    assert event[template.text_begin : template.text_end] == b"another"
    assert template.size == len(chunk(b""))


def test_a_suspended_template_knows_nothing_until_it_is_resumed() -> None:
    template, event = learned(), chunk(b"one")
    template.suspend()
    assert (template.texts_of(event, 0), event[template.text_begin : template.text_end]) == ([], b"")
    template.resume()
    assert template.texts_of(event, 0) == [b"one"]


def test_nothing_is_learned_from_an_event_without_a_plain_text() -> None:
    for event in (b'data: {"choices":[]}\n\n', chunk(b""), chunk(rb"a \"quote\"")):
        template = learned()
        template.learn(event)
        assert template.texts_of(event, 0) == template.texts_of(chunk(b"word"), 0) == []


def test_a_format_whose_events_are_numbered_has_no_template() -> None:
    template = ContentTemplate(StreamFormat.RESPONSES)
    template.learn(chunk(b"word"))
    assert template.texts_of(chunk(b"word"), 0) == []
