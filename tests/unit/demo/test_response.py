"""Each API that the demo upstream speaks beside chat completions: its shapes, and that its usage is the truth."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any

import pytest

from gateway.core.usage_report import read_usage
from gateway.demo import DemoUpstream
from gateway.demo.response import DEMO_APIS, DemoCall, DemoResponse, Responder
from gateway.demo.script import DemoScript
from tests.recorded.recordings import Recording, recordings
from tests.unit.demo.asking import answer, head_and_body, request, unchunked

TEXT = "Hello there, model"


def reply(path: str, script: DemoScript, **fields: Any) -> DemoResponse:
    responder = Responder(("m",), random.Random(1))
    asked = responder.read(json.dumps({"model": "m", **fields}).encode(), "application/json")
    return responder.answer(path, asked, responder.script_for(asked, script), 1709000000)


def plain(path: str, script: DemoScript, **fields: Any) -> Any:
    return json.loads(head_and_body(b"".join(piece.data for piece in reply(path, script, **fields).pieces))[1])


def stream(path: str, script: DemoScript, **fields: Any) -> list[tuple[str, Any]]:
    """The events as (name, payload)."""
    pieces = reply(path, script, stream=True, **fields).pieces
    body = b"".join(unchunked(head_and_body(b"".join(piece.data for piece in pieces))[1])[0])
    return [named(event) for event in body.decode().split("\n\n") if event]


def named(event: str) -> tuple[str, Any]:
    fields = dict(line.split(": ", 1) for line in event.split("\n"))
    return fields.get("event", ""), fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])


@pytest.mark.parametrize(
    ("path", "fields", "usage"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}, (5, 3)),
        ("/v1/completions", {"prompt": TEXT}, (5, 3)),
        ("/v1/completions", {"prompt": [TEXT], "n": 2}, (5, 6)),
        ("/v1/responses", {"input": TEXT}, (5, 3)),
        ("/v1/messages", {"system": TEXT, "messages": [{"role": "user", "content": TEXT}]}, (9, 3)),
        ("/v1/embeddings", {"input": [TEXT, TEXT]}, (9, 0)),
        ("/v1/rerank", {"query": TEXT, "documents": [TEXT]}, (9, 0)),
        ("/v1/score", {"text_1": TEXT, "text_2": TEXT}, (9, 0)),
        ("/v1/responses/compact", {"input": TEXT}, (5, 3)),
        ("/v1/images/generations", {"prompt": TEXT}, (5, 0)),
    ],
)
def test_a_plain_answer_reports_what_the_truth_counts(
    path: str, fields: dict[str, Any], usage: tuple[int, int]
) -> None:
    told = read_usage(plain(path, DemoScript(chunks=3), **fields)["usage"])
    counts = reply(path, DemoScript(chunks=3), **fields).counts
    assert told is not None
    assert counts is not None
    assert (told.input, told.output) == (counts.prompt, counts.output) == usage


@pytest.mark.parametrize("path", [path for path in DEMO_APIS if path not in ("/v1/moderations", "/v1/audio/speech")])
def test_usage_can_be_left_out_everywhere(path: str) -> None:
    told = plain(path, DemoScript(usage="never"))
    for body in told if isinstance(told, list) else [told]:
        assert not any((body.get("usage"), body.get("usageMetadata"), body.get("meta", {}).get("billed_units")))
    assert not any(piece.reports for piece in reply(path, DemoScript(usage="never")).pieces)


def test_a_legacy_completion_streams_texts() -> None:
    events = stream("/v1/completions", DemoScript(chunks=2), stream_options={"include_usage": True})
    payloads = [payload for _, payload in events]
    assert [payload["choices"][0]["text"] for payload in payloads[:3]] == ["Hello!", " This", ""]
    assert payloads[2]["choices"][0]["finish_reason"] == "stop"
    assert (payloads[3]["choices"], payloads[3]["usage"]["completion_tokens"], payloads[4]) == ([], 2, "[DONE]")


def test_a_response_streams_typed_events_with_usage_in_the_last() -> None:
    events = stream("/v1/responses", DemoScript(chunks=2, cached_tokens=1), input=TEXT)
    assert [name for name, _ in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert all(payload["type"] == name for name, payload in events)
    assert [payload["sequence_number"] for _, payload in events] == list(range(10))
    usage = events[-1][1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["input_tokens_details"]) == (
        5,
        2,
        {"cached_tokens": 1},
    )
    assert events[-1][1]["response"]["output"][0]["content"][0]["text"] == "Hello! This"


def test_a_capped_response_is_incomplete() -> None:
    name, payload = stream("/v1/responses", DemoScript(), input=TEXT, max_output_tokens=2)[-1]
    assert name == "response.incomplete"
    assert payload["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_response_calls_a_tool() -> None:
    tools = [{"type": "function", "name": "look", "parameters": {}}]
    (item,) = plain("/v1/responses", DemoScript(chunks=3), input=TEXT, tools=tools)["output"]
    assert (item["type"], item["name"], json.loads(item["arguments"])) == ("function_call", "look", {"text": "Hello!"})
    events = stream("/v1/responses", DemoScript(chunks=3), input=TEXT, tools=tools)
    deltas = [payload["delta"] for name, payload in events if name == "response.function_call_arguments.delta"]
    assert "".join(deltas) == item["arguments"]


def test_a_message_streams_named_events_with_usage_at_both_ends() -> None:
    script = DemoScript(chunks=2, cached_tokens=3)
    events = stream("/v1/messages", script, messages=[{"role": "user", "content": TEXT}])
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    usage = events[0][1]["message"]["usage"] | events[6][1]["usage"]
    told = read_usage(usage)
    assert told is not None
    assert (told.input, told.cached_input, told.output) == (5, 3, 2)


def test_a_message_says_why_it_stopped() -> None:
    messages = [{"role": "user", "content": TEXT}]
    assert plain("/v1/messages", DemoScript(), messages=messages)["stop_reason"] == "end_turn"
    assert plain("/v1/messages", DemoScript(), messages=messages, max_tokens=1)["stop_reason"] == "max_tokens"
    called = plain("/v1/messages", DemoScript(chunks=3), messages=messages, tools=[{"name": "look"}])
    assert (called["stop_reason"], called["content"][0]["name"]) == ("tool_use", "look")


def test_errors_have_the_shape_of_their_api() -> None:
    assert plain("/v1/responses", DemoScript(status=500))["error"]["type"] == "server_error"
    assert plain("/v1/messages", DemoScript(status=529)) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "The demo upstream's script answers with 529."},
    }
    assert stream("/v1/messages", DemoScript(error_after=3))[3][0] == "error"
    assert stream("/v1/responses", DemoScript(error_after=3))[3][1]["type"] == "error"


CONTENTS = [{"role": "user", "parts": [{"text": TEXT}]}]


def test_geminis_stream_reports_what_came_so_far_in_each_event() -> None:
    script = DemoScript(chunks=2, cached_tokens=1, reasoning_tokens=4)
    events = [payload for _, payload in stream("streamGenerateContent", script, contents=CONTENTS)]
    texts = [event["candidates"][0]["content"]["parts"][0]["text"] for event in events]
    assert texts == ["Hello!", " This", ""]
    assert [event["usageMetadata"]["candidatesTokenCount"] for event in events] == [1, 2, 2]
    assert events[-1]["candidates"][0]["finishReason"] == "STOP"
    assert events[-1]["usageMetadata"] == {
        "promptTokenCount": 5,
        "candidatesTokenCount": 2,
        "totalTokenCount": 11,
        "cachedContentTokenCount": 1,
        "thoughtsTokenCount": 4,
    }
    assert plain("streamGenerateContent", script, contents=CONTENTS) == [
        plain("generateContent", script, contents=CONTENTS)
    ]


def test_gemini_stops_at_its_cap_and_calls_the_first_function() -> None:
    capped = plain("generateContent", DemoScript(), contents=CONTENTS, generationConfig={"maxOutputTokens": 2})
    assert capped["candidates"][0]["finishReason"] == "MAX_TOKENS"
    tools = [{"functionDeclarations": [{"name": "look"}]}]
    (event,) = stream("streamGenerateContent", DemoScript(chunks=3), contents=CONTENTS, tools=tools)
    (part,) = event[1]["candidates"][0]["content"]["parts"]
    assert part["functionCall"]["name"] == "look"


def test_gemini_embeds_one_content_or_several() -> None:
    assert plain("embedContent", DemoScript(), content=CONTENTS[0])["usageMetadata"] == {"promptTokenCount": 5}
    assert len(plain("batchEmbedContents", DemoScript(), requests=[{"content": CONTENTS[0]}] * 3)["embeddings"]) == 3


@pytest.mark.parametrize(
    ("path", "fields", "member"),
    [
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": TEXT}]}, "input_tokens"),
        ("/v1/responses/input_tokens", {"input": TEXT}, "input_tokens"),
        ("countTokens", {"contents": CONTENTS}, "totalTokens"),
    ],
)
def test_counting_tells_the_prompts_size_and_costs_nothing(path: str, fields: dict[str, Any], member: str) -> None:
    assert plain(path, DemoScript(), **fields)[member] == 5
    counted = reply(path, DemoScript(), **fields)
    assert counted.counts is None
    assert not any(piece.reports for piece in counted.pieces)


def test_a_score_is_there_for_each_pair() -> None:
    scores = plain("/v1/score", DemoScript(), text_1=TEXT, text_2=[TEXT, TEXT])
    assert [row["score"] for row in scores["data"]] == [1.0, 0.5]


def test_a_path_of_gemini_names_the_model_and_what_is_done_with_it() -> None:
    assert DemoCall.of("/v1beta/models/openai/gpt-oss-120b:countTokens") == ("countTokens", "openai/gpt-oss-120b")
    assert DemoCall.of("/v1/score") == ("/v1/score", "")


def test_embeddings_come_as_numbers_or_packed() -> None:
    path = "/v1/embeddings"
    rows = plain(path, DemoScript(), input=[TEXT, TEXT], dimensions=2)["data"]
    assert [row["embedding"] for row in rows] == [[1.0, 0.5], [1.0, 0.5]]
    (row,) = plain(path, DemoScript(), input=TEXT, dimensions=2, encoding_format="base64")["data"]
    assert struct.unpack("<2f", base64.b64decode(row["embedding"])) == (1.0, 0.5)
    assert len(plain(path, DemoScript(), input=[1, 2, 3])["data"]) == 1


def test_what_is_never_streamed_is_answered_whole() -> None:
    assert plain("/v1/moderations", DemoScript(), input=TEXT, stream=True)["results"][0]["flagged"] is False


def test_speech_is_bytes_of_sound() -> None:
    head, body = head_and_body(b"".join(piece.data for piece in reply("/v1/audio/speech", DemoScript()).pieces))
    assert b"content-type: audio/mpeg" in head
    assert body.startswith(b"ID3")


async def test_a_form_names_its_model_and_its_script() -> None:
    form = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n'
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
        b'--b\r\ncontent-disposition: form-data; name="demo"\r\n\r\n{"chunks": 2}\r\n--b--\r\n'
    )
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"content-type: multipart/form-data; boundary=b\r\ncontent-length: %d\r\n\r\n" % len(form)
    )
    async with DemoUpstream() as upstream:
        told = json.loads(head_and_body(await answer(upstream, head + form))[1])
        assert (told["text"], told["usage"]["output_tokens"]) == ("Hello! This", 2)
        assert upstream.truth.tallies["whisper", ""].reported.completion == 2


@pytest.mark.parametrize("pieces", ["whole", "byte", "random"])
async def test_a_recorded_stream_is_replayed_to_the_byte_and_counted_as_told(pieces: str) -> None:
    recorded = (
        'data: {"choices":[{"delta":{"content":"Grüße"}}]}\r\n\r\n'
        'data: {"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n'
    )
    script = DemoScript(body=recorded, prompt_tokens=7, completion_tokens=1).changed({"pieces": pieces})
    async with DemoUpstream(script) as upstream:
        chunks, rest = unchunked(head_and_body(await answer(upstream, request(stream=True)))[1])
        assert b"".join(chunks).decode() == recorded
        assert rest == b"0\r\n\r\n"
        reported = upstream.truth.total.reported
        assert (reported.prompt, reported.completion) == (7, 1)


@pytest.mark.parametrize("recording", [each for each in recordings() if each.is_stream], ids=lambda each: each.name)
def test_every_recording_can_be_replayed_in_random_pieces(recording: Recording) -> None:
    script = DemoScript(body=recording.body.decode(), pieces="random")
    pieces = list(reply("/v1/chat/completions", script, stream=True).pieces)
    chunks, _ = unchunked(head_and_body(b"".join(piece.data for piece in pieces))[1])
    assert b"".join(chunks) == recording.body
