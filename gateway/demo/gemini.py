"""Gemini's API, plain and streamed, as in its reference (https://ai.google.dev/api).

A path names the model and the action: /v1beta/models/NAME:generateContent. Every event of a stream reports the usage so
far. A stream consists of events if the request says `?alt=sse`, otherwise it is one JSON array.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus

from gateway.core.json_object import JsonObject
from gateway.demo.other_apis import vector_of
from gateway.demo.plan import DemoEvent, PlannedAnswer

GEMINI_PATH = re.compile(r"/v1beta/models/(?P<model>.+):(?P<action>[A-Za-z]+)")


def plain(answer: PlannedAnswer) -> JsonObject:
    return _response(answer, "".join(answer.tokens), len(answer.tokens), ended=True)


def array(answer: PlannedAnswer) -> list[JsonObject]:
    """A stream for a request that did not ask for events."""
    return [plain(answer)]


def stream(answer: PlannedAnswer) -> Iterator[DemoEvent]:
    """A tool's arguments are one piece: the API does not split them."""
    reports = answer.script.usage != "never"
    delivered = 0
    for text in () if answer.tool else answer.tokens:
        delivered += 1
        yield DemoEvent(_response(answer, text, delivered, ended=False), 1, reports)
    whole = "".join(answer.tokens) if answer.tool else ""
    end = _response(answer, whole, len(answer.tokens), ended=True)
    yield DemoEvent(end, len(answer.tokens) - delivered, reports)


def counted(answer: PlannedAnswer) -> JsonObject:
    return {"totalTokens": answer.prompt_tokens}


def embedding(answer: PlannedAnswer) -> JsonObject:
    return _reporting(answer, {"embedding": {"values": vector_of(answer)}})


def embeddings(answer: PlannedAnswer) -> JsonObject:
    return _reporting(answer, {"embeddings": [{"values": vector_of(answer)} for _ in answer.request.requests or []]})


def error(status: int, message: str) -> JsonObject:
    known = {429: "RESOURCE_EXHAUSTED", 404: "NOT_FOUND", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
    usual = "INVALID_ARGUMENT" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "INTERNAL"
    return {"error": {"code": status, "message": message, "status": known.get(status, usual)}}


def error_event(status: int, message: str) -> DemoEvent:
    return DemoEvent(error(status, message))


def _response(answer: PlannedAnswer, text: str, delivered: int, ended: bool) -> JsonObject:
    candidate: JsonObject = {"index": 0, "content": {"role": "model", "parts": [_part(answer, text)]}}
    if ended:
        candidate["finishReason"] = "MAX_TOKENS" if answer.capped else "STOP"
    body: JsonObject = {
        "candidates": [candidate],
        "modelVersion": answer.request.model,
        "responseId": f"demo-{answer.number:024x}",
    }
    if answer.script.usage != "never":
        body["usageMetadata"] = _usage(answer, None if ended else delivered)
    return body


def _part(answer: PlannedAnswer, text: str) -> JsonObject:
    return {"functionCall": {"name": answer.tool, "args": {"text": text}}} if answer.tool else {"text": text}


def _usage(answer: PlannedAnswer, delivered: int | None) -> JsonObject:
    """The API reports thoughts next to the candidates, not as a part of them."""
    counts = answer.counts(delivered)
    report = {
        "promptTokenCount": counts.prompt,
        "candidatesTokenCount": max(0, counts.completion - counts.reasoning),
        "totalTokenCount": counts.total,
    }
    if counts.cached:
        report["cachedContentTokenCount"] = counts.cached
    if counts.reasoning:
        report["thoughtsTokenCount"] = counts.reasoning
    return report


def _reporting(answer: PlannedAnswer, body: JsonObject) -> JsonObject:
    reports = answer.script.usage != "never"
    return body | {"usageMetadata": {"promptTokenCount": answer.prompt_tokens}} if reports else body
