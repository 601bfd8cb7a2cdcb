"""Chat completions and legacy completions, plain and streamed, as in OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.core.json_object import JsonObject
from gateway.demo.plan import DemoEvent, PlannedAnswer, TokenCounts


def plain(answer: PlannedAnswer) -> JsonObject:
    body = _envelope(answer, "chat.completion")
    body["choices"] = [
        {"index": index, "message": _message(answer, index), "finish_reason": finish_reason(answer)}
        for index in range(answer.choices)
    ]
    if answer.script.usage != "never":
        body["usage"] = usage(answer.counts())
    return body


def stream(answer: PlannedAnswer) -> Iterator[DemoEvent]:
    """Each choice has a head, the tokens in `answer` and an end; then comes the usage, as the script says."""
    policy = answer.script.usage
    choices = range(answer.choices)
    chunk = _chunks(answer)
    own = {**_envelope(answer, "chat.completion.chunk"), "choices": []}
    delivered = 0
    for index in choices:
        yield chunk(_choice(index, _opening(answer, index)), 0, delivered)
    for token in answer.tokens:
        for index in choices:
            delivered += 1
            yield chunk(_choice(index, _delta(answer, token)), 1, delivered)
    if policy == "early":
        yield DemoEvent({**own, "usage": usage(answer.counts())}, reports=True)
    for index in choices:
        event = chunk(_choice(index, {}, finish_reason(answer)), 0, delivered)
        if policy == "last" and index == answer.choices - 1:
            event = DemoEvent({**event.payload, "usage": usage(answer.counts())}, reports=True)
        yield event
    if policy == "always" or (policy in ("asked", "null") and answer.asks_usage):
        yield DemoEvent({**own, "usage": usage(answer.counts())}, reports=True)


def legacy_plain(answer: PlannedAnswer) -> JsonObject:
    text, reason = "".join(answer.tokens), _legacy_finish_reason(answer)
    body = _envelope(answer, "text_completion", "cmpl")
    body["choices"] = [_legacy_choice(index, text, reason) for index in range(answer.choices)]
    if answer.script.usage != "never":
        body["usage"] = usage(answer.counts())
    return body


def legacy_stream(answer: PlannedAnswer) -> Iterator[DemoEvent]:
    """An event for each token, an end for each choice, and usage if the request asks for it."""
    own = _envelope(answer, "text_completion", "cmpl")
    choices = range(answer.choices)
    for token in answer.tokens:
        for index in choices:
            yield DemoEvent({**own, "choices": [_legacy_choice(index, token)]}, tokens=1)
    for index in choices:
        yield DemoEvent({**own, "choices": [_legacy_choice(index, "", _legacy_finish_reason(answer))]})
    if answer.script.usage == "always" or (answer.script.usage == "asked" and answer.asks_usage):
        yield DemoEvent({**own, "choices": [], "usage": usage(answer.counts())}, reports=True)


def _chunks(answer: PlannedAnswer) -> Callable[[JsonObject, int, int], DemoEvent]:
    """A function that makes a chunk from a choice, its tokens and the number of tokens delivered so far."""
    own = _envelope(answer, "chat.completion.chunk")
    policy = answer.script.usage

    def chunk(choice: JsonObject, tokens: int, delivered: int) -> DemoEvent:
        payload = {**own, "choices": [choice]}
        if policy == "null":
            payload["usage"] = None
        if policy == "every":
            payload["usage"] = usage(answer.counts(delivered))
        return DemoEvent(payload, tokens, policy == "every")

    return chunk


def usage(counts: TokenCounts) -> JsonObject:
    report: JsonObject = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.total,
    }
    if counts.cached:
        report["prompt_tokens_details"] = {"cached_tokens": counts.cached}
    if counts.reasoning:
        report["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
    return report


def finish_reason(answer: PlannedAnswer) -> str:
    if answer.capped:
        return "length"
    return "tool_calls" if answer.tool else "stop"


def error(status: int, message: str) -> JsonObject:
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    code = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": message, "type": "requests" if status == 429 else kind, "param": None, "code": code}}


def error_event(status: int, message: str) -> DemoEvent:
    return DemoEvent(error(status, message))


def _envelope(answer: PlannedAnswer, kind: str, prefix: str = "chatcmpl") -> JsonObject:
    return {
        "id": f"{prefix}-{answer.number:024x}",
        "object": kind,
        "created": answer.created,
        "model": answer.request.model,
    }


def _choice(index: int, delta: JsonObject, finish: str | None = None) -> JsonObject:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _opening(answer: PlannedAnswer, index: int) -> JsonObject:
    if not answer.tool:
        return {"role": "assistant", "content": ""}
    return {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **_call(answer, index, "")}]}


def _delta(answer: PlannedAnswer, token: str) -> JsonObject:
    if not answer.tool:
        return {"content": token}
    return {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}


def _call(answer: PlannedAnswer, index: int, arguments: str) -> JsonObject:
    call_id = f"call_{answer.number:x}_{index}"
    return {"id": call_id, "type": "function", "function": {"name": answer.tool, "arguments": arguments}}


def _message(answer: PlannedAnswer, index: int) -> JsonObject:
    text = "".join(answer.tokens)
    if not answer.tool:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": None, "tool_calls": [_call(answer, index, text)]}


def _legacy_choice(index: int, text: str, finish: str | None = None) -> JsonObject:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _legacy_finish_reason(answer: PlannedAnswer) -> str:
    return "length" if answer.capped else "stop"
