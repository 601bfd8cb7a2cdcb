"""The APIs that the demo upstream speaks, as one table: a path and how its answers look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gateway.demo import chat, completions, messages, responses, wordless
from gateway.demo.event import Event
from gateway.demo.turn import Turn

JSON = "application/json"


class Shape(NamedTuple):
    """`stream` is None for what is never streamed. `done` is the payload of a stream's last event, empty where the
    API has none. `speaks`: whether an answer has tokens of its own."""

    plain: Callable[[Turn], dict[str, Any] | bytes]
    stream: Callable[[Turn], Iterator[Event]] | None = None
    done: bytes = b""
    error: Callable[[int, str], dict[str, Any]] = chat.error
    error_event: Callable[[int, str], Event] = chat.error_event
    speaks: bool = False
    content_type: str = JSON


SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": Shape(chat.plain, chat.stream, b"[DONE]", speaks=True),
    "/v1/completions": Shape(completions.plain, completions.stream, b"[DONE]", speaks=True),
    "/v1/responses": Shape(responses.plain, responses.stream, error_event=responses.error_event, speaks=True),
    "/v1/messages": Shape(messages.plain, messages.stream, b"", messages.error, messages.error_event, speaks=True),
    "/v1/embeddings": Shape(wordless.embeddings),
    "/v1/moderations": Shape(wordless.moderations),
    "/v1/rerank": Shape(wordless.rerank),
    "/v1/images/generations": Shape(wordless.images),
    "/v1/images/edits": Shape(wordless.images),
    "/v1/images/variations": Shape(wordless.images),
    "/v1/audio/speech": Shape(wordless.speech, content_type="audio/mpeg"),
    "/v1/audio/transcriptions": Shape(wordless.transcription, speaks=True),
    "/v1/audio/translations": Shape(wordless.transcription, speaks=True),
}
