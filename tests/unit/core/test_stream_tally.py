from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoints import CHAT, COMPLETIONS, ENDPOINTS, Endpoint
from gateway.core.refusals import Fault
from gateway.core.sse import data_of
from gateway.core.stream_tally import HELD_MAX, StreamTally
from gateway.core.usage import Usage
from gateway.core.usage_report import read_usage
from tests.unit.core.recordings import needs_recordings, recordings

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 12, "completion_tokens": 45, "total_tokens": 57}
REPORT = json.dumps(USAGE, separators=(",", ":")).encode()
NUMBERS = Usage(12, 45)


def event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def chunk(text: str = "", finish: str = "null", index: int = 0, more: str = "") -> bytes:
    choice = '{"index":%d,"delta":{"content":"%s"},"finish_reason":%s}' % (index, text, finish)  # noqa: UP031
    return event(f'{{"id":"c-1", "choices":[{choice}]{more}}}')


def usage_chunk(usage: str = REPORT.decode()) -> bytes:
    return event(f'{{"id":"c-1","choices":[],"usage":{usage}}}')


EMPTY_CHOICE = b'[{"index":0,"delta":{},"finish_reason":null}]'
FINISH = chunk(finish='"stop"')
MERGED = FINISH.replace(b"]}\n", b'],"usage":' + REPORT + b"}\n")


def told(
    stream: bytes, *, merge: bool = True, cuts: list[int] | None = None, endpoint: Endpoint = CHAT
) -> tuple[bytes, StreamTally]:
    """What the client gets of a stream cut into pieces at these places, and the tally that looked on."""
    tally = StreamTally(endpoint, merge=merge)
    places = [0, *sorted(cuts or []), len(stream)]
    given = b"".join(tally.feed(stream[begin:end]) for begin, end in pairwise(places))
    return given + tally.close(), tally


def counts(usage: Usage | None) -> Usage | None:
    """Usage without the tier, which an answer names beside it."""
    return msgspec.structs.replace(usage, service_tier="") if usage is not None else None


def merged_by_hand(stream: bytes) -> bytes:
    """The contract's rule, over a whole stream at once: drop usage chunks without a choice, put the last
    usage into the last chunk with a choice, if that says why it ends and has none. Where no chunk has it so, the last
    usage chunk comes at the end, with an empty choice."""
    events = [(text, _json(text)) for text in re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", stream) if text]
    reports = [usage for _, data in events if (usage := _usage(data))]
    chosen = [place for place, (_, data) in enumerate(events) if data.get("choices")]
    given, unshown = [], b""
    for place, (text, data) in enumerate(events):
        if data_of(text) == b"[DONE]":
            given.append(unshown)
            unshown = b""
        if not data.get("choices") and _usage(data):
            last = events[chosen[-1]][1] if chosen else {}
            shown = last.get("usage") or any(choice.get("finish_reason") for choice in last.get("choices") or [])
            unshown = b"" if shown else text.replace(b'"choices":[]', b'"choices":' + EMPTY_CHOICE)
            continue
        ends = any(choice.get("finish_reason") for choice in data.get("choices") or [])
        if reports and chosen and place == chosen[-1] and ends and not data.get("usage"):
            given.append(_with_usage(text, reports[-1]))
        else:
            given.append(text)
    return b"".join([*given, unshown])


def _with_usage(text: bytes, usage: Any) -> bytes:
    told = json.dumps(usage).encode()
    if re.search(rb'"usage": ?null', text):
        return re.sub(rb'("usage": ?)null', lambda found: found[1] + told, text)
    begin = text.rindex(b"}")
    return text[:begin] + b',"usage":' + told + text[begin:]


def _json(text: bytes) -> dict[str, Any]:
    data = data_of(text)
    return json.loads(data) if data and data.startswith(b"{") else {}


def _usage(data: dict[str, Any]) -> Any:
    return data.get("usage") or (data.get("x_groq") or {}).get("usage")


needs_chat = pytest.mark.parametrize(("stream", "report"), recordings("chat"))


@needs_recordings
@needs_chat
def test_a_client_that_asked_for_usage_gets_the_same_bytes(stream: bytes, report: dict[str, Any] | None) -> None:
    for cuts in ([], list(range(len(stream)))):
        given, tally = told(stream, merge=False, cuts=cuts)
        assert given == stream
        assert counts(tally.usage) == (read_usage(report) if report else None)


@needs_recordings
@needs_chat
def test_a_client_that_did_not_ask_gets_usage_in_the_last_chunk(stream: bytes, report: dict[str, Any] | None) -> None:
    expected = _lines(merged_by_hand(stream))
    for cuts in ([], list(range(len(stream)))):
        given, tally = told(stream, cuts=cuts)
        assert _lines(given) == expected
        assert counts(tally.usage) == (read_usage(report) if report else None)


@needs_recordings
@pytest.mark.parametrize(("stream", "report"), recordings("legacy"))
def test_legacy_streams_are_tallied_alike(stream: bytes, report: dict[str, Any] | None) -> None:
    for merge in (False, True):
        given, tally = told(stream, merge=merge, cuts=[*range(0, len(stream), 7)], endpoint=COMPLETIONS)
        assert counts(tally.usage) == (read_usage(report) if report else None)
        assert (given == stream) or merge


@needs_recordings
@given(st.data(), st.sampled_from(recordings("chat", "legacy")), st.booleans())
def test_any_cutting_gives_the_same_bytes_and_the_same_count(data: st.DataObject, made: Any, merge: bool) -> None:
    stream, _ = made.values
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))
    whole, tally = told(stream, merge=merge)
    given, other = told(stream, merge=merge, cuts=cuts)
    assert given == whole
    assert (other.usage, other.failed, other.events) == (tally.usage, tally.failed, tally.events)
    assert other.delivered == tally.delivered


events = st.sampled_from(
    [
        chunk("a"),
        chunk('say \\"hi\\"'),
        chunk("b", index=1),
        chunk("", finish='""'),
        chunk(more=',"usage":null'),
        chunk(more=f',"usage":{REPORT.decode()}'),
        chunk(finish='"stop"'),
        chunk(finish='"stop"', more=',"usage": null'),
        chunk(finish='"length"', index=1),
        chunk(finish='"stop"', more=',"usage":{"prompt_tokens":1,"completion_tokens":2}'),
        usage_chunk(),
        usage_chunk('{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'),
        usage_chunk("null"),
        event('{"choices":[],"prompt_filter_results":[]}'),
        b": still here\n\n",
        b"event: ping\n\n",
        b"\n",
        b"\n\n",
    ]
)


@given(st.lists(events, max_size=12), st.booleans(), st.data())
def test_any_stream_becomes_what_the_rule_says(made: list[bytes], ends: bool, data: st.DataObject) -> None:
    stream = b"".join(made) + (DONE if ends else b"")
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    given, tally = told(stream, cuts=cuts)
    # Blank lines before an event belong to it, also to one that is dropped.
    assert _lines(given) == _lines(merged_by_hand(stream))
    reports = [usage for text in made if (usage := _usage(_json(text)))]
    assert tally.usage == (read_usage(reports[-1]) if reports else None)
    assert told(stream, merge=False, cuts=cuts)[0] == stream


def _lines(stream: bytes) -> list[bytes]:
    """Usage that is moved keeps its spaces, which json.dumps does not know."""
    return [line.replace(b" ", b"") if b'"usage"' in line else line for line in stream.split(b"\n") if line]


def test_the_usage_goes_into_the_chunk_that_ends_and_all_else_stays() -> None:
    stream = chunk("a") + FINISH + usage_chunk() + DONE
    assert told(stream)[0] == chunk("a") + MERGED + DONE
    assert json.loads(data_of(MERGED) or b"")["usage"] == USAGE


def test_a_usage_of_null_gives_way_to_the_usage() -> None:
    finish = chunk(finish='"stop"', more=', "usage": null, "x":1')
    expected = finish.replace(b"null, ", REPORT + b", ")
    assert told(finish + usage_chunk() + DONE)[0] == expected + DONE


def test_of_several_choices_the_last_to_end_has_the_usage() -> None:
    first, last = chunk(finish='"stop"'), chunk(finish='"stop"', index=1)
    stream = chunk("a") + first + chunk("b", index=1) + last + usage_chunk() + DONE
    given, _ = told(stream)
    assert given.startswith(chunk("a") + first + chunk("b", index=1))
    assert given.count(b'"usage"') == 1


def test_usage_of_each_choice_is_given_once_as_reported_last() -> None:
    later = usage_chunk('{"prompt_tokens":12,"completion_tokens":99}')
    given, tally = told(FINISH + usage_chunk() + chunk("b", index=1) + FINISH + later + DONE)
    assert given.count(b'"usage"') == 1
    assert b'"completion_tokens":99' in given
    assert tally.usage == Usage(12, 99)


def test_usage_in_every_chunk_stays_where_it_is() -> None:
    counting = [chunk("a", more=f',"usage":{{"prompt_tokens":1,"completion_tokens":{n}}}') for n in range(3)]
    ending = chunk(finish='"stop"', more=',"usage":{"prompt_tokens":1,"completion_tokens":3}')
    stream = b"".join(counting) + ending + DONE
    given, tally = told(stream)
    assert (given, tally.usage) == (stream, Usage(1, 3))


def test_usage_before_the_last_chunk_is_put_into_that() -> None:
    assert told(chunk("a") + usage_chunk() + FINISH + DONE)[0] == chunk("a") + MERGED + DONE


def test_usage_in_a_chunk_with_a_choice_is_not_told_twice() -> None:
    final = chunk("", more=f',"usage":{REPORT.decode()}')
    stream = chunk("a") + FINISH + final + DONE
    assert told(stream)[0] == stream


def test_an_explicit_zero_is_zero() -> None:
    zero = '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    given, tally = told(chunk("a") + FINISH + usage_chunk(zero) + DONE)
    assert tally.usage == Usage(0, 0)
    assert zero.encode() in given


NOTE = event('{"choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{}}],"usage":null}')


@pytest.mark.parametrize(
    "stream",
    [
        chunk("a") + FINISH + NOTE + usage_chunk(),
        chunk("a") + FINISH + usage_chunk() + NOTE,
        chunk("a") + usage_chunk(),
        chunk("a") + usage_chunk() + chunk("b"),
        chunk("a") + FINISH + usage_chunk("null") + NOTE + usage_chunk(),
    ],
    ids=range(5),
)
def test_usage_that_no_chunk_can_show_comes_in_one_with_an_empty_choice(stream: bytes) -> None:
    shown = usage_chunk().replace(b"[]", EMPTY_CHOICE)
    for ending in (DONE, b""):
        given, tally = told(stream + ending)
        assert given == stream.replace(usage_chunk(), b"") + shown + ending
        assert tally.usage == NUMBERS


def test_an_empty_choice_of_a_completion_has_a_text() -> None:
    given, _ = told(event('{"choices":[{"index":0,"text":"a"}]}') + usage_chunk(), endpoint=COMPLETIONS)
    (choice,) = json.loads(data_of(given.split(b"\n\n")[1]) or b"")["choices"]
    assert choice == {"index": 0, "text": "", "logprobs": None, "finish_reason": None}


@pytest.mark.parametrize(
    ("endpoint", "last"),
    [
        (CHAT, DONE),
        (ENDPOINTS["/v1/responses"], event('{"type":"response.completed","response":{}}')),
        (ENDPOINTS["/v1/responses"], event('{"type":"response.incomplete","response":{}}')),
        (ENDPOINTS["/v1/responses"], event('{"type":"response.done","response":{}}')),
        (ENDPOINTS["/v1/messages"], b"event: message_stop\ndata: {}\n\n"),
        (ENDPOINTS["/v1/audio/speech"], event('{"type":"speech.audio.done"}')),
    ],
)
def test_a_stream_has_ended_with_the_last_event_of_its_api(endpoint: Endpoint, last: bytes) -> None:
    tally = StreamTally(endpoint, merge=False)
    tally.feed(event('{"type":"ping"}'))
    assert not tally.ended
    tally.feed(last)
    assert tally.ended


@pytest.mark.parametrize("size", [10, 3 * HELD_MAX])
def test_the_echo_of_a_request_is_neither_usage_nor_delivered(size: int) -> None:
    tools = [{"description": "x" * size, "usage": {"input_tokens": 1, "output_tokens": 1}}]
    echo = {"tools": tools, "usage": {"input_tokens": 1, "output_tokens": 1}}
    created = event(json.dumps({"type": "response.created", "response": echo}))
    delta = event('{"type":"response.output_text.delta","delta":"hello there, you"}')
    for step in (1_000, 10**9):
        stream = created + delta
        _, tally = told(stream, cuts=[*range(0, len(stream), step)], endpoint=ENDPOINTS["/v1/responses"])
        assert (tally.usage, tally.delivered) == (None, 3)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("word " * 40, 40), ("\u6f22" * 40, 32), ("\\u6f22" * 40, 32), ("\\n" * 50, 10), ("\u0431" * 50, 20)],
)
def test_text_is_weighed_by_its_characters_however_they_are_escaped(text: str, tokens: int) -> None:
    assert told(chunk(text))[1].delivered == tokens
    assert told(chunk("a") + chunk(text) + chunk(text))[1].delivered in range(2 * tokens, 2 * tokens + 2)


def test_an_event_that_a_strict_parser_refuses_is_read() -> None:
    odd = ',"logprobs":[-Infinity],"note":"\\ud83d"'
    stream = chunk("a", more=odd) + FINISH + event('{"choices":[],"usage":%s%s}' % (REPORT.decode(), odd)) + DONE  # noqa: UP031
    _, tally = told(stream)
    assert (tally.usage, tally.delivered, tally.failed) == (NUMBERS, 1, False)


def test_without_usage_the_stream_stays_as_it_is() -> None:
    stream = chunk("a") + FINISH + DONE
    given, tally = told(stream)
    assert (given, tally.usage, tally.events) == (stream, None, 2)


def test_a_stream_without_done_gets_its_usage_too() -> None:
    assert told(chunk("a") + FINISH + usage_chunk())[0] == chunk("a") + MERGED
    assert told(chunk("a") + FINISH)[0] == chunk("a") + FINISH


def test_comments_keep_their_place_behind_the_held_chunk() -> None:
    comment = b": still here\n\n"
    assert told(FINISH + comment + usage_chunk() + comment + DONE)[0] == MERGED + comment + comment + DONE


def test_a_flood_of_comments_is_not_held() -> None:
    tally = StreamTally(CHAT, merge=True)
    tally.feed(FINISH)
    given = b"".join(tally.feed(b": still here\n\n") for _ in range(10_000))
    assert len(given) > 10_000 * 13 - HELD_MAX


def test_lines_may_end_in_cr_lf() -> None:
    def crlf(stream: bytes) -> bytes:
        return stream.replace(b"\n", b"\r\n")

    stream = crlf(chunk("a") + FINISH + usage_chunk() + DONE)
    for cuts in ([], list(range(len(stream)))):
        assert told(stream, cuts=cuts)[0] == crlf(chunk("a") + MERGED + DONE)


def test_usage_in_json_of_several_lines_is_merged_line_by_line() -> None:
    finish = b'data: {"choices":[{"finish_reason":"stop"}]\ndata: }\n\n'
    usage = b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1,\ndata: "completion_tokens":2}}\n\n'
    given, tally = told(finish + usage + DONE)
    assert tally.usage == Usage(1, 2)
    whole = data_of(given.removesuffix(DONE))
    assert json.loads(whole or b"") == {
        "choices": [{"finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }


def test_content_is_given_in_the_call_that_brings_it() -> None:
    tally = StreamTally(CHAT, merge=True)
    assert tally.feed(chunk("a")) == chunk("a")
    assert tally.feed(FINISH) == b""
    assert tally.feed(chunk("b", index=1)) == FINISH + chunk("b", index=1)
    assert tally.feed(FINISH) == b""
    assert tally.feed(usage_chunk()) == b""
    assert tally.feed(DONE) == MERGED + DONE
    assert tally.close() == b""


def test_a_known_frame_does_not_overtake_what_is_held() -> None:
    tally = StreamTally(CHAT, merge=True)
    given = [
        tally.feed(piece) for piece in (chunk("a"), chunk("b"), FINISH, chunk("c"), chunk("d")[:30], chunk("d")[30:])
    ]
    assert given == [chunk("a"), chunk("b"), b"", FINISH + chunk("c"), b"", chunk("d")]


def test_an_empty_finish_reason_ends_nothing() -> None:
    tally = StreamTally(CHAT, merge=True)
    unfinished = chunk("a", finish='""')
    assert [tally.feed(unfinished), tally.feed(unfinished)] == [unfinished, unfinished]


def test_the_words_of_a_chunk_in_its_text_are_text() -> None:
    text = chunk('{\\"usage\\":{\\"prompt_tokens\\":999},\\"error\\":1,\\"finish_reason\\":\\"stop\\"} data: [DONE]')
    given, tally = told(text + FINISH + usage_chunk() + DONE)
    assert (given, tally.usage, tally.failed) == (text + MERGED + DONE, NUMBERS, False)


def test_what_follows_a_known_frame_is_still_looked_at() -> None:
    stream = b"".join(chunk(word) for word in ("a", "bb", "ccc", 'd\\"d', "e", "")) * 3 + FINISH + usage_chunk() + DONE
    pieces = re.split(rb"(?<=\n\n)", stream)
    tally = StreamTally(CHAT, merge=True)
    given = b"".join(tally.feed(piece) for piece in pieces) + tally.close()
    assert given == stream.replace(FINISH + usage_chunk(), MERGED)
    assert (tally.events, tally.usage) == (19, NUMBERS)


TEXTS = st.text('ab"\\\né語', max_size=4)


@given(st.lists(st.tuples(TEXTS, st.booleans()), max_size=8), st.data())
def test_a_run_of_events_weighs_what_each_of_them_does(said: list[tuple[str, bool]], data: st.DataObject) -> None:
    words = [chunk(json.dumps(text, ensure_ascii=escapes)[1:-1]) for text, escapes in said]
    others = st.sampled_from([b"", b": waiting\n\n", event('{"choices":[],"note":"none"}')])
    pieces = [word + other for word in words for other in [data.draw(others)]]
    each, run = StreamTally(CHAT, merge=False), StreamTally(CHAT, merge=False)
    learned = chunk("learned") * 2
    assert (each.feed(learned), run.feed(learned)) == (learned, learned)
    for piece in pieces:
        assert each.feed(piece) == piece
    assert run.feed(b"".join(pieces)) == b"".join(pieces)
    assert (each.events, each._weight, each.delivered) == (run.events, run._weight, run.delivered)


def test_a_quote_that_is_not_escaped_ends_a_text() -> None:
    tally = StreamTally(CHAT, merge=False)
    hidden = chunk('a"}}],"usage":{"prompt_tokens":12,"completion_tokens":45},"x":[{"y":{"z":"b')
    assert tally.feed(chunk("a") * 2 + hidden + chunk("c")) == chunk("a") * 2 + hidden + chunk("c")
    assert tally.usage == NUMBERS


def test_an_error_in_a_stream_passes_and_is_no_answer() -> None:
    error = event('{"error":{"message":"out of memory","code":500}}')
    given, tally = told(error)
    assert (given, tally.failed, tally.events, tally.delivered) == (error, True, 0, 0)


def test_an_error_of_null_is_none() -> None:
    stream = chunk("a", more=',"error":null') + FINISH + usage_chunk() + DONE
    assert told(stream)[1].failed is False


def test_an_error_after_the_held_chunk_comes_after_it() -> None:
    error = event('{"error":{"message":"late"}}')
    given, tally = told(chunk("a") + FINISH + error)
    assert (given, tally.failed) == (chunk("a") + FINISH + error, True)


@pytest.mark.parametrize("named_in", [0, 1, 2])
@pytest.mark.parametrize("merge", [False, True])
def test_a_tier_counts_whichever_chunk_names_it(named_in: int, merge: bool) -> None:
    chunks = [chunk("a"), chunk("b"), usage_chunk('{"prompt_tokens":1,"completion_tokens":2}')]
    named = [each.replace(b"}\n\n", b',"service_tier":null}\n\n') for each in chunks]
    named[named_in] = chunks[named_in].replace(b"}\n\n", b',"service_tier":"Flex"}\n\n')
    _, tally = told(b"".join(named) + DONE, merge=merge)
    assert tally.usage == Usage(1, 2, service_tier="flex")


def test_what_groq_says_beside_counts_where_usage_is_missing() -> None:
    stream = chunk(finish='"stop"', more=',"x_groq":{"usage":' + REPORT.decode() + "}") + DONE
    given, tally = told(stream)
    assert tally.usage == NUMBERS
    assert json.loads(data_of(given.removesuffix(DONE)) or b"")["usage"] == USAGE


absurd = [
    '{"prompt_tokens":1e999}',
    '{"prompt_tokens":"one"}',
    '{"prompt_tokens":' + "9" * 400 + "}",
    '{"prompt_tokens":' + "9" * 5_000 + "}",
    '{"a":"\\ud800"}',
    "{}",
    "5",
    "[]",
    '"x"',
    "{{{",
    "[" * 5_000,
]


@pytest.mark.parametrize("usage", absurd, ids=range(len(absurd)))
def test_a_report_that_makes_no_sense_is_none_and_raises_nothing(usage: str) -> None:
    stream = chunk("a") + FINISH + usage_chunk(usage) + DONE
    for merge in (False, True):
        given, tally = told(stream, merge=merge)
        assert tally.usage is None
        assert given.startswith(chunk("a") + FINISH)
        assert given.endswith(DONE)


def test_a_report_in_wrong_utf_8_raises_nothing() -> None:
    bad = b'data: {"choices":[],"usage":{"prompt_tokens":1,"note":"\xff"}}\n\n'
    given, tally = told(chunk("a") + FINISH + bad + DONE)
    assert given.startswith(chunk("a"))
    assert tally.usage == Usage(1, 0)


@given(st.binary(max_size=200), st.integers(1, 5))
def test_no_bytes_of_an_upstream_raise(noise: bytes, size: int) -> None:
    for merge in (False, True):
        for stream in (noise, b"data: " + noise + b"\n\n", b'data: {"usage":' + noise + b"}\n\n"):
            tally = StreamTally(CHAT, merge=merge)
            given = b"".join(tally.feed(stream[at : at + size]) for at in range(0, len(stream), size))
            given += tally.close()
            assert merge or given == stream


def long_event(letters: int, usage: str = "") -> bytes:
    return chunk("x" * letters, more=usage)


@pytest.mark.parametrize("step", [1_000, 65_536, 10_000_000])
def test_a_long_event_passes_and_the_usage_at_its_end_is_seen(step: int) -> None:
    long = long_event(3 * HELD_MAX, f',"usage":{REPORT.decode()}')
    stream = chunk("a") + long + chunk("b") + DONE
    given, tally = told(stream, cuts=[*range(0, len(stream), step)])
    assert (given, tally.usage) == (stream, NUMBERS)
    assert tally.events == 3
    assert tally.delivered > 3 * HELD_MAX // 5 - 500


def test_what_was_passed_on_ends_between_events_except_for_a_part_of_a_long_one() -> None:
    tally, long = StreamTally(CHAT, merge=True), long_event(2 * HELD_MAX)
    for piece in (chunk("a"), chunk("b")[:9], chunk("b")[9:], long[:100]):
        tally.feed(piece)
        assert tally.is_between_events()
    tally.feed(long[100:-9])
    assert not tally.is_between_events()
    tally.feed(long[-9:] + chunk("c")[:9])
    assert tally.is_between_events()


@pytest.mark.parametrize("step", [999, HELD_MAX, 10 * HELD_MAX])
def test_what_a_long_event_delivers_and_what_came_before_it_is_in_the_usage_it_reports(step: int) -> None:
    stream = chunk("a") + long_event(3 * HELD_MAX, f',"usage":{REPORT.decode()}')
    _, tally = told(stream, cuts=[*range(step, len(stream), step)])
    assert (tally.usage, tally.delivered_since) == (NUMBERS, 0)


def test_a_long_event_that_repeats_the_answer_reports_what_was_delivered_before() -> None:
    delta = event('{"type":"response.output_text.delta","delta":"word"}')
    usage = '"usage":{"input_tokens":12,"output_tokens":45}'
    repeated = f'"output":[{{"type":"message","text":"{"x" * HELD_MAX}"}}]'
    last = event(f'{{"type":"response.completed","response":{{{repeated},{usage}}}}}')
    stream = 40 * delta + last
    _, tally = told(stream, cuts=[len(stream) - 99], merge=False, endpoint=ENDPOINTS["/v1/responses"])
    assert (tally.usage, tally.delivered, tally.delivered_since) == (NUMBERS, 40, 0)


def test_a_long_event_is_not_held() -> None:
    tally = StreamTally(CHAT, merge=True)
    long = long_event(10 * HELD_MAX)
    held = 0
    for at in range(0, len(long), 4_096):
        held += len(long[at : at + 4_096]) - len(tally.feed(long[at : at + 4_096]))
        assert held <= HELD_MAX + 4_096
    assert held == 0


@given(st.integers(HELD_MAX + 1, HELD_MAX + 300), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"]))
def test_the_end_of_a_long_event_is_found_wherever_it_is_cut(cut: int, end: bytes) -> None:
    long = b'data: {"x":"' + b"x" * (HELD_MAX + 100) + b'"}' + end
    stream = long + b"data: 1" + end + DONE
    given, tally = told(stream, cuts=[cut, cut + 1, cut + 2, len(long) - 1, len(long)])
    assert (given, tally.events) == (stream, 2)


def test_a_cut_leaves_whole_events_only() -> None:
    stream = chunk("a") + FINISH + usage_chunk()
    for at in range(len(stream)):
        tally = StreamTally(CHAT, merge=True)
        given = tally.feed(stream[:at]) + tally.cut()
        assert given in {b"", chunk("a"), chunk("a") + FINISH, chunk("a") + MERGED}


def test_a_cut_within_a_long_event_leaves_it_open_and_counted() -> None:
    tally = StreamTally(CHAT, merge=True)
    half = long_event(2 * HELD_MAX)[:-1_000]
    assert tally.feed(half) + tally.cut() == half
    assert not tally.ends_whole
    assert tally.delivered > HELD_MAX // 5


def test_an_end_without_a_blank_line_loses_nothing() -> None:
    stream = chunk("a") + FINISH + usage_chunk() + DONE
    given, tally = told(stream.rstrip(b"\n"))
    assert given == chunk("a") + MERGED + b"data: [DONE]"
    assert tally.usage == NUMBERS
    unfinished, tally = told((chunk("a") + FINISH + usage_chunk()).rstrip(b"\n"))
    assert (unfinished, tally.usage) == (chunk("a") + MERGED, NUMBERS)


def test_text_is_what_events_deliver() -> None:
    _, tally = told(chunk("") + chunk("x" * 100) + chunk("y" * 50) + DONE)
    assert (tally.events, tally.delivered) == (3, 30)


def test_the_end_of_a_choice_is_no_text() -> None:
    end = event('{"id":"c-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
    for merge in (True, False):
        for cuts in ([], [len(chunk("abc"))]):
            _, tally = told(chunk("abc") * 9 + end + DONE, cuts=cuts, merge=merge)
            assert (tally.events, tally.delivered) == (10, 9)


def test_a_single_great_event_has_text_too() -> None:
    _, tally = told(chunk("x" * 50_000) + DONE)
    assert (tally.events, tally.delivered) == (1, 10_000)


def test_comments_between_chunks_of_one_piece_are_no_text() -> None:
    stream = chunk("a") + b": OPENROUTER PROCESSING\n\n" * 9 + chunk("bc")
    together, apart = told(stream)[1], told(stream, cuts=[*range(len(stream))])[1]
    assert (together.events, together.delivered) == (apart.events, apart.delivered) == (2, 2)


ANNOTATION = event('{"id":"c-1","choices":[{"index":0,"finish_reason":null,"content_filter_offsets":{}}]}')
QUIET = b": keep-alive\n\n"


@given(
    texts=st.lists(st.sampled_from(["a", " bc", "\\u00e9"]), max_size=4),
    choices=st.integers(1, 2),
    place=st.sampled_from(["alone", "in the last", "in a choice", "Groq's"]),
    behind=st.lists(st.sampled_from([ANNOTATION, QUIET, FINISH[:0]]), max_size=3),
    usage_at=st.integers(0, 3),
    done=st.booleans(),
    cuts=st.lists(st.integers(0, 900), max_size=12),
)
def test_usage_is_billed_and_shown_once_wherever_it_is_and_whatever_comes_behind_the_end(
    texts: list[str], choices: int, place: str, behind: list[bytes], usage_at: int, done: bool, cuts: list[int]
) -> None:
    more = {
        "in the last": f',"usage":{REPORT.decode()}',
        "Groq's": f',"x_groq":{{"usage":{REPORT.decode()}}}',
    }.get(place, "")
    ends = [chunk(finish='"stop"', index=index) for index in range(choices - 1)] + [chunk(finish='"stop"', more=more)]
    if place == "in a choice":
        ends[-1] = FINISH.replace(b'"stop"}', b'"stop","usage":' + REPORT + b"}")
    rest = behind[:usage_at] + ([usage_chunk()] if place == "alone" else []) + behind[usage_at:]
    stream = b"".join([*map(chunk, texts), *ends, *rest, DONE if done else b""])
    given, tally = told(stream, cuts=[cut for cut in cuts if cut <= len(stream)])
    assert tally.usage == NUMBERS
    chunks = [json.loads(data) for each in given.split(b"\n\n") if (data := data_of(each)) not in (None, b"[DONE]")]
    assert [each for each in chunks if each.get("usage") and not each["choices"]] == []
    if place in {"alone", "in the last"}:
        assert [each["usage"] for each in chunks if each.get("usage")] == [USAGE]
    said = [choice for each in chunks for choice in each["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in said if "delta" in choice) == "".join(
        json.loads(f'"{text}"') for text in texts
    )
    assert sum(choice["finish_reason"] is not None for choice in said) == choices


TYPED = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'


@pytest.mark.parametrize(
    ("endpoint", "shape"),
    [
        pytest.param(CHAT, '{"text":"%s"}', id="bare text"),
        pytest.param(CHAT, '{"index":1,"token":{"id":9,"text":"%s"},"generated_text":null}', id="TGI's own API"),
        pytest.param(CHAT, '{"type":"content-delta","delta":{"message":{"content":{"text":"%s"}}}}', id="Cohere's"),
        pytest.param(CHAT, '{"candidates":[{"content":{"parts":[{"text":"%s"}]}}]}', id="Gemini's"),
        pytest.param(CHAT, TYPED, id="Anthropic's"),
        pytest.param(COMPLETIONS, '{"content":"%s","stop":false}', id="llama.cpp's"),
        pytest.param(ENDPOINTS["/v1/messages"], '{"choices":[{"delta":{"content":"%s"}}]}', id="a chat for a message"),
        pytest.param(ENDPOINTS["/v1/messages"], '{"index":0,"delta":{"text":"%s"}}', id="a message without types"),
        pytest.param(
            ENDPOINTS["/v1/responses"], '{"choices":[{"delta":{"content":"%s"}}]}', id="a chat for a response"
        ),
    ],
)
@pytest.mark.parametrize("merge", [True, False])
def test_a_stream_of_another_api_is_weighed_by_its_texts(endpoint: Endpoint, shape: str, merge: bool) -> None:
    word = "abcdefgh" * 10
    stream = b"".join([event(shape % word) for _ in range(5)])
    given, tally = told(stream, merge=merge, endpoint=endpoint)
    assert given == stream
    assert 5 * len(word) // 8 < tally.delivered < 5 * len(word)


def test_texts_beside_the_apis_own_events_are_not_what_a_stream_delivered() -> None:
    note = event(json.dumps({"note": "x" * 900}))
    _, tally = told(note + chunk("one") + note + chunk("two") + FINISH)
    assert tally.delivered == told(chunk("one") + chunk("two") + FINISH)[1].delivered > 0
    assert told(event("{}") + FINISH + event('{"id":7}') + DONE)[1].delivered == 0


def test_comments_and_the_end_are_no_text() -> None:
    quiet = b": OPENROUTER PROCESSING\n\n"
    _, tally = told(quiet * 50 + chunk("a") + quiet + DONE)
    assert tally.events == 1
    _, apart = told(quiet + chunk("a") + DONE, cuts=[len(quiet), len(quiet + chunk("a"))])
    assert apart.events == 1


def test_events_in_an_array_are_weighed_and_read_one_by_one() -> None:
    first, second = json.loads(data_of(chunk("four")) or b""), json.loads(data_of(usage_chunk()) or b"")
    tally = StreamTally(CHAT, merge=False)
    tally.feed(event(json.dumps([first, second])))
    assert (tally.usage, tally.delivered, tally.delivered_since) == (NUMBERS, 1, 0)
    tally.feed(event(json.dumps([first, first])) + chunk("more"))
    assert (tally.delivered, tally.delivered_since) == (3, 2)


def test_an_error_in_an_array_is_one() -> None:
    tally = StreamTally(ENDPOINTS["/v1beta/models/{model}:streamGenerateContent"], merge=False)
    tally.feed(event(json.dumps([{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}])))
    assert tally.fault is Fault.PROVIDER


def test_what_is_delivered_behind_a_report_of_the_input_alone_is_not_in_the_report_before_it() -> None:
    tally = StreamTally(CHAT, merge=False)
    tally.feed(chunk("one") + usage_chunk() + chunk("two") + usage_chunk('{"prompt_tokens":12}') + chunk("three"))
    assert (tally.usage, tally.is_final(), tally.delivered_since) == (NUMBERS, True, 2)
