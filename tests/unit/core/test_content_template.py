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


def text_alone(template: ContentTemplate, event: bytes) -> bytes | None:
    """The text of an event alone, None where the event is not like the template."""
    text = event.removeprefix(template.opening).removesuffix(template.closing)
    return text if len(event) - len(text) == template.size else None


def test_an_event_alone_has_its_text_between_the_same_places() -> None:
    assert text_alone(learned(), chunk(b"another")) == b"another"
    assert text_alone(learned(), chunk(b"")) == b""


def test_what_is_not_like_the_template_at_both_ends_has_no_text_alone() -> None:
    template, event = learned(), chunk(b"one")
    for other in (event[:-1], event[1:], chunk(b"one", closing=b"}}] }"), b"", template.opening, template.closing):
        assert text_alone(template, other) is None
    # What is shorter than the two together, and begins and ends as they do.
    assert text_alone(template, template.opening + template.closing[1:]) is None


def test_a_suspended_template_knows_nothing_until_it_is_resumed() -> None:
    template, event = learned(), chunk(b"one")
    template.suspend()
    assert (template.texts_of(event, 0), text_alone(template, event)) == ([], None)
    template.resume()
    assert (template.texts_of(event, 0), text_alone(template, event)) == ([b"one"], b"one")


def test_a_template_that_has_learned_nothing_fits_nothing() -> None:
    for template in (ContentTemplate(StreamFormat.CHAT), learned()):
        template.learn(b'data: {"choices":[]}\n\n')
        assert text_alone(template, chunk(b"word")) is text_alone(template, b"") is None
    assert text_alone(ContentTemplate(StreamFormat.CHAT), b": a comment\n\n") is None


def test_nothing_is_learned_from_an_event_without_a_plain_text() -> None:
    for event in (b'data: {"choices":[]}\n\n', chunk(b""), chunk(rb"a \"quote\"")):
        template = learned()
        template.learn(event)
        assert template.texts_of(event, 0) == template.texts_of(chunk(b"word"), 0) == []


def test_a_format_whose_events_are_numbered_has_no_template() -> None:
    template = ContentTemplate(StreamFormat.RESPONSES)
    template.learn(chunk(b"word"))
    assert template.texts_of(chunk(b"word"), 0) == []
