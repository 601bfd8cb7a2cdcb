"""What the demo upstream's chat completions hold, and how their bytes are written."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.demo.encoding import Piece, cut
from gateway.demo.response import BadRequest, DemoResponse, Responder
from gateway.demo.script import DemoScript
from tests.unit.demo.asking import events, head_and_body, unchunked

CHAT = "/v1/chat/completions"


def reply(script: DemoScript, **fields: Any) -> DemoResponse:
    responder = Responder(("m",), random.Random(1))
    messages = [{"role": "user", "content": "Hello there, model"}]
    asked = responder.read(json.dumps({"model": "m", "messages": messages, **fields}).encode(), "application/json")
    return responder.answer(CHAT, asked, responder.script_for(asked, script), 1709000000)


def raw(script: DemoScript, **fields: Any) -> bytes:
    return b"".join(piece.data for piece in reply(script, **fields).pieces)


def plain(script: DemoScript, **fields: Any) -> Any:
    return json.loads(head_and_body(raw(script, **fields))[1])


def stream(script: DemoScript, **fields: Any) -> bytes:
    chunks, rest = unchunked(head_and_body(raw(script, stream=True, **fields))[1])
    assert rest.startswith(b"0\r\n")
    return b"".join(chunks)


def test_a_plain_answer_has_no_error_event() -> None:
    assert (reply(DemoScript(error_after=1)).outcome, reply(DemoScript(error_after=1), stream=True).outcome) == (
        "completed",
        "halted",
    )


ASKING_USAGE = {"stream_options": {"include_usage": True}}


def test_a_plain_answer_looks_as_in_the_reference() -> None:
    assert plain(DemoScript(chunks=2)) == {
        "id": "chatcmpl-000000000000000000000001",
        "object": "chat.completion",
        "created": 1709000000,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello! This"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def test_a_stream_is_a_head_the_tokens_an_end_and_done() -> None:
    *chunks, done = events(stream(DemoScript(chunks=2)))
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Hello!"},
        {"content": " This"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert done == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)


def test_a_stream_that_is_asked_for_usage_ends_with_a_chunk_of_it() -> None:
    *_, usage, _ = events(stream(DemoScript(chunks=2), **ASKING_USAGE))
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


@pytest.mark.parametrize(
    ("policy", "asked", "where"),
    [
        ("asked", False, []),
        ("asked", True, [4]),
        ("always", False, [4]),
        ("never", True, []),
        ("every", False, [0, 1, 2, 3]),
        ("last", False, [3]),
        ("null", True, [4]),
        ("early", False, [3]),
    ],
)
def test_usage_stands_where_the_script_puts_it(policy: str, asked: bool, where: list[int]) -> None:
    *chunks, _ = events(stream(DemoScript(chunks=2).changed({"usage": policy}), **(ASKING_USAGE if asked else {})))
    assert [index for index, chunk in enumerate(chunks) if chunk.get("usage")] == where
    assert all("usage" in chunk for chunk in chunks) == (policy in ("every", "null"))
    told = reply(DemoScript().changed({"usage": policy}), stream=True, **(ASKING_USAGE if asked else {}))
    assert any(piece.reports for piece in told.pieces) == (where != [])


def test_usage_in_every_chunk_counts_up_to_the_truth() -> None:
    *chunks, _ = events(stream(DemoScript(chunks=2, usage="every")))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 2]


def test_a_capped_answer_ends_for_its_length() -> None:
    assert plain(DemoScript(chunks=5), max_tokens=2)["choices"][0]["finish_reason"] == "length"
    assert events(stream(DemoScript(chunks=5), max_tokens=2))[-2]["choices"][0]["finish_reason"] == "length"


def test_choices_take_turns_and_each_is_whole() -> None:
    *chunks, _ = events(stream(DemoScript(chunks=3), n=2))
    texts = ["", ""]
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["Hello! This is"] * 2
    assert len(plain(DemoScript(chunks=3), n=2)["choices"]) == 2


def test_a_tool_call_streams_as_pieces_of_its_arguments() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    head, *deltas, end, _ = events(stream(DemoScript(chunks=4), tools=tools))
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in (head, *deltas)]
    assert calls[0]["function"] == {"name": "look", "arguments": ""}
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"text": "Hello! This"}
    assert end["choices"][0]["finish_reason"] == "tool_calls"
    message = plain(DemoScript(chunks=4), tools=tools)["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"text": "Hello! This"}'


def test_a_status_other_than_200_brings_an_error_and_the_script_s_headers() -> None:
    head, body = head_and_body(raw(DemoScript(status=429, headers={"Retry-After": "2"})))
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests")
    assert b"\r\nretry-after: 2" in head
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"


def test_a_body_of_the_script_is_sent_as_it_is() -> None:
    assert head_and_body(raw(DemoScript(status=500, body="<html>oops")))[1] == b"<html>oops"
    assert stream(DemoScript(body="data: odd\n\n")) == b"data: odd\n\n"


def test_an_error_event_ends_the_tokens_of_a_stream() -> None:
    chunks = events(stream(DemoScript(chunks=9, error_after=2)))
    assert len(chunks) == 4
    assert "error" in chunks[2]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (DemoScript(newline="crlf"), b"\r\n\r\ndata: "),
        (DemoScript(newline="cr"), b"\r\rdata: "),
        (DemoScript(bom=True), b"\xef\xbb\xbfdata: "),
        (DemoScript(tight=True), b'data:{"id"'),
        (DemoScript(comments=True), b": the next event follows\n\ndata: "),
        (DemoScript(multiline=True), b'data: {\ndata:  "id": '),
        (DemoScript(spaced=True), b'", "object": "'),
        (DemoScript(after_done="data: more\n\n"), b"data: [DONE]\n\ndata: more\n\n"),
    ],
)
def test_a_stream_speaks_the_dialect_of_its_script(script: DemoScript, expected: bytes) -> None:
    assert expected in stream(script)


def test_the_end_of_a_stream_can_be_left_out() -> None:
    assert b"[DONE]" not in stream(DemoScript(no_done=True))


def test_each_event_is_one_chunk_of_the_transfer_coding() -> None:
    chunks, _ = unchunked(head_and_body(raw(DemoScript(chunks=2), stream=True))[1])
    assert [chunk.count(b"data: ") for chunk in chunks] == [1] * 5


@pytest.mark.parametrize("change", [{"pieces": "byte"}, {"pieces": "random"}, {"pieces": "whole"}, {"cuts": [7, 90]}])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_pieces_never_change_what_is_said(change: dict[str, Any], framing: str) -> None:
    script = DemoScript(chunks=3, framing=framing).changed(change)  # type: ignore[arg-type]
    body = head_and_body(raw(script, stream=True))[1]
    told = b"".join(unchunked(body)[0]) if framing == "chunked" else body
    assert told == stream(DemoScript(chunks=3))


def test_byte_by_byte_each_chunk_is_a_byte() -> None:
    chunks, _ = unchunked(head_and_body(raw(DemoScript(chunks=1, pieces="byte"), stream=True))[1])
    assert {len(chunk) for chunk in chunks} == {1}


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=8).map(tuple))
def test_however_it_is_cut_every_token_is_delivered_once(cuts: tuple[int, ...]) -> None:
    assert_delivered_once(list(reply(DemoScript(chunks=4, cuts=cuts, usage="always"), stream=True).pieces), 4)


@pytest.mark.parametrize("pieces", ["event", "byte", "random", "whole"])
def test_in_whatever_pieces_every_token_is_delivered_once(pieces: str) -> None:
    script = DemoScript(chunks=4, usage="always").changed({"pieces": pieces})
    assert_delivered_once(list(reply(script, stream=True).pieces), 4)


@given(st.lists(st.binary(max_size=300), min_size=1), st.integers())
def test_pieces_at_random_lose_nothing(events: list[bytes], seed: int) -> None:
    body = [*(Piece(event, 0.0, 1, True) for event in events), Piece(b"", then="done")]
    told = list(cut(body, DemoScript(pieces="random"), random.Random(seed)))
    assert b"".join(piece.data for piece in told) == b"".join(events)
    assert_delivered_once(told, len(events))


def assert_delivered_once(told: list[Piece], tokens: int) -> None:
    assert sum(piece.tokens for piece in told) == tokens
    assert any(piece.reports for piece in told)
    assert [piece.then for piece in told if piece.then] == ["done"]
    assert told[-1].then == "done"


def test_a_length_is_that_of_the_whole_even_if_it_never_comes() -> None:
    whole = head_and_body(raw(DemoScript(chunks=4, framing="length"), stream=True))
    part = head_and_body(raw(DemoScript(chunks=4, framing="length", halt="close"), stream=True))
    assert whole[0] == part[0]
    assert whole[1].startswith(part[1])
    assert len(part[1]) < len(whole[1])


def test_a_compressed_answer_unpacks_to_the_same() -> None:
    head, body = head_and_body(raw(DemoScript(chunks=3, gzip=True), stream=True))
    assert b"content-encoding: gzip" in head
    assert gzip.decompress(b"".join(unchunked(body)[0])) == stream(DemoScript(chunks=3))
    assert json.loads(gzip.decompress(head_and_body(raw(DemoScript(gzip=True)))[1]))["object"] == "chat.completion"


def test_an_http_1_0_answer_ends_with_its_connection() -> None:
    head, _ = head_and_body(raw(DemoScript(framing="close")))
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert b"content-length" not in head
    assert b"transfer-encoding" not in head
    assert list(reply(DemoScript(framing="close")).pieces)[-1].then == "close_done"


def test_trailers_and_informational_answers_stand_where_http_puts_them() -> None:
    answer = raw(DemoScript(trailers=True, informational=(100, 103)), stream=True)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"0\r\nx-demo-trailer: end\r\n\r\n")


@pytest.mark.parametrize(
    ("place", "end"),
    [("between_events", b"\n\n\r\n"), ("inside_event", b"\r\n"), ("inside_framing", b"")],
)
def test_a_halt_stops_where_the_script_says(place: str, end: bytes) -> None:
    script = DemoScript(chunks=6, halt="close", halt_after=2).changed({"halt_at": place})
    pieces = list(reply(script, stream=True).pieces)
    assert pieces[-1].then == "close"
    body = head_and_body(b"".join(piece.data for piece in pieces))[1]
    chunks, rest = unchunked(body)
    assert sum(chunk.endswith(b"\n\n") for chunk in chunks) == 2
    assert body.endswith(end)
    assert (rest == b"") == (place != "inside_framing")
    assert sum(piece.tokens for piece in pieces) == 1


@pytest.mark.parametrize(("place", "sent"), [("before_headers", b""), ("after_headers", b"HTTP/1.1 200 OK")])
def test_a_halt_before_the_body_sends_none(place: str, sent: bytes) -> None:
    pieces = list(reply(DemoScript(halt="hang").changed({"halt_at": place})).pieces)
    assert pieces[-1].then == "hang"
    head, body = head_and_body(b"".join(piece.data for piece in pieces))
    assert head.startswith(sent)
    assert body == b""


def test_a_plain_answer_halts_in_its_middle() -> None:
    whole, part = raw(DemoScript()), raw(DemoScript(halt="close"))
    assert whole.startswith(part)
    assert len(head_and_body(whole)[1]) // 2 == len(head_and_body(part)[1])


def test_waits_stand_before_the_head_the_first_event_and_each_further_token() -> None:
    script = DemoScript(chunks=3, headers_delay_ms=100, first_delay_ms=20, chunk_delay_ms=3)
    waits = [round(piece.delay_s * 1000) for piece in reply(script, stream=True).pieces]
    assert waits == [100, 20, 0, 3, 3, 0, 0, 0]


def test_a_plain_answer_takes_the_time_of_its_tokens() -> None:
    pieces = list(reply(DemoScript(chunks=3, headers_delay_ms=100, chunk_delay_ms=10)).pieces)
    assert pieces[0].delay_s == pytest.approx(0.13)


def test_a_large_body_comes_in_portions() -> None:
    pieces = list(reply(DemoScript(chunks=1000, chunk_bytes=1000)).pieces)
    assert max(len(piece.data) for piece in pieces) <= 65_536
    assert sum(len(piece.data) for piece in pieces) > 1_000_000


def test_a_request_changes_the_script_for_itself() -> None:
    assert plain(DemoScript(chunks=9), demo={"chunks": 1})["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("body", [b"{", b'{"n": "two"}', b"\xff", b"[]"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        Responder((), random.Random(1)).read(body, "application/json")


def test_a_change_of_the_script_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadRequest, match="demo"):
        reply(DemoScript(), demo={"chunkz": 1})


def test_an_answer_is_json_in_utf_8() -> None:
    assert "你好" in msgspec.json.decode(head_and_body(raw(DemoScript()))[1])["choices"][0]["message"]["content"]
