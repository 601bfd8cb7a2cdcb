"""Chat completions, plain and streamed, as in OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway.demo.event import Event
from gateway.demo.turn import Counts, Turn

Json = dict[str, Any]


def plain(turn: Turn) -> Json:
    answer = _envelope(turn, "chat.completion")
    answer["choices"] = [
        {"index": index, "message": _message(turn, index), "finish_reason": finish_reason(turn)}
        for index in range(turn.choices)
    ]
    if turn.script.usage != "never":
        answer["usage"] = usage(turn.counts())
    return answer


def stream(turn: Turn) -> Iterator[Event]:
    """For each choice a head, the tokens in turn, an end; then usage, as the script has it."""
    policy = turn.script.usage
    choices = range(turn.choices)
    chunk = _chunks(turn)
    own = {**_envelope(turn, "chat.completion.chunk"), "choices": []}
    delivered = 0
    for index in choices:
        yield chunk(_choice(index, _opening(turn, index)), 0, delivered)
    for token in turn.tokens:
        for index in choices:
            delivered += 1
            yield chunk(_choice(index, _delta(turn, token)), 1, delivered)
    if policy == "early":
        yield Event({**own, "usage": usage(turn.counts())}, reports=True)
    for index in choices:
        event = chunk(_choice(index, {}, finish_reason(turn)), 0, delivered)
        if policy == "last" and index == turn.choices - 1:
            event = Event({**event.payload, "usage": usage(turn.counts())}, reports=True)
        yield event
    if policy == "always" or (policy in ("asked", "null") and turn.asks_usage):
        yield Event({**own, "usage": usage(turn.counts())}, reports=True)


def _chunks(turn: Turn) -> Callable[[Json, int, int], Event]:
    """What makes a chunk of one choice, the tokens in it and the tokens delivered so far."""
    parsed = _envelope(turn, "chat.completion.chunk")
    policy = turn.script.usage

    def chunk(choice: Json, tokens: int, delivered: int) -> Event:
        payload = {**parsed, "choices": [choice]}
        if policy == "null":
            payload["usage"] = None
        if policy == "every":
            payload["usage"] = usage(turn.counts(delivered))
        return Event(payload, tokens, policy == "every")

    return chunk


def usage(counts: Counts) -> Json:
    report: Json = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.total,
    }
    if counts.cached:
        report["prompt_tokens_details"] = {"cached_tokens": counts.cached}
    if counts.reasoning:
        report["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
    return report


def finish_reason(turn: Turn) -> str:
    if turn.capped:
        return "length"
    return "tool_calls" if turn.tool else "stop"


def error(status: int, message: str) -> Json:
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    code = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": message, "type": "requests" if status == 429 else kind, "param": None, "code": code}}


def error_event(status: int, message: str) -> Event:
    return Event(error(status, message))


def _envelope(turn: Turn, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{turn.number:024x}",
        "object": kind,
        "created": turn.created,
        "model": turn.asked.model,
    }


def _choice(index: int, delta: Json, finish: str | None = None) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _opening(turn: Turn, index: int) -> Json:
    if not turn.tool:
        return {"role": "assistant", "content": ""}
    return {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_call(turn, index, "")}]}


def _delta(turn: Turn, token: str) -> Json:
    if not turn.tool:
        return {"content": token}
    return {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}


def _call(turn: Turn, index: int, arguments: str) -> Json:
    call_id = f"call_{turn.number:x}_{index}"
    return {"id": call_id, "type": "function", "function": {"name": turn.tool, "arguments": arguments}}


def _message(turn: Turn, index: int) -> Json:
    text = "".join(turn.tokens)
    if not turn.tool:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": None, "tool_calls": [_call(turn, index, text)]}
