"""The shape of each API's streams, for the cases in which the gateway itself writes or measures a part of one.

Streams are relayed as they come. Three cases need more: the delivered text of an answer that does not report its usage
is weighed; a quota with `when_spent: stop` ends the stream when the quota is used up; and if an upstream ignores
`stream` after a keep-alive has begun the client's stream, its plain answer is written as events.

Shapes of events: the API references of OpenAI (chat, completions, responses), Anthropic (messages) and Google
(generateContent, whose plain answer has the shape of an event); a model's thoughts are called by the names that vLLM,
OpenRouter, DeepSeek, GitHub Copilot, Ollama and LiteLLM have for them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import StreamFormat
from gateway.core.json_object import JsonObject
from gateway.core.sse import event_of
from gateway.core.text_weight import weight_of, weight_of_string
from gateway.core.upstream_json import decoded
from gateway.core.usage import Usage

_NO_TEXT = {"type", "id", "role", "index", "status", "call_id", "encrypted_content", "result"} | {
    *("thoughtSignature", "inlineData", "fileData", "language", "outcome")
}
_NO_TEXT_EVENTS = {"response.audio.delta", "response.output_audio.delta"}
_SAID = {"content", "refusal", "tool_calls", "function_call"}
_THOUGHTS = frozenset(
    ["reasoning", "reasoning_content", "reasoning_details", "reasoning_text", "thinking", "thinking_blocks", "thoughts"]
)
"""Servers send the same thoughts under several of these names."""

_SEALED = frozenset({"data", "signature", "format"})
"""What thoughts have beside their text, in the shapes of OpenRouter and LiteLLM: encrypted ones, and their proofs."""

_ANSWER_MEMBERS = {
    StreamFormat.CHAT: "choices",
    StreamFormat.COMPLETIONS: "choices",
    StreamFormat.RESPONSES: "output",
    StreamFormat.MESSAGES: "content",
    StreamFormat.GEMINI: "candidates",
}
"""What every plain answer of an API has."""

_EVENT_MEMBERS = {**_ANSWER_MEMBERS, StreamFormat.RESPONSES: "type", StreamFormat.MESSAGES: "type"}
"""What every event of an API's stream has."""

_OPENING_EVENTS = ("response.created", "response.queued", "response.in_progress", "message_start", "ping")
"""Events of typed streams that come before any part of the answer."""

_DONE = event_of(b"[DONE]")


class _Choice(msgspec.Struct):
    delta: Any = None
    text: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None


class _GeminiCandidate(msgspec.Struct):
    content: Any = None


class _GeminiChunk(msgspec.Struct):
    candidates: list[_GeminiCandidate] = []


_DECODE_CHUNK = msgspec.json.Decoder(_Chunk).decode
_DECODE_EVENT = msgspec.json.Decoder(_Event).decode
_DECODE_GEMINI = msgspec.json.Decoder(_GeminiChunk).decode


def event_weight(shape: StreamFormat, data: bytes) -> int:
    """What an event delivers of the answer, in plain characters: text, thoughts, refusals and arguments of tools. The
    echo of a request, and what repeats earlier events, is none. What is no JSON is taken for text."""
    try:
        if shape is StreamFormat.CHAT:
            return sum([_delta_weight(choice.delta) for choice in _DECODE_CHUNK(data).choices])
        if shape is StreamFormat.COMPLETIONS:
            return sum([_weight(choice.text) for choice in _DECODE_CHUNK(data).choices])
        if shape is StreamFormat.GEMINI:
            return sum([_weight(candidate.content) for candidate in _DECODE_GEMINI(data).candidates])
        event = _DECODE_EVENT(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _odd_event_weight(shape, data)
    return _typed_event_weight(shape, event)


def _typed_event_weight(shape: StreamFormat, event: _Event) -> int:
    if shape is StreamFormat.RESPONSES:
        return _weight(event.delta) if event.type.endswith(".delta") and event.type not in _NO_TEXT_EVENTS else 0
    delta = event.delta if event.type == "content_block_delta" else None
    return _weight({**delta, "signature": ""}) if isinstance(delta, dict) else 0


def _odd_event_weight(shape: StreamFormat, data: bytes) -> int:
    """The weight of an event that a strict parser refuses."""
    event = decoded(data)
    events = event if isinstance(event, list) else [event]
    if not events or not all(isinstance(each, dict) for each in events):
        return weight_of(data)
    return sum([_decoded_event_weight(shape, each) for each in events])


def _decoded_event_weight(shape: StreamFormat, event: JsonObject) -> int:
    if shape in (StreamFormat.RESPONSES, StreamFormat.MESSAGES):
        return _typed_event_weight(shape, _Event(str(event.get("type")), event.get("delta")))
    if shape is StreamFormat.CHAT:
        return sum([_delta_weight(choice.get("delta")) for choice in _choices(event)])
    if shape is StreamFormat.GEMINI:
        return answer_weight(shape, event)
    return sum([_weight(choice.get("text")) for choice in _choices(event)])


def answer_weight(shape: StreamFormat, answer: JsonObject) -> int:
    """What a plain answer delivers, in plain characters."""
    match shape:
        case StreamFormat.CHAT:
            return sum([_delta_weight(choice.get("message")) for choice in _choices(answer)])
        case StreamFormat.COMPLETIONS:
            return sum([_weight(choice.get("text")) for choice in _choices(answer)])
        case StreamFormat.RESPONSES:
            return _weight(_objects(answer.get("output")))
        case StreamFormat.MESSAGES:
            return _weight([{**part, "signature": ""} for part in _parts(answer)])
        case StreamFormat.GEMINI:
            return sum([_weight(candidate.get("content")) for candidate in _objects(answer.get("candidates"))])


def foreign_weight(shape: StreamFormat, answer: JsonObject) -> int:
    """What an answer delivers that is not the API's own: all its texts. Nothing, where it is."""
    return 0 if _ANSWER_MEMBERS[shape] in answer else _weight(answer)


def foreign_event_weight(shape: StreamFormat, data: bytes) -> int:
    """The same of an event."""
    own = _EVENT_MEMBERS[shape]
    if own.encode() in data:
        return 0
    event = decoded(data)
    return _weight(event) if isinstance(event, dict) and own not in event else 0


def only_opens(shape: StreamFormat, data: bytes) -> bool:
    """Whether an event begins an answer, and has no part of one: its id, the role of its author."""
    event = _object(data)
    match shape:
        case StreamFormat.RESPONSES | StreamFormat.MESSAGES:
            return event.get("type") in _OPENING_EVENTS
        case StreamFormat.GEMINI:
            return bool(event) and not event.get("candidates")
    return isinstance(event.get("choices"), list) and not any(map(_has_part, _choices(event)))


def _has_part(choice: JsonObject) -> bool:
    delta = choice.get("delta")
    said = delta.items() if isinstance(delta, dict) else ()
    return bool(
        choice.get("text") or choice.get("finish_reason") or any(value for name, value in said if name != "role")
    )


def ending_at_cap(
    shape: StreamFormat, opening: bytes, data: bytes, usage: Usage, *, choices: int, merge: bool
) -> bytes:
    """The events that end a stream as if it had run into its `max_tokens`, in place of the event with this `data`.
    `opening` is the data of the stream's first event. `merge` puts the usage into the last chunk with a choice."""
    event = _object(data)
    match shape:
        case StreamFormat.RESPONSES:
            return _response_ending(_object(opening), event, usage)
        case StreamFormat.MESSAGES:
            return _message_ending(event, usage)
        case StreamFormat.GEMINI:
            return _gemini_ending(event, usage, choices)
    text: JsonObject = {"delta": {}} if shape is StreamFormat.CHAT else {"text": "", "logprobs": None}
    finish = [{"index": index, **text, "finish_reason": "length"} for index in range(choices)]
    report = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total}
    return _final_chunks(event, finish, report, merge=merge)


def empty_choice(shape: StreamFormat | None) -> JsonObject:
    """A choice of a chunk that adds nothing."""
    text: JsonObject = {"text": "", "logprobs": None} if shape is StreamFormat.COMPLETIONS else {"delta": {}}
    return {"index": 0, **text, "finish_reason": None}


def stream_of_plain(shape: StreamFormat | None, body: bytes, *, merge: bool) -> bytes | None:
    """A plain answer as the stream that was asked for; None where there is no way to write it as one."""
    answer = _object(body)
    match shape:
        case StreamFormat.CHAT | StreamFormat.COMPLETIONS if _choices(answer):
            return _stream_of_choices(shape, answer, merge=merge)
        case StreamFormat.RESPONSES if answer.get("object") == "response":
            return _stream_of_response(answer)
        case StreamFormat.MESSAGES if answer.get("type") == "message" and isinstance(answer.get("content"), list):
            return _stream_of_message(answer)
        case StreamFormat.GEMINI if _objects(answer.get("candidates")):
            return _chunk(answer)
    return None


def _stream_of_choices(shape: StreamFormat, answer: JsonObject, *, merge: bool) -> bytes:
    common = {name: value for name, value in answer.items() if name not in {"choices", "usage"}}
    if shape is StreamFormat.CHAT:
        common["object"] = "chat.completion.chunk"
    events, finish = [], []
    for place, choice in enumerate(_choices(answer)):
        index, reason = choice.get("index", place), choice.get("finish_reason") or "stop"
        begun = {**choice, "index": index, "finish_reason": None}
        empty: JsonObject = {"text": "", "logprobs": None}
        if shape is StreamFormat.CHAT:
            begun["delta"], empty = _as_delta(begun.pop("message", None)), {"delta": {}}
        events.append(_chunk({**common, "choices": [begun]}))
        finish.append({"index": index, **empty, "finish_reason": reason})
    return b"".join(events) + _final_chunks(common, finish, answer.get("usage"), merge=merge)


def _stream_of_response(answer: JsonObject) -> bytes:
    items = _objects(answer.get("output"))
    events: list[JsonObject] = [
        {"type": "response.created", "response": {**answer, "status": "in_progress", "output": [], "usage": None}}
    ]
    for place, item in enumerate(items):
        begun = {**item, "content": []} if "content" in item else item
        events.append({"type": "response.output_item.added", "output_index": place, "item": begun})
        for index, part in enumerate(_parts(item)):
            where = {"item_id": item.get("id"), "output_index": place, "content_index": index}
            text = part.get("text")
            added = part if text is None else {**part, "text": ""}
            events.append({"type": "response.content_part.added", **where, "part": added})
            if text is not None:
                events.append({"type": "response.output_text.delta", **where, "delta": text, "logprobs": []})
            events.append({"type": "response.content_part.done", **where, "part": part})
        events.append({"type": "response.output_item.done", "output_index": place, "item": item})
    end = "response.incomplete" if answer.get("status") == "incomplete" else "response.completed"
    events.append({"type": end, "response": answer})
    return b"".join([_chunk({**each, "sequence_number": n}, each["type"]) for n, each in enumerate(events)])


def _stream_of_message(answer: JsonObject) -> bytes:
    message = {**answer, "content": [], "stop_reason": None, "stop_sequence": None}
    events: list[JsonObject] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(_parts(answer)):
        begun, deltas = _as_block(block)
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    stop = {name: answer.get(name) for name in ("stop_reason", "stop_sequence")}
    events.append({"type": "message_delta", "delta": stop, "usage": answer.get("usage") or {}})
    events.append({"type": "message_stop"})
    return b"".join([_chunk(each, each["type"]) for each in events])


def _as_block(block: JsonObject) -> tuple[JsonObject, list[JsonObject]]:
    """A block of content as it begins, and what is added to it. A kind without deltas begins as it is."""
    match block.get("type"):
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": block.get("text")}]
        case "thinking":
            signature = {"type": "signature_delta", "signature": block.get("signature", "")}
            begun = {**block, "thinking": "", "signature": ""}
            return begun, [{"type": "thinking_delta", "thinking": block.get("thinking")}, signature]
        case "tool_use":
            arguments = msgspec.json.encode(block.get("input")).decode()
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
        case _:
            return block, []


def _parts(holder: JsonObject) -> list[JsonObject]:
    return _objects(holder.get("content"))


def _final_chunks(common: JsonObject, finish: list[JsonObject], report: Any, *, merge: bool) -> bytes:
    last = {**common, "choices": finish}
    if report is None:
        return _chunk(last) + _DONE
    if merge:
        return _chunk({**last, "usage": report}) + _DONE
    return _chunk(last) + _chunk({**common, "choices": [], "usage": report}) + _DONE


def _response_ending(opening: JsonObject, event: JsonObject, usage: Usage) -> bytes:
    begun = opening.get("response")
    response = {
        **(begun if isinstance(begun, dict) else {}),
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "usage": {"input_tokens": usage.input, "output_tokens": usage.output, "total_tokens": usage.total},
    }
    kind = "response.incomplete"
    last = {"type": kind, "sequence_number": event.get("sequence_number", 0), "response": response}
    return _chunk(last, kind)


def _message_ending(event: JsonObject, usage: Usage) -> bytes:
    stop = {"stop_reason": "max_tokens", "stop_sequence": None}
    events: list[JsonObject] = [
        {"type": "content_block_stop", "index": event.get("index", 0)},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": usage.output}},
        {"type": "message_stop"},
    ]
    return b"".join([_chunk(each, each["type"]) for each in events])


def _gemini_ending(event: JsonObject, usage: Usage, choices: int) -> bytes:
    empty: JsonObject = {"parts": [{"text": ""}], "role": "model"}
    ended = [{"content": empty, "finishReason": "MAX_TOKENS", "index": index} for index in range(choices)]
    report = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output,
        "totalTokenCount": usage.total,
    }
    return _chunk({**event, "candidates": ended, "usageMetadata": report})


def _as_delta(message: Any) -> JsonObject:
    delta = {**message} if isinstance(message, dict) else {}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls) if isinstance(call, dict)]
    return delta


def _delta_weight(delta: Any) -> int:
    if not isinstance(delta, dict):
        return 0
    weight = thoughts = 0
    for name, value in delta.items():
        if value is None or name in _NO_TEXT:
            continue
        if name in _THOUGHTS:
            thoughts = max(thoughts, _weight_of_thoughts(value))
        elif name in _SAID:
            weight += _weight(value)
        elif name == "audio" and isinstance(value, dict):
            weight += _weight(value.get("transcript"))
    return weight + thoughts


def _weight_of_thoughts(value: Any) -> int:
    blocks = value if isinstance(value, list) else [value]
    return sum([_weight(_unsealed(block) if isinstance(block, dict) else block) for block in blocks])


def _unsealed(block: JsonObject) -> JsonObject:
    return {name: value for name, value in block.items() if name not in _SEALED}


def _weight(value: Any) -> int:
    """The texts in a value, in plain characters."""
    if isinstance(value, str):
        return len(value) if value.isascii() else weight_of_string(value)
    if isinstance(value, dict):
        return sum([_weight(inner) for name, inner in value.items() if name not in _NO_TEXT])
    return sum([_weight(inner) for inner in value]) if isinstance(value, list) else 0


def _choices(answer: JsonObject) -> list[JsonObject]:
    return _objects(answer.get("choices"))


def _objects(value: Any) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _object(data: bytes) -> JsonObject:
    value = decoded(data)
    return value if isinstance(value, dict) else {}


def _chunk(chunk: JsonObject, kind: str = "") -> bytes:
    return event_of(msgspec.json.encode(chunk), kind.encode())
