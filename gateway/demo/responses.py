"""The Responses API with its typed events, as in OpenAI's API reference."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from gateway.core.json_object import JsonObject
from gateway.demo.plan import DemoEvent, PlannedAnswer


def plain(answer: PlannedAnswer) -> JsonObject:
    return _response(answer, ended=True)


def counted(answer: PlannedAnswer) -> JsonObject:
    return {"object": "response.input_tokens", "input_tokens": answer.prompt_tokens}


def compact(answer: PlannedAnswer) -> JsonObject:
    """A short form of the input, which a client sends back in place of it."""
    summary = {"id": f"cmp_{answer.number:024x}", "type": "compaction", "encrypted_content": "".join(answer.tokens)}
    body = {"id": response_id(answer), "object": "response.compaction", "created_at": answer.created}
    return body | {"output": [summary], "usage": None if answer.script.usage == "never" else _usage(answer)}


def stream(answer: PlannedAnswer) -> Iterator[DemoEvent]:
    """The response begins, its one item is built up token by token, the response ends with usage."""
    for number, (kind, fields, tokens) in zip(count(), _steps(answer), strict=False):
        reports = tokens == 0 and bool(fields.get("response", {}).get("usage"))
        yield DemoEvent({"type": kind, "sequence_number": number, **fields}, tokens, reports, kind)


def error_event(_status: int, message: str) -> DemoEvent:
    return DemoEvent({"type": "error", "code": "server_error", "message": message, "param": None}, name="error")


def response_id(answer: PlannedAnswer) -> str:
    return f"resp_{answer.number:024x}"


def _steps(answer: PlannedAnswer) -> Iterator[tuple[str, JsonObject, int]]:
    yield "response.created", {"response": _response(answer, ended=False)}, 0
    yield "response.in_progress", {"response": _response(answer, ended=False)}, 0
    yield "response.output_item.added", {"output_index": 0, "item": _item(answer, ended=False)}, 0
    yield from _arguments(answer) if answer.tool else _text(answer)
    yield "response.output_item.done", {"output_index": 0, "item": _item(answer, ended=True)}, 0
    end = "response.incomplete" if answer.capped else "response.completed"
    yield end, {"response": _response(answer, ended=True)}, 0


def _text(answer: PlannedAnswer) -> Iterator[tuple[str, JsonObject, int]]:
    text = "".join(answer.tokens)
    where = {"item_id": _item_id(answer), "output_index": 0, "content_index": 0}
    yield "response.content_part.added", {**where, "part": _part("")}, 0
    for token in answer.tokens:
        yield "response.output_text.delta", {**where, "delta": token, "logprobs": []}, 1
    yield "response.output_text.done", {**where, "text": text, "logprobs": []}, 0
    yield "response.content_part.done", {**where, "part": _part(text)}, 0


def _arguments(answer: PlannedAnswer) -> Iterator[tuple[str, JsonObject, int]]:
    where = {"item_id": _item_id(answer), "output_index": 0}
    for token in answer.tokens:
        yield "response.function_call_arguments.delta", {**where, "delta": token}, 1
    done = {**where, "name": answer.tool, "arguments": "".join(answer.tokens)}
    yield "response.function_call_arguments.done", done, 0


def _response(answer: PlannedAnswer, ended: bool) -> JsonObject:
    incomplete = ended and answer.capped
    status = "incomplete" if incomplete else "completed" if ended else "in_progress"
    reports = ended and answer.script.usage != "never"
    return {
        "id": response_id(answer),
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if incomplete else None,
        "model": answer.request.model,
        "output": [_item(answer, ended)] if ended else [],
        "parallel_tool_calls": True,
        "previous_response_id": answer.request.previous_response_id,
        "tool_choice": "auto",
        "tools": [],
        "usage": _usage(answer) if reports else None,
    }


def _usage(answer: PlannedAnswer) -> JsonObject:
    counts = answer.counts()
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.total,
    }


def _item(answer: PlannedAnswer, ended: bool) -> JsonObject:
    text = "".join(answer.tokens) if ended else ""
    item: JsonObject = {"id": _item_id(answer), "status": "completed" if ended else "in_progress"}
    if answer.tool:
        return item | {
            "type": "function_call",
            "call_id": f"call_{answer.number:x}",
            "name": answer.tool,
            "arguments": text,
        }
    return item | {"type": "message", "role": "assistant", "content": [_part(text)] if ended else []}


def _part(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": []}


def _item_id(answer: PlannedAnswer) -> str:
    return f"{'fc' if answer.tool else 'msg'}_{answer.number:024x}"
