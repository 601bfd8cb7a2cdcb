from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.tolerant_json import JsonScanner, scan
from gateway.core.usage import Usage
from gateway.core.usage_reading import UsageReader, report_in, wanted_of
from gateway.core.usage_tables import (
    CHAT_USAGE,
    CONVERSATIONS_USAGE,
    EMBEDDINGS_USAGE,
    GEMINI_EMBEDDINGS_USAGE,
    GEMINI_USAGE,
    IMAGES_USAGE,
    MESSAGES_USAGE,
    MODERATIONS_USAGE,
    NO_USAGE,
    RERANK_USAGE,
    RESPONSES_USAGE,
    SPEECH_USAGE,
    TRANSCRIPTIONS_USAGE,
    UsageTable,
)

TABLES = [
    *(CHAT_USAGE, RESPONSES_USAGE, MESSAGES_USAGE, EMBEDDINGS_USAGE, RERANK_USAGE, MODERATIONS_USAGE, IMAGES_USAGE),
    *(TRANSCRIPTIONS_USAGE, SPEECH_USAGE, GEMINI_USAGE, GEMINI_EMBEDDINGS_USAGE, NO_USAGE),
]
CHAT = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
RESPONSE: dict[str, Any] = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def read(table: UsageTable, *events: dict[str, Any] | bytes) -> UsageReader:
    reader = UsageReader(table)
    for event in events:
        reader.read(event if isinstance(event, bytes) else json.dumps(event).encode())
    return reader


@pytest.mark.parametrize(
    ("table", "members"),
    [
        pytest.param(CHAT_USAGE, {"usage": CHAT}, id="usage"),
        pytest.param(CHAT_USAGE, {"usage": None, "x_groq": {"usage": CHAT}}, id="Groq"),
        pytest.param(CHAT_USAGE, {"usage": {}, "choices": [{"index": 0, "usage": CHAT}]}, id="Moonshot"),
        pytest.param(CHAT_USAGE, {"choices": [{"usage": None}, {"usage": CHAT}, {"usage": None}]}, id="of a choice"),
        pytest.param(CHAT_USAGE, {"prompt_eval_count": 11, "eval_count": 7, "done": True}, id="Ollama"),
        pytest.param(CHAT_USAGE, {"usage": {"cost": 1}, "x_groq": {"usage": CHAT}}, id="a usage without counts"),
        pytest.param(RESPONSES_USAGE, {"type": "response.completed", "response": {"usage": RESPONSE}}, id="completed"),
        pytest.param(
            RESPONSES_USAGE, {"type": "response.incomplete", "response": {"usage": RESPONSE}}, id="incomplete"
        ),
        pytest.param(RESPONSES_USAGE, {"response": {"usage": RESPONSE}, "type": "response.failed"}, id="failed"),
        pytest.param(RESPONSES_USAGE, {"type": "response.done", "response": {"usage": RESPONSE}}, id="OpenRouter"),
        pytest.param(RESPONSES_USAGE, {"type": "response.cancelled", "response": {"usage": RESPONSE}}, id="cancelled"),
        pytest.param(RESPONSES_USAGE, {"object": "response", "usage": RESPONSE}, id="a response"),
        pytest.param(MESSAGES_USAGE, {"type": "message", "usage": RESPONSE}, id="a message"),
        pytest.param(MESSAGES_USAGE, {"type": "message_delta", "usage": RESPONSE}, id="message_delta"),
        pytest.param(MESSAGES_USAGE, {"type": "message_stop", "usage": RESPONSE}, id="message_stop"),
        pytest.param(GEMINI_USAGE, {"usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7}}, id="Gemini"),
    ],
)
def test_usage_is_found_at_each_place_of_an_api(table: UsageTable, members: dict[str, Any]) -> None:
    reader = read(table, members)
    assert (reader.usage.input, reader.usage.output) == (11, 7)
    assert reader.reported
    assert reader.final


def _of_choice(index: int, output: int, **more: Any) -> dict[str, Any]:
    report = {"prompt_tokens": 11, "completion_tokens": output, "total_tokens": 11 + output, **more}
    return {"index": index, "delta": {}, "finish_reason": "stop", "usage": report}


@pytest.mark.parametrize(
    "events",
    [
        [{"choices": [_of_choice(0, 40), _of_choice(1, 30)]}],
        [{"choices": [_of_choice(0, 40)]}, {"choices": [_of_choice(1, 30)]}],
        [{"choices": [_of_choice(1, 1)]}, {"choices": [_of_choice(0, 40)]}, {"choices": [_of_choice(1, 30)]}],
        [{"choices": [_of_choice(0, 40)]}, {"choices": [{"index": 1, "usage": None}, _of_choice(1, 30)]}],
    ],
)
def test_the_output_of_all_choices_counts_where_each_reports_its_own(events: list[dict[str, Any]]) -> None:
    reader = read(CHAT_USAGE, *events)
    assert (reader.usage.input, reader.usage.output) == (11, 70)
    assert reader.final
    whole = read(CHAT_USAGE, *events, {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 71}})
    assert (whole.usage.input, whole.usage.output) == (11, 71)


def test_the_thoughts_of_all_choices_count_in_a_text_that_is_read_in_pieces() -> None:
    thoughts = {"completion_tokens_details": {"reasoning_tokens": 4}}
    answer = json.dumps({"choices": [_of_choice(0, 40, **thoughts), _of_choice(1, 30, **thoughts)]}).encode()
    reader = UsageReader(CHAT_USAGE)
    scanner = reader.scanner()
    scanner.feed(answer)
    scanner.close()
    assert (reader.usage.output, reader.usage.reasoning) == (70, 8)


@pytest.mark.parametrize(
    ("table", "members", "usage"),
    [
        pytest.param(
            EMBEDDINGS_USAGE,
            {"meta": {"billed_units": {"input_tokens": 7, "image_tokens": 4}}},
            Usage(11, image_input=4),
            id="Cohere",
        ),
        pytest.param(EMBEDDINGS_USAGE, {"prompt_eval_count": 5}, Usage(5), id="Ollama"),
        pytest.param(TRANSCRIPTIONS_USAGE, {"duration": "8.47"}, Usage(audio_ms=9_000), id="a duration as a text"),
        pytest.param(RERANK_USAGE, {"meta": {"tokens": {"input_tokens": 38}}}, Usage(38), id="tokens alone"),
        pytest.param(
            TRANSCRIPTIONS_USAGE, {"usage": {"type": "duration", "seconds": 7.25}}, Usage(audio_ms=7_250), id="seconds"
        ),
        pytest.param(
            TRANSCRIPTIONS_USAGE,
            {"duration": 8.47, "segments": [{"tokens": [1, 2]}]},
            Usage(audio_ms=9_000),
            id="duration",
        ),
        pytest.param(TRANSCRIPTIONS_USAGE, {"duration": "8.47s"}, Usage(), id="a duration that is no number"),
        pytest.param(
            TRANSCRIPTIONS_USAGE,
            {"duration": 36.7, "usage": {"type": "duration", "seconds": 37}},
            Usage(audio_ms=37_000),
            id="both",
        ),
        pytest.param(
            TRANSCRIPTIONS_USAGE,
            {
                "duration": 36.7,
                "usage": {"input_tokens": 14, "output_tokens": 45, "input_token_details": {"audio_tokens": 14}},
            },
            Usage(14, 45, audio_input=14),
            id="tokens",
        ),
        pytest.param(
            TRANSCRIPTIONS_USAGE,
            {"type": "transcript.text.done", "usage": RESPONSE},
            Usage(11, 7),
            id="transcript's end",
        ),
        pytest.param(
            SPEECH_USAGE, {"type": "speech.audio.done", "usage": RESPONSE}, Usage(11, 7, audio_output=7), id="speech"
        ),
        pytest.param(IMAGES_USAGE, {"data": [{"url": "a"}, {"url": "b"}]}, Usage(images=2), id="pictures"),
        pytest.param(IMAGES_USAGE, {"images": [{"url": "a"}]}, Usage(images=1), id="SiliconFlow's pictures"),
        pytest.param(
            IMAGES_USAGE,
            {
                "data": [{"b64_json": "A"}],
                "usage": RESPONSE | {"input_tokens_details": {"image_tokens": 4, "text_tokens": 7}},
            },
            Usage(11, 7, image_input=4, image_output=7, images=1),
            id="pictures and tokens",
        ),
        pytest.param(
            IMAGES_USAGE,
            {"data": [{}], "usage": RESPONSE | {"output_tokens_details": {"image_tokens": 0, "text_tokens": 7}}},
            Usage(11, 7, images=1),
            id="text",
        ),
        pytest.param(
            RESPONSES_USAGE,
            {
                "usage": RESPONSE,
                "output": [
                    {"type": "web_search_call", "action": {"type": kind}} for kind in ("search", "open_page", "search")
                ]
                + [{"type": "image_generation_call"}, None],
            },
            Usage(11, 7, searches=2, images=1),
            id="tools",
        ),
        pytest.param(
            RESPONSES_USAGE,
            {"usage": RESPONSE, "output": [{"type": "web_search_call", "action": {"type": ["search"]}}]},
            Usage(11, 7),
            id="an action that is no name",
        ),
        pytest.param(
            RESPONSES_USAGE,
            {"usage": RESPONSE, "output": [{"type": "web_search_call", "action": {"query": "moons"}}]},
            Usage(11, 7, searches=1),
            id="an action without a name",
        ),
        pytest.param(
            GEMINI_USAGE,
            {
                "candidates": [{"groundingMetadata": {"webSearchQueries": ["", "moons", "", "Mars", "moons", None]}}],
                "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7},
            },
            Usage(11, 7, searches=2),
            id="searches that are empty or the same",
        ),
        pytest.param(RESPONSES_USAGE, {"usage": None, "service_tier": "auto"}, Usage(service_tier="auto"), id="queued"),
        pytest.param(CHAT_USAGE, {"usage": CHAT, "service_tier": "flex"}, Usage(11, 7, service_tier="flex"), id="tier"),
        pytest.param(
            CHAT_USAGE,
            {"usage": {**CHAT, "service_tier": "batch"}, "service_tier": None},
            Usage(11, 7, service_tier="batch"),
            id="tier in usage",
        ),
        pytest.param(NO_USAGE, {"input_tokens": 16, "usage": RESPONSE}, Usage(), id="counting costs nothing"),
    ],
)
def test_units_tiers_and_input_alone_are_read(table: UsageTable, members: dict[str, Any], usage: Usage) -> None:
    assert read(table, members).usage == usage
    # What is too long to be held is read piece by piece to the same end.
    reader = UsageReader(table)
    scanner = reader.scanner()
    for byte in json.dumps(members).encode():
        scanner.feed(bytes([byte]))
    scanner.close()
    assert reader.usage == usage


@pytest.mark.parametrize(
    ("table", "members"),
    [
        (
            RESPONSES_USAGE,
            {
                "type": "response.created",
                "response": {"tools": [{"parameters": {"usage": RESPONSE}}], "usage": RESPONSE},
            },
        ),
        (RESPONSES_USAGE, {"response": {"usage": RESPONSE}, "usage": RESPONSE, "type": "response.in_progress"}),
        (RESPONSES_USAGE, {"type": "response.output_text.delta", "usage": RESPONSE}),
        (
            RESPONSES_USAGE,
            {"object": "response", "tools": [{"parameters": {"usage": RESPONSE}}], "metadata": {"usage": RESPONSE}},
        ),
        (MESSAGES_USAGE, {"type": "content_block_delta", "usage": RESPONSE}),
        (MESSAGES_USAGE, {"type": "message_delta", "message": {"usage": RESPONSE}}),
        (CHAT_USAGE, {"choices": [{"message": {"content": json.dumps({"usage": CHAT}), "usage": CHAT}}]}),
        (CHAT_USAGE, {"metadata": {"usage": CHAT}, "response": {"usage": CHAT}}),
        (TRANSCRIPTIONS_USAGE, {"type": "transcript.text.delta", "usage": RESPONSE}),
        (GEMINI_USAGE, {"candidates": [{"usageMetadata": {"promptTokenCount": 1}}]}),
        (EMBEDDINGS_USAGE, {"data": [{"usage": CHAT}], "meta": {"usage": CHAT}}),
    ],
)
def test_usage_is_believed_only_where_the_api_reports_it(table: UsageTable, members: dict[str, Any]) -> None:
    assert not read(table, members).reported
    text = json.dumps(members).encode()
    for broken in (text[:-1], b"// x\n" + text, text.replace(b"{", b'{"bad": NaN, ', 1)):
        assert not read(table, broken).reported


def test_the_name_in_the_events_own_line_counts_where_the_data_has_none() -> None:
    reader = UsageReader(RESPONSES_USAGE)
    data = json.dumps({"response": {"usage": RESPONSE}}).encode()
    assert not reader.read(data, "response.created")
    assert reader.read(data, "response.completed")


def test_the_last_report_of_a_stream_counts() -> None:
    reader = read(
        CHAT_USAGE, {"usage": {"prompt_tokens": 11, "completion_tokens": 1}}, {"usage": None}, {"usage": CHAT}
    )
    assert reader.usage == Usage(11, 7)


@pytest.mark.parametrize(
    ("table", "begun", "last", "usage"),
    [
        pytest.param(
            CHAT_USAGE,
            {"usage": {**CHAT, "prompt_tokens_details": {"cached_tokens": 8}}},
            {"usage": {"prompt_tokens": None, "completion_tokens": 20, "total_tokens": None}},
            Usage(11, 20, cached_input=8),
            id="nulls",
        ),
        pytest.param(
            CHAT_USAGE,
            {"usage": {**CHAT, "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 2}}},
            {"usage": {**CHAT, "prompt_tokens_details": {"cached_tokens": None, "audio_tokens": 3}}},
            Usage(11, 7, cached_input=8, audio_input=3),
            id="a null inside",
        ),
        pytest.param(
            CHAT_USAGE,
            {"usage": {"prompt_tokens": 900, "completion_tokens": 0, "total_tokens": 900}},
            {"usage": {"prompt_tokens": 100, "completion_tokens": 20}},
            Usage(100, 20),
            id="a total is of its own report",
        ),
        pytest.param(
            GEMINI_USAGE,
            {"usageMetadata": {"promptTokenCount": 50, "cachedContentTokenCount": 40, "totalTokenCount": 50}},
            {"usageMetadata": {"candidatesTokenCount": 6}},
            Usage(50, 6, cached_input=40),
            id="Gemini",
        ),
    ],
)
def test_what_a_later_report_leaves_out_is_as_an_earlier_one_said(
    table: UsageTable, begun: dict[str, Any], last: dict[str, Any], usage: Usage
) -> None:
    reader = read(table, begun, last)
    assert (reader.usage, reader.final) == (usage, True)


@pytest.mark.parametrize(
    ("begun", "deltas", "usage"),
    [
        ({}, [{"cache_read_input_tokens": 60, "output_tokens": 7}], Usage(100, 7, cached_input=60)),
        ({"cache_read_input_tokens": 0}, [{"cache_read_input_tokens": 60, "output_tokens": 7}], Usage(100, 7, 60)),
        ({}, [{"cache_creation_input_tokens": 60, "output_tokens": 7}], Usage(100, 7, cache_write=60)),
        ({}, [{"cache_read_input_tokens": 102, "output_tokens": 7}], Usage(102, 7, cached_input=102)),
        ({}, [{"cache_read_input_tokens": 60, "output_tokens": 7}, {"output_tokens": 9}], Usage(100, 9, 60)),
        ({}, [{"input_tokens": 40, "cache_read_input_tokens": 60, "output_tokens": 7}], Usage(100, 7, 60)),
        ({"cache_read_input_tokens": 60}, [{"cache_read_input_tokens": 60, "output_tokens": 7}], Usage(160, 7, 60)),
        ({"cache_read_input_tokens": 60}, [{"output_tokens": 7}], Usage(160, 7, 60)),
    ],
)
def test_what_a_message_tells_of_a_cache_behind_its_input_is_a_part_of_that(
    begun: dict[str, Any], deltas: list[dict[str, Any]], usage: Usage
) -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 100, "output_tokens": 0, **begun}}}
    reader = read(MESSAGES_USAGE, start, *[{"type": "message_delta", "usage": delta} for delta in deltas])
    assert (reader.usage, reader.final) == (usage, True)


@pytest.mark.parametrize(
    ("table", "reports", "usage"),
    [
        pytest.param(
            MESSAGES_USAGE,
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
                {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 15}},
            ],
            Usage(9, 15),
            id="a message",
        ),
        pytest.param(
            MESSAGES_USAGE,
            [
                {
                    "type": "message_start",
                    "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 0}},
                },
                {
                    "type": "message_delta",
                    "usage": {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 15},
                },
            ],
            Usage(13, 15, cached_input=4),
            id="a message that was cached",
        ),
        pytest.param(
            MESSAGES_USAGE,
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
                {"type": "message_delta", "usage": {"input_tokens": 0, "cache_read_input_tokens": 9}},
                {"type": "message_delta", "usage": {"output_tokens": 0}},
            ],
            Usage(9, 0, cached_input=9),
            id="a message that was cached whole",
        ),
        pytest.param(
            GEMINI_USAGE,
            [
                {"usageMetadata": {"promptTokenCount": 50, "totalTokenCount": 50}},
                {"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 6}},
            ],
            Usage(50, 6),
            id="Gemini",
        ),
        pytest.param(
            CHAT_USAGE,
            [{"usage": CHAT}, {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}],
            Usage(0, 0),
            id="a report of both is the last word",
        ),
    ],
)
def test_an_input_that_was_reported_alone_is_not_undone_by_a_zero(
    table: UsageTable, reports: list[dict[str, Any]], usage: Usage
) -> None:
    assert read(table, *reports).usage == usage


@pytest.mark.parametrize(
    ("before", "usage"),
    [
        ({"prompt_tokens": 10}, Usage(10, 40, reasoning=40)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, Usage(10, 40, reasoning=35)),
        ({"completion_tokens": 20}, Usage(30, 20)),
    ],
    ids=["the input", "both, while it grew", "the output"],
)
def test_a_total_alone_is_what_an_earlier_report_leaves_of_it(before: dict[str, Any], usage: Usage) -> None:
    reader = read(CHAT_USAGE, {"usage": before}, {"usage": {"total_tokens": 50}})
    assert (reader.usage, reader.final) == (usage, True)


@pytest.mark.parametrize("nothing", [None, 0, "many"])
def test_a_total_of_nothing_is_no_report(nothing: object) -> None:
    reader = read(CHAT_USAGE, {"usage": {"prompt_tokens": 10}}, {"usage": {"total_tokens": nothing}})
    assert (reader.usage, reader.final) == (Usage(10), False)


def test_a_total_alone_is_no_report_where_nothing_came_before_it() -> None:
    assert not read(CHAT_USAGE, {"usage": {"total_tokens": 50}}).reported


def test_a_report_without_the_output_is_not_the_last_word() -> None:
    assert not read(CHAT_USAGE, {"usage": {"prompt_tokens": 11, "completion_tokens": None}}).final


def test_a_later_part_completes_an_earlier_one() -> None:
    start = {
        "type": "message_start",
        "message": {
            "usage": {
                "input_tokens": 1_500,
                "cache_read_input_tokens": 500,
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_1h_input_tokens": 30},
                "output_tokens": 1,
                "service_tier": "priority",
            }
        },
    }
    reader = read(MESSAGES_USAGE, start)
    assert reader.usage.input == 2_030
    assert not reader.final
    nulls = dict.fromkeys(("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"))
    reader.read(json.dumps({"type": "message_delta", "usage": {**nulls, "output_tokens": 12}}).encode())
    assert reader.usage == Usage(2_030, 12, cached_input=500, cache_write_1h=30, service_tier="priority")
    assert reader.final
    reader.read(json.dumps({"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 0}}).encode())
    assert (reader.usage.input, reader.usage.output) == (530, 0)
    assert not reader.read(b'{"type": "message_stop"}')


PAINTED = {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}
SEARCHED = {"type": "web_search_call", "action": {"type": "search", "query": "moons"}}
OPENED = {"type": "web_search_call", "action": {"type": "open_page"}}
FOUND = {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": "Moons"}]}
NOT_FOUND = {
    "type": "web_search_tool_result",
    "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"},
}


def _brought(table: UsageTable, *units: dict[str, Any]) -> list[dict[str, Any]]:
    if table is MESSAGES_USAGE:
        return [{"type": "content_block_start", "index": 0, "content_block": unit} for unit in units]
    return [{"type": "response.output_item.done", "output_index": 0, "item": unit} for unit in units]


@pytest.mark.parametrize(
    ("table", "units", "usage"),
    [
        (RESPONSES_USAGE, (PAINTED, SEARCHED, OPENED, PAINTED), Usage(images=2, searches=1)),
        (RESPONSES_USAGE, ({"type": "message", "content": []},), Usage()),
        (MESSAGES_USAGE, (FOUND, NOT_FOUND, FOUND), Usage(searches=2)),
        (MESSAGES_USAGE, ({"type": "text", "text": ""},), Usage()),
    ],
)
@pytest.mark.parametrize("is_scanned", [False, True])
def test_units_that_a_stream_has_brought_count_where_it_ends_before_its_report(
    table: UsageTable, units: tuple[dict[str, Any], ...], usage: Usage, is_scanned: bool
) -> None:
    reader = UsageReader(table)
    for event in _brought(table, *units):
        text = json.dumps(event).encode()
        if is_scanned:
            scanner = reader.scanner()
            scanner.feed(text)
            scanner.close()
        else:
            reader.read(text)
    assert reader.usage == usage


def test_units_that_a_stream_has_brought_count_once_where_the_report_has_them() -> None:
    ended = {"type": "response.completed", "response": {"output": [PAINTED, SEARCHED], "usage": RESPONSE}}
    reader = read(RESPONSES_USAGE, *_brought(RESPONSES_USAGE, PAINTED, SEARCHED), ended)
    assert (reader.usage.images, reader.usage.searches) == (1, 1)
    told = {"type": "message_delta", "usage": {"output_tokens": 9, "server_tool_use": {"web_search_requests": 0}}}
    assert read(MESSAGES_USAGE, *_brought(MESSAGES_USAGE, FOUND), told).usage.searches == 0


def test_every_finished_picture_of_a_stream_counts() -> None:
    done = {"type": "image_generation.completed", "b64_json": "A", "usage": RESPONSE}
    partial = {"type": "image_generation.partial_image", "b64_json": "A"}
    assert read(IMAGES_USAGE, partial, partial, done).usage == Usage(11, 7, image_output=7, images=1)
    assert read(IMAGES_USAGE, done, done).usage.images == 2


def test_a_stream_that_is_one_array_is_read_to_its_last_element() -> None:
    elements = [{"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": n}} for n in (1, 9)] + [{"x": 1}]
    text = json.dumps(elements).encode()
    for body in (text, text[:-1], text.replace(b"[", b"[ // a comment\n", 1)):
        assert read(GEMINI_USAGE, body).usage == Usage(5, 9)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [{"message": {"content": "caf\\ud83d"}}], "usage": %b}',
        b'{"choices": [{"logprobs": {"content": [{"logprob": -Infinity}]}}], "usage": %b}',
        b'{"choices": [{"message": {"content": "a\tb"}}], "usage": %b}',
        b": OPENROUTER PROCESSING\n\n : OPENROUTER PROCESSING\n" + b'{"choices": [], "usage": %b}',
        b'\xef\xbb\xbf{"usage": %b, "choices": [{"message": {"content": "the rest is los',
        b'{"usage": %b,}',
    ],
)
def test_an_answer_that_a_strict_parser_refuses_is_read(body: bytes) -> None:
    assert read(CHAT_USAGE, body % json.dumps(CHAT).encode()).usage == Usage(11, 7)


@pytest.mark.parametrize("body", [b"", b"null", b"3", b'"usage"', b"[]", b"[1]", b"<html>", b"\xff\xfe", b"{" * 5_000])
def test_what_is_no_answer_reports_nothing(body: bytes) -> None:
    for table in TABLES:
        assert not read(table, body).reported


def test_the_report_itself_can_be_asked_for() -> None:
    assert report_in({"usage": None, "x_groq": {"usage": CHAT}}, CHAT_USAGE) == CHAT
    assert report_in({"usage": {"cost": 1}}, CHAT_USAGE) is None


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        (RESPONSES_USAGE, {"type": "response", "object": "response", "usage": RESPONSE}),
        (RESPONSES_USAGE, {"type": "text", "usage": RESPONSE}),
        (MESSAGES_USAGE, {"type": "completion", "usage": RESPONSE}),
        (IMAGES_USAGE, {"type": "images", "usage": RESPONSE}),
    ],
)
def test_an_answer_is_believed_whatever_it_calls_itself_and_an_event_is_not(
    table: UsageTable, answer: dict[str, Any]
) -> None:
    text = json.dumps(answer).encode()
    whole, event, scanned = UsageReader(table, is_answer=True), UsageReader(table), UsageReader(table, is_answer=True)
    scanner = scanned.scanner()
    scanner.feed(text)
    scanner.close()
    assert whole.read(text)
    assert scanned.usage == whole.usage
    assert (whole.usage.input, whole.usage.output) == (11, 7)
    assert not event.read(text)


def test_an_answer_is_not_believed_in_what_it_repeats_of_a_request() -> None:
    reader = UsageReader(RESPONSES_USAGE, is_answer=True)
    assert not reader.read(json.dumps({"type": "response.created", "response": {"usage": RESPONSE}}).encode())


def test_a_later_report_of_the_input_alone_leaves_the_output_as_it_was_told() -> None:
    first = {"usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 3, "totalTokenCount": 11}}
    reader = read(GEMINI_USAGE, first, {"usageMetadata": {"promptTokenCount": 9}})
    assert (reader.usage.input, reader.usage.output, reader.final, reader.tells_output) == (9, 3, True, False)


def test_an_input_that_is_an_image_alone_is_a_report_where_there_is_no_output() -> None:
    image = {"meta": {"billed_units": {"images": 1, "image_tokens": 1000}}}
    reader = read(EMBEDDINGS_USAGE, image)
    assert (reader.usage.input, reader.usage.image_input, reader.tells_input) == (1000, 1000, True)
    assert not read(CHAT_USAGE, {"usage": {"prompt_tokens_details": {"image_tokens": 1000}}}).reported


def test_a_scanner_can_give_other_members_beside() -> None:
    wanted = wanted_of(CHAT_USAGE, also=[("error",)])
    assert scan(b'{"error": {"code": 1}, "usage": {"a": 2}, "b": 3}', wanted) == [
        {"error": {"code": 1}, "usage": {"a": 2}}
    ]


attacks = st.lists(
    st.sampled_from(['"', "\\", "{", "}", "[", "]", ",", ":", "/*", "*/", "//", "\n", "x", "\u2028", '"usage":'])
    | st.sampled_from([json.dumps({"usage": RESPONSE | CHAT}), '"usage": {"prompt_tokens": 1}', '"}}], "usage": {']),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("table", [CHAT_USAGE, RESPONSES_USAGE, MESSAGES_USAGE], ids=lambda table: table.name)
@given(attacks, st.booleans(), st.integers(0, 120))
def test_no_text_in_an_answer_is_taken_for_its_usage(table: UsageTable, text: str, behind: bool, cut: int) -> None:
    said = {"content": text, text: [text], "choices": [{"message": {"content": text}}], "message": {"content": text}}
    report = {"usage": {"prompt_tokens": 900, "input_tokens": 900, "completion_tokens": 90, "output_tokens": 90}}
    answer = json.dumps({**said, **report} if behind else {**report, **said}).encode()
    for body in (answer, answer[: len(answer) - cut], answer.replace(b"{", b'{"n": -Infinity, ', 1)):
        reader = read(table, body)
        assert not reader.reported or reader.usage.input == 900
        scanned = UsageReader(table)
        scanner = scanned.scanner()
        scanner.feed(body)
        scanner.close()
        assert not scanned.reported or scanned.usage.input == 900


names = (
    st.sampled_from(["usage", "type", "response", "message", "choices", "output", "data"])
    | st.sampled_from(
        ["x_groq", "usageMetadata", "meta", "billed_units", "prompt_tokens", "completion_tokens", "total_tokens"]
    )
    | st.sampled_from(["input_tokens", "output_tokens", "action", "duration", "*", "images"])
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["message", "response.completed", "search", "\ud83d"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=25,
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(max_examples=30)
@given(st.lists(values, max_size=3), st.integers(0, 60))
def test_no_answer_makes_it_raise(table: UsageTable, answers: list[Any], cut: int) -> None:
    reader = UsageReader(table)
    for answer in answers:
        text = json.dumps(answer).encode()
        reader.read(text)
        reader.read(text[: len(text) - cut])
        scanner: JsonScanner = reader.scanner()
        scanner.feed(text)
        scanner.close()
    assert reader.usage.input >= 0


@pytest.mark.parametrize(
    ("table", "events", "found"),
    [
        (RESPONSES_USAGE, [{"id": "resp_1", "output": [{"id": "msg_1"}], "usage": RESPONSE}], "resp_1"),
        (RESPONSES_USAGE, [{"type": "response.created", "response": {"id": "resp_1"}}], "resp_1"),
        (RESPONSES_USAGE, [{"response": {"id": "resp_1"}}, {"response": {"id": "resp_2"}}], "resp_1"),
        (RESPONSES_USAGE, [{"type": "response.output_text.delta", "item_id": "msg_1", "delta": "resp_2"}], ""),
        (RESPONSES_USAGE, [{"id": "../resp_1"}, {"id": ["resp_1"]}, {"id": ""}, {"id": "r" * 257}], ""),
        (RESPONSES_USAGE, [b'{"id":"resp_1","output":[{"text":"\x01'], "resp_1"),
        (CONVERSATIONS_USAGE, [{"id": "conv_1", "object": "conversation"}], "conv_1"),
        (CHAT_USAGE, [{"id": "chatcmpl-1", "usage": CHAT}], ""),
    ],
)
def test_the_id_is_read_that_the_upstream_keeps_the_answer_under(
    table: UsageTable, events: list[dict[str, Any] | bytes], found: str
) -> None:
    assert read(table, *events).object_id == found


def test_the_id_of_a_long_answer_is_picked_out_of_it() -> None:
    reader = UsageReader(RESPONSES_USAGE)
    scanner = reader.scanner()
    begun = b'{"type":"response.created","response":{"instructions":"'
    for piece in (begun, b"x" * 100_000, b'","id":"resp_', b'1"}}'):
        scanner.feed(piece)
    scanner.close()
    assert reader.object_id == "resp_1"


@pytest.mark.parametrize(
    ("table", "before", "after", "usage"),
    [
        (
            CHAT_USAGE,
            {"usage": {"prompt_tokens": 15, "completion_tokens": 3}},
            {"usage": {"input_tokens": 15, "output_tokens": 37}},
            Usage(15, 37),
        ),
        (
            CHAT_USAGE,
            {"usage": {"input_tokens": 9, "output_tokens": 1}},
            {"usage": {"prompt_tokens": 11, "completion_tokens": 20, "total_tokens": 31}},
            Usage(11, 20),
        ),
        (
            MESSAGES_USAGE,
            {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
            {"type": "message_delta", "usage": {"completion_tokens": 50}},
            Usage(10, 50),
        ),
        (
            MESSAGES_USAGE,
            {"type": "message_start", "message": {"usage": {"prompt_tokens": 10, "completion_tokens": 0}}},
            {"type": "message_delta", "usage": {"input_tokens": 12, "output_tokens": 50}},
            Usage(12, 50),
        ),
        (
            MESSAGES_USAGE,
            {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
            {"type": "message_delta", "usage": {"prompt_tokens": 0, "output_tokens": 50}},
            Usage(10, 50),
        ),
        (
            GEMINI_USAGE,
            {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 2}},
            {"usageMetadata": {"prompt_token_count": 10, "candidates_token_count": 30}},
            Usage(10, 30),
        ),
    ],
)
def test_a_later_report_counts_in_whichever_names_it_is(
    table: UsageTable, before: dict[str, Any], after: dict[str, Any], usage: Usage
) -> None:
    assert read(table, before, after).usage == usage
