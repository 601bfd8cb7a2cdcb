"""From a request that has been read to its answer: which script, which API, which pieces. No I/O."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from gateway.demo import chat
from gateway.demo.delivery import PLAIN_PIECE_BYTES, delivered
from gateway.demo.dialect import Piece, spoken, written
from gateway.demo.event import Event
from gateway.demo.script import Script
from gateway.demo.shapes import JSON, SHAPES, Shape
from gateway.demo.truth import Outcome
from gateway.demo.turn import Asked, Counts, Turn, take_turn

FORM = "multipart/form-data"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class Reply(NamedTuple):
    """`counts` is None for what costs nothing: errors, lists, bodies given verbatim."""

    pieces: Iterator[Piece]
    script: Script
    counts: Counts | None = None

    @property
    def outcome(self) -> Outcome:
        """What becomes of a request whose reply was sent to its end."""
        if self.script.status >= 400:
            return "failed"
        return "completed" if self.script.error_after is None else "halted"


class BadRequest(Exception):
    """The request is not what its API takes; the text says why."""


class Desk:
    """Makes replies. `made` counts them, and so numbers each; `dice` decide about mishaps and random pieces."""

    def __init__(self, models: tuple[str, ...], dice: random.Random) -> None:
        self._models = models
        self._dice = dice
        self._decoder = msgspec.json.Decoder(Asked)
        self.made = 0

    def read(self, body: bytes, content_type: str) -> Asked:
        """Of a form only the fields `model` and `demo` are read. Raises BadRequest."""
        if content_type.startswith(FORM):
            body = _form_as_json(body)
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadRequest(f"The body is not what this endpoint takes: {error}") from error

    def script_for(self, asked: Asked, limit_status: Script) -> Script:
        """Raises BadRequest if the request's own changes make no sense."""
        try:
            return (limit_status.changed(asked.demo) if asked.demo else limit_status).rolled(self._dice)
        except msgspec.ValidationError as error:
            raise BadRequest(f"demo: {error}") from error

    def answer(self, path: str, asked: Asked, script: Script, now_s: int) -> Reply:
        """An answer of the model at a path that SHAPES knows."""
        shape = SHAPES[path]
        self.made += 1
        turn = take_turn(self.made, now_s, asked, script, shape.speaks)
        if script.status != 200 or script.body is not None:
            return self._verbatim(shape, turn)
        if asked.stream and shape.stream is not None:
            events = spoken(_events(shape, turn), script, shape.done)
            return Reply(delivered(events, EVENT_STREAM, True, script, self._dice), script, turn.counts())
        payload = shape.plain(turn)
        reports = not isinstance(payload, bytes) and payload.get("usage") is not None
        body = payload if isinstance(payload, bytes) else written(payload, script)
        script = _for_plain(script, len(turn.tokens))
        portions = _portions(body, len(turn.tokens) * turn.choices, reports, script)
        return Reply(delivered(portions, shape.content_type, False, script, self._dice), script, turn.counts())

    def models(self, now_s: int) -> Reply:
        rows = [{"id": name, "object": "model", "created": now_s, "owned_by": "demo"} for name in self._models]
        return self.document(200, {"object": "list", "data": rows})

    def refusal(self, status: int, message: str) -> Reply:
        return self.document(status, chat.error(status, message))

    def document(self, status: int, payload: object) -> Reply:
        """A JSON value, outside every script."""
        script = Script(status=status)
        return Reply(delivered([Piece(written(payload, script))], JSON, False, script, self._dice), script)

    def _verbatim(self, shape: Shape, turn: Turn) -> Reply:
        """What the script gives as the body, else an error. The script can say, too, which usage the body reports."""
        script = _for_plain(turn.script, 0)
        streams = bool(turn.asked.stream) and script.status == 200
        if script.body is None:
            message = f"The demo upstream's script answers with {script.status}."
            body = written(shape.error(script.status, message), script)
        else:
            body = script.body.encode()
        counted = script.status == 200 and script.prompt_tokens is not None and script.completion_tokens is not None
        portions = _portions(body, 0, counted, script)
        pieces = delivered(portions, EVENT_STREAM if streams else JSON, streams, script, self._dice)
        return Reply(pieces, script, turn.counts() if counted else None)


def _events(shape: Shape, turn: Turn) -> Iterator[Event]:
    assert shape.stream is not None
    if turn.script.error_after is None:
        return shape.stream(turn)
    error = shape.error_event(500, "The demo upstream's script breaks here.")
    return chain(islice(shape.stream(turn), turn.script.error_after), [error])


def _for_plain(script: Script, tokens: int) -> Script:
    """A plain answer takes the time of all its tokens before its head, halts after the first of two halves, and has no
    error event."""
    if not script.halt and not script.chunk_delay_ms and script.error_after is None:
        return script
    wait_ms = script.headers_delay_ms + script.chunk_delay_ms * tokens
    halt_after = 0 if script.halt_after == 0 else 1
    return msgspec.structs.replace(script, headers_delay_ms=wait_ms, halt_after=halt_after, error_after=None)


def _portions(body: bytes, tokens: int, reports: bool, script: Script) -> Iterator[Piece]:
    """A body given as a whole, in portions that a socket can take; in halves if it is to halt."""
    size = max(1, (len(body) + 1) // 2) if script.halt else PLAIN_PIECE_BYTES
    last = max(0, len(body) - 1) // size * size
    for start in range(0, last, size):
        yield Piece(body[start : start + size])
    yield Piece(body[last:], 0.0, tokens, reports)


def _form_as_json(body: bytes) -> bytes:
    """The two fields of a form (RFC 7578) that matter here."""
    fields = {name: _form_field(body, name) for name in ("model", "demo")}
    demo = msgspec.Raw(fields["demo"] or b"null")
    return msgspec.json.encode({"model": fields["model"].decode("utf-8", "replace"), "demo": demo})


def _form_field(body: bytes, name: str) -> bytes:
    _, _, rest = body.partition(b'name="%b"' % name.encode())
    return rest.partition(b"\r\n\r\n")[2].partition(b"\r\n")[0]
