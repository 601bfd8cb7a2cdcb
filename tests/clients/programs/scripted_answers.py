"""Answers of a model in the four APIs that clients speak: a text, a call of a tool, a stream that is cut.

Each API has its requests read (`tools`, `tool_results`) and its answers written (`plain`, `events`) by one class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

Json = dict[str, Any]


class Counts(NamedTuple):
    """What an answer says that it used; `cached` is a part of `input`."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        return Counts(self.input + other.input, self.cached + other.cached, self.output + other.output)


COUNTS = Counts(input=1131, cached=1000, output=7)
EMBEDDED = Counts(input=3)


class ToolCall(NamedTuple):
    name: str
    arguments: Json


class Answer(NamedTuple):
    """Either words or a call. The text comes in pieces, so that a cut falls between two of them."""

    model: str
    text: str = ""
    call: ToolCall | None = None

    @property
    def pieces(self) -> list[str]:
        half = len(self.text) // 2
        return [self.text[:half], self.text[half:]]

    @property
    def arguments(self) -> str:
        assert self.call is not None
        return json.dumps(self.call.arguments)


class Tool(NamedTuple):
    name: str
    schema: Json


class Api(Protocol):
    """`path` is how its requests' paths begin, without the version."""

    path: str

    def tools(self, body: Json) -> list[Tool]: ...
    def tool_results(self, body: Json) -> int: ...
    def streams(self, body: Json, path: str) -> bool: ...
    def plain(self, answer: Answer) -> Json: ...
    def events(self, answer: Answer) -> Iterator[bytes]: ...
    def refusal(self, status: int, kind: str, message: str) -> Json: ...


def sse(payload: Json | str, event: str = "") -> bytes:
    data = payload if isinstance(payload, str) else json.dumps(payload, separators=(",", ":"))
    return (f"event: {event}\n" if event else "").encode() + f"data: {data}\n\n".encode()


def embedding(model: str) -> Json:
    rows = [{"object": "embedding", "index": 0, "embedding": [1.0, 0.5]}]
    usage = {"prompt_tokens": EMBEDDED.input, "completion_tokens": 0, "total_tokens": EMBEDDED.input}
    return {"id": "embd-1", "object": "list", "model": model, "data": rows, "usage": usage}


class ChatApi:
    path = "/chat/completions"

    def tools(self, body: Json) -> list[Tool]:
        found = (tool.get("function", {}) for tool in body.get("tools") or ())
        return [Tool(tool.get("name", ""), tool.get("parameters") or {}) for tool in found]

    def tool_results(self, body: Json) -> int:
        return sum(message.get("role") == "tool" for message in body.get("messages", ()))

    def streams(self, body: Json, path: str) -> bool:
        return body.get("stream") is True

    def plain(self, answer: Answer) -> Json:
        choice = {"index": 0, "message": {"role": "assistant", **self._said(answer)}, "finish_reason": _finish(answer)}
        return {**self._head(answer, "chat.completion"), "choices": [choice], "usage": self._usage()}

    def events(self, answer: Answer) -> Iterator[bytes]:
        head = self._head(answer, "chat.completion.chunk")
        if answer.call:
            yield self._chunk(head, {"role": "assistant", **self._said(answer)})
        for piece in answer.pieces if not answer.call else ():
            yield self._chunk(head, {"role": "assistant", "content": piece})
        yield self._chunk(head, {}, _finish(answer))
        yield sse({**head, "choices": [], "usage": self._usage()})
        yield sse("[DONE]")

    def refusal(self, status: int, kind: str, message: str) -> Json:
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}

    def _said(self, answer: Answer) -> Json:
        if not answer.call:
            return {"content": answer.text}
        call = {"name": answer.call.name, "arguments": answer.arguments}
        return {"content": None, "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": call}]}

    def _head(self, answer: Answer, kind: str) -> Json:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_790_000_000, "model": answer.model}

    def _chunk(self, head: Json, delta: Json, finish: str | None = None) -> bytes:
        return sse({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _usage(self) -> Json:
        total = {"prompt_tokens": COUNTS.input, "completion_tokens": COUNTS.output, "total_tokens": 1138}
        return {**total, "prompt_tokens_details": {"cached_tokens": COUNTS.cached}}


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.call else "stop"


class ResponsesApi:
    path = "/responses"

    def tools(self, body: Json) -> list[Tool]:
        tools = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
        return [Tool(tool.get("name", ""), tool.get("parameters") or {}) for tool in tools]

    def tool_results(self, body: Json) -> int:
        items = body.get("input", ())
        return sum(str(item.get("type", "")).endswith("_output") for item in items) if isinstance(items, list) else 0

    def streams(self, body: Json, path: str) -> bool:
        return body.get("stream") is True

    def plain(self, answer: Answer) -> Json:
        return self._response(answer, "completed", [self._item(answer)])

    def events(self, answer: Answer) -> Iterator[bytes]:
        item, place = self._item(answer), {"output_index": 0}
        about = {"item_id": item["id"], **place}
        yield self._event("response.created", response=self._response(answer, "in_progress", []))
        yield self._event("response.output_item.added", item={**item, **self._empty(answer)}, **place)
        if answer.call:
            yield self._event("response.function_call_arguments.delta", delta=answer.arguments, **about)
            yield self._event("response.function_call_arguments.done", arguments=answer.arguments, **about)
        else:
            part = {"type": "output_text", "text": "", "annotations": []}
            yield self._event("response.content_part.added", part=part, content_index=0, **about)
            for piece in answer.pieces:
                yield self._event("response.output_text.delta", delta=piece, content_index=0, logprobs=[], **about)
            yield self._event("response.output_text.done", text=answer.text, content_index=0, logprobs=[], **about)
            yield self._event(
                "response.content_part.done", part={**part, "text": answer.text}, content_index=0, **about
            )
        yield self._event("response.output_item.done", item=item, **place)
        yield self._event("response.completed", response=self.plain(answer))

    def refusal(self, status: int, kind: str, message: str) -> Json:
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, "sequence_number": 0, **fields}, kind)

    def _empty(self, answer: Answer) -> Json:
        return {"status": "in_progress", **({"arguments": ""} if answer.call else {"content": []})}

    def _item(self, answer: Answer) -> Json:
        if answer.call:
            call = {"call_id": "call_1", "name": answer.call.name, "arguments": answer.arguments}
            return {"id": "fc_1", "type": "function_call", "status": "completed", **call}
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}

    def _response(self, answer: Answer, status: str, output: list[Json]) -> Json:
        usage = {
            "input_tokens": COUNTS.input,
            "input_tokens_details": {"cached_tokens": COUNTS.cached},
            "output_tokens": COUNTS.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": COUNTS.input + COUNTS.output,
        }
        head = {"id": "resp_1", "object": "response", "created_at": 1_790_000_000, "model": answer.model}
        settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}
        done = usage if status == "completed" else None
        return {**head, **settings, "status": status, "incomplete_details": None, "output": output, "usage": done}


class MessagesApi:
    path = "/messages"

    def tools(self, body: Json) -> list[Tool]:
        return [Tool(tool.get("name", ""), tool.get("input_schema") or {}) for tool in body.get("tools") or ()]

    def tool_results(self, body: Json) -> int:
        contents = (message.get("content") for message in body.get("messages", ()))
        blocks = (block for content in contents if isinstance(content, list) for block in content)
        return sum(block.get("type") == "tool_result" for block in blocks)

    def streams(self, body: Json, path: str) -> bool:
        return body.get("stream") is True

    def plain(self, answer: Answer) -> Json:
        usage = {**self._usage(), "output_tokens": COUNTS.output}
        return {
            **self._head(answer),
            "content": [self._block(answer)],
            "stop_reason": self._stop(answer),
            "usage": usage,
        }

    def events(self, answer: Answer) -> Iterator[bytes]:
        start = {
            **self._head(answer),
            "content": [],
            "stop_reason": None,
            "usage": {**self._usage(), "output_tokens": 1},
        }
        yield self._event("message_start", message=start)
        empty = {**self._block(answer), **({"input": {}} if answer.call else {"text": ""})}
        yield self._event("content_block_start", index=0, content_block=empty)
        if answer.call:
            delta = {"type": "input_json_delta", "partial_json": answer.arguments}
            yield self._event("content_block_delta", index=0, delta=delta)
        for piece in answer.pieces if not answer.call else ():
            yield self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        yield self._event("content_block_stop", index=0)
        stop = {"stop_reason": self._stop(answer), "stop_sequence": None}
        yield self._event("message_delta", delta=stop, usage={"output_tokens": COUNTS.output})
        yield self._event("message_stop")

    def refusal(self, status: int, kind: str, message: str) -> Json:
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, **fields}, kind)

    def _head(self, answer: Answer) -> Json:
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": answer.model, "stop_sequence": None}

    def _block(self, answer: Answer) -> Json:
        if answer.call:
            return {"type": "tool_use", "id": "toolu_1", "name": answer.call.name, "input": answer.call.arguments}
        return {"type": "text", "text": answer.text}

    def _stop(self, answer: Answer) -> str:
        return "tool_use" if answer.call else "end_turn"

    def _usage(self) -> Json:
        """Of Anthropic's `input_tokens` the cached ones are no part."""
        beside = {"cache_read_input_tokens": COUNTS.cached, "cache_creation_input_tokens": 0}
        return {"input_tokens": COUNTS.input - COUNTS.cached, **beside}


class GeminiApi:
    path = "/models/"

    def tools(self, body: Json) -> list[Tool]:
        groups = (group.get("functionDeclarations", ()) for group in body.get("tools") or ())
        found = (tool for group in groups for tool in group)
        spellings = ("parametersJsonSchema", "parameters_json_schema", "parameters")
        return [Tool(tool["name"], next((tool[name] for name in spellings if name in tool), {})) for tool in found]

    def tool_results(self, body: Json) -> int:
        parts = (part for content in body.get("contents", ()) for part in content.get("parts", ()))
        return sum("functionResponse" in part for part in parts)

    def streams(self, body: Json, path: str) -> bool:
        return ":streamGenerateContent" in path

    def plain(self, answer: Answer) -> Json:
        if answer.call:
            part: Json = {"functionCall": {"name": answer.call.name, "args": answer.call.arguments}}
        else:
            part = {"text": answer.text}
        return self._chunk(answer, part, "STOP")

    def events(self, answer: Answer) -> Iterator[bytes]:
        if answer.call:
            yield sse(self._chunk(answer, {"text": "One moment. "}))
            yield sse(self.plain(answer))
            return
        first, last = answer.pieces
        yield sse(self._chunk(answer, {"text": first}))
        yield sse(self._chunk(answer, {"text": last}, "STOP"))

    def refusal(self, status: int, kind: str, message: str) -> Json:
        return {"error": {"code": status, "message": message, "status": kind}}

    def _chunk(self, answer: Answer, part: Json, finish: str = "") -> Json:
        candidate: Json = {"content": {"role": "model", "parts": [part]}, "index": 0}
        usage = {
            "promptTokenCount": COUNTS.input,
            "cachedContentTokenCount": COUNTS.cached,
            "candidatesTokenCount": COUNTS.output,
            "totalTokenCount": COUNTS.input + COUNTS.output,
        }
        ending = {"finishReason": finish} if finish else {}
        return {"candidates": [{**candidate, **ending}], "usageMetadata": usage, "modelVersion": answer.model}


CHAT, RESPONSES, MESSAGES, GEMINI = ChatApi(), ResponsesApi(), MessagesApi(), GeminiApi()
APIS: tuple[Api, ...] = (CHAT, RESPONSES, MESSAGES, GEMINI)
