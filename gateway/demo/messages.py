"""Messages with their named events, as in Anthropic's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.demo.event import Event
from gateway.demo.turn import Turn

Json = dict[str, Any]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def plain(turn: Turn) -> Json:
    message = _message(turn)
    message["content"] = [_block(turn, "".join(turn.tokens))]
    message["stop_reason"] = _stop_reason(turn)
    if turn.script.usage != "never":
        message["usage"] = _input_usage(turn) | {"output_tokens": turn.counts().completion}
    return message


def stream(turn: Turn) -> Iterator[Event]:
    """Input tokens are reported at the beginning, output tokens at the end."""
    told = turn.script.usage != "never"
    message = _message(turn)
    if told:
        message["usage"] = _input_usage(turn) | {"output_tokens": 1}
    yield _event("message_start", {"message": message})
    yield _event("content_block_start", {"index": 0, "content_block": _block(turn, "")})
    yield _event("ping", {})
    for token in turn.tokens:
        yield _event("content_block_delta", {"index": 0, "delta": _delta(turn, token)}, tokens=1)
    yield _event("content_block_stop", {"index": 0})
    end: Json = {"delta": {"stop_reason": _stop_reason(turn), "stop_sequence": None}}
    if told:
        end["usage"] = {"output_tokens": turn.counts().completion}
    yield _event("message_delta", end, reports=told)
    yield _event("message_stop", {})


def error(status: int, message: str) -> Json:
    return {"type": "error", "error": {"type": ERROR_TYPES.get(status, "api_error"), "message": message}}


def error_event(status: int, message: str) -> Event:
    return Event(error(status, message), name="error")


def _event(kind: str, fields: Json, tokens: int = 0, reports: bool = False) -> Event:
    return Event({"type": kind, **fields}, tokens, reports, kind)


def _message(turn: Turn) -> Json:
    return {
        "id": f"msg_{turn.number:024x}",
        "type": "message",
        "role": "assistant",
        "model": turn.asked.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _input_usage(turn: Turn) -> Json:
    """Cached tokens stand beside the input here, not within it."""
    counts = turn.counts()
    return {
        "input_tokens": max(0, counts.prompt - counts.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached,
    }


def _block(turn: Turn, text: str) -> Json:
    if not turn.tool:
        return {"type": "text", "text": text}
    given = {"text": text} if text else {}
    return {"type": "tool_use", "id": f"toolu_{turn.number:x}", "name": turn.tool, "input": given}


def _delta(turn: Turn, token: str) -> Json:
    if turn.tool:
        return {"type": "input_json_delta", "partial_json": token}
    return {"type": "text_delta", "text": token}


def _stop_reason(turn: Turn) -> str:
    if turn.capped:
        return "max_tokens"
    return "tool_use" if turn.tool else "end_turn"
