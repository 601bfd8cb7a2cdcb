"""What an event delivers, and how a stream is ended before its model ends it, in the shape of each API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoints import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Endpoint, StreamFormat
from gateway.core.estimate import CHARACTERS_PER_STREAMED_TOKEN
from gateway.core.output_budget import OutputBudget
from gateway.core.stream_format import event_weight, only_opens, stream_of_plain
from gateway.core.stream_tally import StreamTally
from gateway.core.usage import Usage, UsageSource

Json = dict[str, Any]


def event(data: Json, kind: str = "") -> bytes:
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def chat(**delta: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def legacy(text: str) -> Json:
    choice = {"index": 0, "text": text, "finish_reason": None, "logprobs": None}
    return {"id": "c", "object": "text_completion", "model": "m", "choices": [choice]}


def output_text(text: str) -> Json:
    return {"type": "response.output_text.delta", "sequence_number": 7, "item_id": "i", "delta": text}


def text_delta(text: str) -> Json:
    return {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": text}}


CREATED: Json = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}}
MESSAGE_START: Json = {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 21}}}


@pytest.mark.parametrize(
    ("shape", "data", "size"),
    [
        (StreamFormat.CHAT, chat(role="assistant", content=""), 0),
        (StreamFormat.CHAT, chat(content="four"), 4),
        (StreamFormat.CHAT, chat(content="", reasoning="thought"), 7),
        (StreamFormat.CHAT, chat(content=None, reasoning_content="thought"), 7),
        (StreamFormat.CHAT, chat(content=None, thinking="thought", reasoning_text="thought"), 7),
        (StreamFormat.CHAT, chat(reasoning="same", reasoning_details=[{"type": "reasoning.text", "text": "same"}]), 4),
        (StreamFormat.CHAT, chat(reasoning_details=[{"type": "reasoning.encrypted", "data": "gAAAAABpCC" * 99}]), 0),
        (
            StreamFormat.CHAT,
            chat(reasoning_details=[{"text": "same", "signature": "Et0BCkgI" * 99, "format": "anthropic-claude-v1"}]),
            4,
        ),
        (StreamFormat.CHAT, chat(thinking_blocks=[{"thinking": "same", "signature": "Et0BCkgI" * 99}]), 4),
        (StreamFormat.CHAT, chat(thinking=[{"type": "text", "text": "same"}, "four"]), 8),
        (StreamFormat.CHAT, chat(refusal="no"), 2),
        (StreamFormat.CHAT, chat(tool_calls=[{"index": 0, "id": "call_1", "function": {"arguments": '{"a"'}}]), 4),
        (StreamFormat.CHAT, chat(content=[{"type": "text", "text": "part"}]), 4),
        (StreamFormat.CHAT, {"choices": [chat(content="ab")["choices"][0], chat(content="c")["choices"][0]]}, 3),
        (StreamFormat.CHAT, {"choices": []}, 0),
        (StreamFormat.COMPLETIONS, legacy("你好"), 8),
        (StreamFormat.RESPONSES, CREATED, 0),
        (StreamFormat.RESPONSES, output_text("four"), 4),
        (StreamFormat.RESPONSES, {"type": "response.reasoning_text.delta", "delta": "hm"}, 2),
        (StreamFormat.RESPONSES, {"type": "response.output_text.done", "text": "all of it"}, 0),
        (StreamFormat.MESSAGES, MESSAGE_START, 0),
        (StreamFormat.MESSAGES, text_delta("four"), 4),
        (
            StreamFormat.MESSAGES,
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
            2,
        ),
        (StreamFormat.MESSAGES, {"type": "content_block_delta", "delta": {"type": "x", "partial_json": '{"'}}, 2),
        (StreamFormat.MESSAGES, {"type": "content_block_delta", "delta": {"type": "x", "signature": "abc"}}, 0),
    ],
)
def test_an_event_delivers_text_thoughts_refusals_and_arguments(shape: StreamFormat, data: Json, size: int) -> None:
    assert event_weight(shape, json.dumps(data).encode()) == size


@given(
    st.sampled_from(StreamFormat),
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "type", "text", "content", "message", "tool_calls", "index"]),
                inner,
            )
        ),
    ),
)
def test_no_json_of_an_upstream_raises(shape: StreamFormat, value: Any) -> None:
    data = json.dumps(value).encode()
    assert event_weight(shape, data) >= 0
    stream_of_plain(shape, data, merge=True)
    budget = OutputBudget(shape, output=0, input_tokens=1)
    budget.ending(data, budget.usage(Usage()), merge=True)


def stopped(
    endpoint: Endpoint, *events: bytes, output: int, merge: bool = True, choices: int = 1
) -> tuple[list[Json], StreamTally]:
    """What the client gets of a stream that goes on, with this budget."""
    assert endpoint.stream_format is not None
    budget = OutputBudget(endpoint.stream_format, output=output, input_tokens=7, choices=choices)
    tally = StreamTally(endpoint, merge=merge, budget=budget)
    given_ = b"".join(tally.feed(each) for each in events)
    assert tally.stopped
    data = [part.partition(b"data: ")[2] for part in given_.split(b"\n\n")[:-1]]
    return [json.loads(each) for each in data if each != b"[DONE]"], tally


def test_a_chat_ends_with_its_length_its_usage_and_what_was_delivered() -> None:
    chunks, tally = stopped(CHAT, *[event(chat(content="word"))] * 9, output=3)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["word"] * 3 + [None]
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert chunks[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert tally.usage == Usage(7, 3, source=UsageSource.ESTIMATED)


def test_a_legacy_completion_ends_with_a_choice_of_its_own_shape() -> None:
    chunks, _ = stopped(COMPLETIONS, *[event(legacy("word"))] * 9, output=2, choices=2)
    assert chunks[-1]["object"] == "text_completion"
    assert chunks[-1]["choices"] == [
        {"index": index, "text": "", "logprobs": None, "finish_reason": "length"} for index in range(2)
    ]


def test_a_response_ends_incomplete() -> None:
    events, _ = stopped(
        RESPONSES, event(CREATED, "response.created"), *[event(output_text("word"), "x")] * 9, output=2, merge=False
    )
    last = events[-1]
    assert (last["type"], last["sequence_number"]) == ("response.incomplete", 7)
    assert (last["response"]["id"], last["response"]["status"]) == ("resp_1", "incomplete")
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["usage"] == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}


def test_a_message_closes_its_block_and_keeps_the_input_that_was_reported() -> None:
    events, tally = stopped(
        MESSAGES, event(MESSAGE_START, "message_start"), *[event(text_delta("word"))] * 9, output=2, merge=False
    )
    assert [each["type"] for each in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-3]["index"] == 2
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert events[-2]["usage"] == {"output_tokens": 2}
    assert tally.usage == Usage(21, 2, source=UsageSource.ESTIMATED)


def test_thoughts_are_counted_as_the_text_is() -> None:
    chunks, _ = stopped(CHAT, *[event(chat(content="", reasoning="hmm"))] * 9, output=4)
    assert len(chunks) == 4 + 1


def test_several_tokens_in_one_event_are_counted_by_their_text() -> None:
    eight_tokens = "x" * 8 * CHARACTERS_PER_STREAMED_TOKEN
    chunks, tally = stopped(CHAT, *[event(chat(content=eight_tokens))] * 9, output=20)
    assert len(chunks) == 2 + 1
    assert tally.usage is not None
    assert tally.usage.output == 16


def test_usage_in_every_chunk_hides_no_text() -> None:
    counting = {**chat(content="word"), "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    chunks, tally = stopped(CHAT, *[event(counting)] * 9, output=3)
    assert len(chunks) == 3 + 1
    assert tally.usage == Usage(5, 3, source=UsageSource.ESTIMATED)


def test_an_upstream_that_keeps_to_its_cap_ends_by_itself() -> None:
    budget = OutputBudget(StreamFormat.CHAT, output=3, input_tokens=7)
    tally = StreamTally(CHAT, merge=False, budget=budget)
    finish = {**chat(), "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}
    stream = b"".join([*[event(chat(content="word"))] * 3, event(finish), event(usage), b"data: [DONE]\n\n"])
    assert tally.feed(stream) + tally.close() == stream
    assert (tally.stopped, tally.usage) == (False, Usage(5, 3))


@pytest.mark.parametrize(
    ("shape", "data", "opens"),
    [
        (StreamFormat.GEMINI, b'{"usageMetadata":{},"modelVersion":"m"}', True),
        (StreamFormat.GEMINI, b'{"candidates":[{"content":{"parts":[{"inlineData":{"data":"UklGRg=="}}]}}]}', False),
        (StreamFormat.GEMINI, b"[]", False),
        (StreamFormat.CHAT, b'{"choices":[]}', True),
        (StreamFormat.CHAT, b'{"choices":[{"delta":{"role":"assistant","content":"","tool_calls":[]}}]}', True),
        (StreamFormat.CHAT, b'{"choices":[{"delta":{"role":"assistant"}},{"delta":{"audio":{"id":"a"}}}]}', False),
        (StreamFormat.CHAT, b'{"object":"chat.completion.chunk"}', False),
        (StreamFormat.COMPLETIONS, b'{"choices":[{"text":"","finish_reason":"stop"}]}', False),
        (StreamFormat.RESPONSES, b'{"type":"response.queued"}', True),
        (StreamFormat.RESPONSES, b'{"type":["response.queued"]}', False),
        (StreamFormat.MESSAGES, b"no JSON", False),
    ],
)
def test_what_only_opens_an_answer_has_no_part_of_it(shape: StreamFormat, data: bytes, opens: bool) -> None:
    assert only_opens(shape, data) is opens
