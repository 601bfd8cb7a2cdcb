"""Real SDKs read the streams that the gateway writes itself: late plain answers, and streams that a quota ends."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import httpx2
import openai

from gateway.core.endpoints import CHAT, MESSAGES, RESPONSES, Endpoint
from gateway.core.output_budget import OutputBudget
from gateway.core.stream_format import stream_of_plain
from gateway.core.stream_tally import StreamTally

Json = dict[str, Any]

CALL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
COMPLETION: Json = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 12, "output_tokens": 45},
}
RESPONSE: Json = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {
            "id": "i",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        },
        {"id": "f", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
    ],
    "usage": {
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}


def written(endpoint: Endpoint, answer: Json) -> bytes:
    stream = stream_of_plain(endpoint.stream_format, json.dumps(answer).encode(), merge=True)
    assert stream is not None
    return stream


def ended(endpoint: Endpoint, answer: Json, tokens: int) -> bytes:
    """The same as a stream that may deliver so many tokens."""
    assert endpoint.stream_format is not None
    budget = OutputBudget(endpoint.stream_format, output=tokens, input_tokens=7)
    return StreamTally(endpoint, merge=False, budget=budget).feed(written(endpoint, answer))


def openai_over(stream: bytes) -> openai.OpenAI:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    return openai.OpenAI(api_key="none", base_url="http://gateway.test/v1", http_client=client)


def anthropic_over(stream: bytes) -> anthropic.Anthropic:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="none", base_url="http://gateway.test", http_client=client)


def message_of(stream: bytes) -> Any:
    asked = anthropic_over(stream).messages.stream(
        model="m", max_tokens=5, messages=[{"role": "user", "content": "Say it."}]
    )
    with asked as events:
        return events.get_final_message()


def test_a_late_completion_is_read_whole() -> None:
    client = openai_over(written(CHAT, COMPLETION))
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Say it."}]) as events:
        events.until_done()
        answer = events.get_final_completion()
    message = answer.choices[0].message
    assert (message.content, answer.choices[0].finish_reason) == ("Hello", "tool_calls")
    assert message.tool_calls is not None
    assert [call.function.name for call in message.tool_calls] == ["f"]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 3


def test_a_late_response_is_read_whole() -> None:
    with openai_over(written(RESPONSES, RESPONSE)).responses.stream(model="m", input="Say it.") as events:
        events.until_done()
        answer = events.get_final_response()
    assert (answer.output_text, [item.type for item in answer.output]) == ("Hello", ["message", "function_call"])


def test_a_late_message_is_read_whole() -> None:
    message = message_of(written(MESSAGES, MESSAGE))
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert (message.content[1].text, message.content[2].input) == ("Hello", {"a": 1})
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 45)


def test_a_message_that_a_quota_ends_has_run_into_its_maximum() -> None:
    message = message_of(ended(MESSAGES, MESSAGE, tokens=1))
    assert (message.content[0].thinking, message.stop_reason) == ("hm", "max_tokens")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 1)


def test_a_response_that_a_quota_ends_is_incomplete() -> None:
    with openai_over(ended(RESPONSES, RESPONSE, tokens=0)).responses.stream(model="m", input="Say it.") as events:
        last = list(events)[-1]
    assert last.type == "response.incomplete"
    assert (last.response.status, last.response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
