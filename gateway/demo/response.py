"""Finds the response to a request: which script, which API, which pieces. No I/O.

The APIs are one table: a path and the form of its answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from gateway.demo import chat, gemini, messages, other_apis, responses
from gateway.demo.encoding import PLAIN_PIECE_BYTES, Piece, encoded, encoded_events, encoded_response
from gateway.demo.plan import DemoEvent, PlannedAnswer, ScriptedRequest, TokenCounts, plan_answer
from gateway.demo.script import DemoScript
from gateway.demo.stored import DemoObjects
from gateway.demo.truth import Outcome

FORM = "multipart/form-data"
EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"


class DemoApi(NamedTuple):
    """`stream` is None for what is never streamed. `done` is the payload of a stream's last event, empty where the
    API has none. `speaks`: whether an answer has tokens of its own. `keeps`: whether it can be asked for again.
    `is_free`: whether it costs nothing."""

    plain: Callable[[PlannedAnswer], dict[str, Any] | list[dict[str, Any]] | bytes]
    stream: Callable[[PlannedAnswer], Iterator[DemoEvent]] | None = None
    done: bytes = b""
    error: Callable[[int, str], dict[str, Any]] = chat.error
    error_event: Callable[[int, str], DemoEvent] = chat.error_event
    speaks: bool = False
    keeps: bool = False
    is_free: bool = False
    content_type: str = JSON


def _gemini(
    plain: Callable[[PlannedAnswer], dict[str, Any] | list[dict[str, Any]]],
    stream: Callable[[PlannedAnswer], Iterator[DemoEvent]] | None = None,
    *,
    speaks: bool = False,
    is_free: bool = False,
) -> DemoApi:
    return DemoApi(plain, stream, b"", gemini.error, gemini.error_event, speaks=speaks, is_free=is_free)


DEMO_APIS: dict[str, DemoApi] = {
    "/v1/chat/completions": DemoApi(chat.plain, chat.stream, b"[DONE]", speaks=True),
    "/v1/completions": DemoApi(chat.legacy_plain, chat.legacy_stream, b"[DONE]", speaks=True),
    "/v1/responses": DemoApi(
        responses.plain, responses.stream, error_event=responses.error_event, speaks=True, keeps=True
    ),
    "/v1/responses/input_tokens": DemoApi(responses.counted, is_free=True),
    "/v1/responses/compact": DemoApi(responses.compact, speaks=True),
    "/v1/messages": DemoApi(messages.plain, messages.stream, b"", messages.error, messages.error_event, speaks=True),
    "/v1/messages/count_tokens": DemoApi(messages.counted, error=messages.error, is_free=True),
    "/v1/embeddings": DemoApi(other_apis.embeddings),
    "/v1/moderations": DemoApi(other_apis.moderations),
    "/v1/rerank": DemoApi(other_apis.rerank),
    "/v2/rerank": DemoApi(other_apis.rerank_v2),
    "/v1/score": DemoApi(other_apis.score),
    "/v1/images/generations": DemoApi(other_apis.images),
    "/v1/images/edits": DemoApi(other_apis.images),
    "/v1/images/variations": DemoApi(other_apis.images),
    "/v1/audio/speech": DemoApi(other_apis.speech, content_type="audio/mpeg"),
    "/v1/audio/transcriptions": DemoApi(other_apis.transcription, speaks=True),
    "/v1/audio/translations": DemoApi(other_apis.transcription, speaks=True),
    "generateContent": _gemini(gemini.plain, speaks=True),
    "streamGenerateContent": _gemini(gemini.array, gemini.stream, speaks=True),
    "countTokens": _gemini(gemini.counted, is_free=True),
    "embedContent": _gemini(gemini.embedding),
    "batchEmbedContents": _gemini(gemini.embeddings),
}
"""By the path; for Gemini's API by the action at its end."""


class DemoCall(NamedTuple):
    """The API of a path, one of DEMO_APIS, and the model if the path names it."""

    api: str
    model: str = ""

    @classmethod
    def of(cls, path: str) -> DemoCall:
        named = gemini.GEMINI_PATH.fullmatch(path)
        return cls(path) if named is None else cls(named["action"], named["model"])


class DemoResponse(NamedTuple):
    """`counts` is None for an answer without tokens: errors, lists, bodies given verbatim."""

    pieces: Iterator[Piece]
    script: DemoScript
    counts: TokenCounts | None = None

    @property
    def outcome(self) -> Outcome:
        """How a request whose reply was sent to its end is counted."""
        if self.script.status >= 400:
            return "failed"
        return "completed" if self.script.error_after is None else "halted"


class BadRequest(Exception):
    """The API does not accept the request; the text says why."""


class Responder:
    """Makes replies. `made` numbers them, from `first` on; `dice` decide about mishaps and random pieces."""

    def __init__(self, models: tuple[str, ...], dice: random.Random, first: int = 1) -> None:
        self._models = models
        self._dice = dice
        self._decoder = msgspec.json.Decoder(ScriptedRequest)
        self._objects = DemoObjects()
        self.made = first - 1

    def read(self, body: bytes, content_type: str) -> ScriptedRequest:
        """Of a form only the fields `model` and `demo` are read. Raises BadRequest."""
        if content_type.startswith(FORM):
            body = _form_as_json(body)
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"The body is not what this endpoint takes: {error}") from error

    def script_for(self, request: ScriptedRequest, script: DemoScript) -> DemoScript:
        """The script with the request's own changes. Raises BadRequest if these are invalid."""
        try:
            return (script.changed(request.demo) if request.demo else script).rolled(self._dice)
        except msgspec.ValidationError as error:
            raise BadRequest(f"demo: {error}") from error

    def answer(self, api: str, request: ScriptedRequest, script: DemoScript, now_s: int) -> DemoResponse:
        """An answer of the model by one of DEMO_APIS."""
        shape = DEMO_APIS[api]
        self.made += 1
        turn = plan_answer(self.made, now_s, request, script, shape.speaks)
        if script.status != 200 or script.body is not None:
            return self._verbatim(shape, turn)
        if shape.keeps:
            if missing := self._objects.missing(turn):
                return self.refusal(404, f"There is nothing with the id {missing!r}.")
            self._objects.keep(turn)
        if request.stream and shape.stream is not None:
            events = encoded_events(_events(shape, turn), script, shape.done)
            return DemoResponse(encoded_response(events, EVENT_STREAM, True, script, self._dice), script, turn.counts())
        payload = shape.plain(turn)
        reports = _reports(payload)
        body = payload if isinstance(payload, bytes) else encoded(payload, script)
        script = _for_plain(script, len(turn.tokens))
        portions = _portions(body, len(turn.tokens) * turn.choices, reports, script)
        pieces = encoded_response(portions, shape.content_type, False, script, self._dice)
        return DemoResponse(pieces, script, None if shape.is_free else turn.counts())

    def models(self, now_s: int) -> DemoResponse:
        rows = [{"id": name, "object": "model", "created": now_s, "owned_by": "demo"} for name in self._models]
        return self.document(200, {"object": "list", "data": rows})

    def kept(self, method: str, path: str, body: bytes, now_s: int) -> DemoResponse | None:
        """The answer to a request about something that is kept; None for any other path."""
        answer = self._objects.answer(method, path, body, now_s)
        return None if answer is None else self.document(*answer)

    def refusal(self, status: int, message: str, path: str = "") -> DemoResponse:
        """An error independent of any script, in the shape of the path's API."""
        shape = messages if path.startswith("/v1/messages") else gemini if path.startswith("/v1beta/") else chat
        return self.document(status, shape.error(status, message))

    def document(self, status: int, payload: object) -> DemoResponse:
        """A JSON value, independent of any script."""
        script = DemoScript(status=status)
        return DemoResponse(
            encoded_response([Piece(encoded(payload, script))], JSON, False, script, self._dice), script
        )

    def _verbatim(self, shape: DemoApi, turn: PlannedAnswer) -> DemoResponse:
        """The body that the script gives, or an error. The script can also say which usage the body reports."""
        script = _for_plain(turn.script, 0)
        streams = bool(turn.request.stream) and script.status == 200
        if script.body is None:
            message = f"The demo upstream's script answers with {script.status}."
            body = encoded(shape.error(script.status, message), script)
        else:
            body = script.body.encode()
        counted = script.status == 200 and script.prompt_tokens is not None and script.completion_tokens is not None
        portions = _portions(body, 0, counted, script)
        pieces = encoded_response(portions, EVENT_STREAM if streams else JSON, streams, script, self._dice)
        return DemoResponse(pieces, script, turn.counts() if counted else None)


def _reports(payload: dict[str, Any] | list[dict[str, Any]] | bytes) -> bool:
    if isinstance(payload, bytes):
        return False
    bodies = payload if isinstance(payload, list) else [payload]
    return any(body.get("usage") or body.get("usageMetadata") for body in bodies)


def _events(shape: DemoApi, turn: PlannedAnswer) -> Iterator[DemoEvent]:
    assert shape.stream is not None
    if turn.script.error_after is None:
        return shape.stream(turn)
    error = shape.error_event(500, "The demo upstream's script breaks here.")
    return chain(islice(shape.stream(turn), turn.script.error_after), [error])


def _for_plain(script: DemoScript, tokens: int) -> DemoScript:
    """A plain answer takes the time of all its tokens before its head, halts after the first of two halves, and has no
    error event."""
    if not script.halt and not script.chunk_delay_ms and script.error_after is None:
        return script
    wait_ms = script.headers_delay_ms + script.chunk_delay_ms * tokens
    halt_after = 0 if script.halt_after == 0 else 1
    return msgspec.structs.replace(script, headers_delay_ms=wait_ms, halt_after=halt_after, error_after=None)


def _portions(body: bytes, tokens: int, reports: bool, script: DemoScript) -> Iterator[Piece]:
    """A complete body, in portions that a socket can take; in halves if it has to halt."""
    size = max(1, (len(body) + 1) // 2) if script.halt else PLAIN_PIECE_BYTES
    last = max(0, len(body) - 1) // size * size
    for start in range(0, last, size):
        yield Piece(body[start : start + size])
    yield Piece(body[last:], 0.0, tokens, reports)


def _form_as_json(body: bytes) -> bytes:
    """The two fields of a form (RFC 7578) that are read."""
    fields = {name: _form_field(body, name) for name in ("model", "demo")}
    demo = msgspec.Raw(fields["demo"] or b"null")
    return msgspec.json.encode({"model": fields["model"].decode("utf-8", "replace"), "demo": demo})


def _form_field(body: bytes, name: str) -> bytes:
    _, _, rest = body.partition(b'name="%b"' % name.encode())
    return rest.partition(b"\r\n\r\n")[2].partition(b"\r\n")[0]
