"""The Responses API with its typed events, as in OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from gateway.demo.event import Event
from gateway.demo.turn import Turn

Json = dict[str, Any]


def plain(turn: Turn) -> Json:
    return _response(turn, ended=True)


def stream(turn: Turn) -> Iterator[Event]:
    """The response begins, its one item is built up token by token, the response ends with usage."""
    for number, (kind, fields, tokens) in zip(count(), _steps(turn), strict=False):
        reports = tokens == 0 and bool(fields.get("response", {}).get("usage"))
        yield Event({"type": kind, "sequence_number": number, **fields}, tokens, reports, kind)


def error_event(_status: int, message: str) -> Event:
    return Event({"type": "error", "code": "server_error", "message": message, "param": None}, name="error")


def _steps(turn: Turn) -> Iterator[tuple[str, Json, int]]:
    yield "response.created", {"response": _response(turn, ended=False)}, 0
    yield "response.in_progress", {"response": _response(turn, ended=False)}, 0
    yield "response.output_item.added", {"output_index": 0, "item": _item(turn, ended=False)}, 0
    yield from _arguments(turn) if turn.tool else _text(turn)
    yield "response.output_item.done", {"output_index": 0, "item": _item(turn, ended=True)}, 0
    end = "response.incomplete" if turn.capped else "response.completed"
    yield end, {"response": _response(turn, ended=True)}, 0


def _text(turn: Turn) -> Iterator[tuple[str, Json, int]]:
    text = "".join(turn.tokens)
    where = {"item_id": _item_id(turn), "output_index": 0, "content_index": 0}
    yield "response.content_part.added", {**where, "part": _part("")}, 0
    for token in turn.tokens:
        yield "response.output_text.delta", {**where, "delta": token, "logprobs": []}, 1
    yield "response.output_text.done", {**where, "text": text, "logprobs": []}, 0
    yield "response.content_part.done", {**where, "part": _part(text)}, 0


def _arguments(turn: Turn) -> Iterator[tuple[str, Json, int]]:
    where = {"item_id": _item_id(turn), "output_index": 0}
    for token in turn.tokens:
        yield "response.function_call_arguments.delta", {**where, "delta": token}, 1
    done = {**where, "name": turn.tool, "arguments": "".join(turn.tokens)}
    yield "response.function_call_arguments.done", done, 0


def _response(turn: Turn, ended: bool) -> Json:
    incomplete = ended and turn.capped
    status = "incomplete" if incomplete else "completed" if ended else "in_progress"
    reports = ended and turn.script.usage != "never"
    return {
        "id": f"resp_{turn.number:024x}",
        "object": "response",
        "created_at": turn.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if incomplete else None,
        "model": turn.asked.model,
        "output": [_item(turn, ended)] if ended else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _usage(turn) if reports else None,
    }


def _usage(turn: Turn) -> Json:
    counts = turn.counts()
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.total,
    }


def _item(turn: Turn, ended: bool) -> Json:
    text = "".join(turn.tokens) if ended else ""
    item: Json = {"id": _item_id(turn), "status": "completed" if ended else "in_progress"}
    if turn.tool:
        return item | {
            "type": "function_call",
            "call_id": f"call_{turn.number:x}",
            "name": turn.tool,
            "arguments": text,
        }
    return item | {"type": "message", "role": "assistant", "content": [_part(text)] if ended else []}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}


def _item_id(turn: Turn) -> str:
    return f"{'fc' if turn.tool else 'msg'}_{turn.number:024x}"
