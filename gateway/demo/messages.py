"""Messages with their named events, as in Anthropic's API reference."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.json_object import JsonObject
from gateway.demo.plan import DemoEvent, PlannedAnswer

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def plain(answer: PlannedAnswer) -> JsonObject:
    message = _message(answer)
    message["content"] = [_block(answer, "".join(answer.tokens))]
    message["stop_reason"] = _stop_reason(answer)
    if answer.script.usage != "never":
        message["usage"] = _input_usage(answer) | {"output_tokens": answer.counts().completion}
    return message


def counted(answer: PlannedAnswer) -> JsonObject:
    return {"input_tokens": answer.prompt_tokens}


def stream(answer: PlannedAnswer) -> Iterator[DemoEvent]:
    """Input tokens are reported at the beginning, output tokens at the end."""
    reports = answer.script.usage != "never"
    message = _message(answer)
    if reports:
        message["usage"] = _input_usage(answer) | {"output_tokens": 1}
    yield _event("message_start", {"message": message})
    yield _event("content_block_start", {"index": 0, "content_block": _block(answer, "")})
    yield _event("ping", {})
    for token in answer.tokens:
        yield _event("content_block_delta", {"index": 0, "delta": _delta(answer, token)}, tokens=1)
    yield _event("content_block_stop", {"index": 0})
    end: JsonObject = {"delta": {"stop_reason": _stop_reason(answer), "stop_sequence": None}}
    if reports:
        end["usage"] = {"output_tokens": answer.counts().completion}
    yield _event("message_delta", end, reports=reports)
    yield _event("message_stop", {})


def error(status: int, message: str) -> JsonObject:
    return {"type": "error", "error": {"type": ERROR_TYPES.get(status, "api_error"), "message": message}}


def error_event(status: int, message: str) -> DemoEvent:
    return DemoEvent(error(status, message), name="error")


def _event(kind: str, fields: JsonObject, tokens: int = 0, reports: bool = False) -> DemoEvent:
    return DemoEvent({"type": kind, **fields}, tokens, reports, kind)


def _message(answer: PlannedAnswer) -> JsonObject:
    return {
        "id": f"msg_{answer.number:024x}",
        "type": "message",
        "role": "assistant",
        "model": answer.request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _input_usage(answer: PlannedAnswer) -> JsonObject:
    """The API reports cached tokens next to the input, not as a part of it."""
    counts = answer.counts()
    return {
        "input_tokens": max(0, counts.prompt - counts.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached,
    }


def _block(answer: PlannedAnswer, text: str) -> JsonObject:
    if not answer.tool:
        return {"type": "text", "text": text}
    given = {"text": text} if text else {}
    return {"type": "tool_use", "id": f"toolu_{answer.number:x}", "name": answer.tool, "input": given}


def _delta(answer: PlannedAnswer, token: str) -> JsonObject:
    if answer.tool:
        return {"type": "input_json_delta", "partial_json": token}
    return {"type": "text_delta", "text": token}


def _stop_reason(answer: PlannedAnswer) -> str:
    if answer.capped:
        return "max_tokens"
    return "tool_use" if answer.tool else "end_turn"
