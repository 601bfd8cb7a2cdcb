"""From a request that has been read to its answer: which script, which API, which pieces. No I/O."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from gateway.demo import chat
from gateway.demo.delivery import PLAIN_PIECE_BYTES, delivered
from gateway.demo.dialect import Piece, spoken, written
from gateway.demo.event import Event
from gateway.demo.script import Script
from gateway.demo.shapes import SHAPES, Shape
from gateway.demo.truth import Outcome
from gateway.demo.turn import Asked, Counts, Turn, take_turn

JSON = "application/json"
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
    """Makes replies. `at` numbers them; `dice` decide about mishaps and random pieces."""

    def __init__(self, models: tuple[str, ...], dice: random.Random) -> None:
        self._models = models
        self._dice = dice
        self._decoder = msgspec.json.Decoder(Asked)
        self._made = 0

    def read(self, body: bytes, content_type: str) -> Asked:
        """Raises BadRequest."""
        if not content_type.startswith(JSON):
            return Asked()
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"The body is not what this endpoint takes: {error}") from error

    def script_for(self, asked: Asked, standing: Script) -> Script:
        """Raises BadRequest if the request's own changes make no sense."""
        try:
            return (standing.changed(asked.demo) if asked.demo else standing).rolled(self._dice)
        except msgspec.ValidationError as error:
            raise BadRequest(f"demo: {error}") from error

    def answer(self, path: str, asked: Asked, script: Script, now_s: int) -> Reply:
        """An answer of the model at a path that SHAPES knows."""
        shape = SHAPES[path]
        self._made += 1
        turn = take_turn(self._made, now_s, asked, script)
        if script.status != 200 or script.body is not None:
            message = f"The demo upstream's script answers with {script.status}."
            return self._verbatim(written(shape.error(script.status, message), script), bool(asked.stream), script)
        if asked.stream:
            told = shape.stream(turn) if script.error_after is None else _with_error(shape, turn)
            events = spoken(told, script, shape.done)
            return Reply(delivered(events, EVENT_STREAM, True, script, self._dice), script, turn.counts())
        body = written(shape.plain(turn), script)
        script = _for_plain(script, len(turn.tokens))
        portions = _portions(body, len(turn.tokens) * turn.choices, script)
        return Reply(delivered(portions, JSON, False, script, self._dice), script, turn.counts())

    def models(self, now_s: int) -> Reply:
        rows = [{"id": name, "object": "model", "created": now_s, "owned_by": "demo"} for name in self._models]
        return self.document(200, {"object": "list", "data": rows})

    def refusal(self, status: int, message: str) -> Reply:
        return self.document(status, chat.error(status, message))

    def document(self, status: int, payload: object) -> Reply:
        """A JSON value, outside every script."""
        script = Script(status=status)
        return Reply(delivered([Piece(written(payload, script))], JSON, False, script, self._dice), script)

    def _verbatim(self, otherwise: bytes, streams: bool, script: Script) -> Reply:
        body = otherwise if script.body is None else script.body.encode()
        streams = streams and script.status == 200
        content_type = EVENT_STREAM if streams else JSON
        script = _for_plain(script, 0)
        return Reply(delivered(_portions(body, 0, script), content_type, streams, script, self._dice), script)


def _with_error(shape: Shape, turn: Turn) -> Iterator[Event]:
    for index, event in enumerate(shape.stream(turn)):
        if index == turn.script.error_after:
            yield Event(shape.error(500, "The demo upstream's script breaks here."))
            return
        yield event


def _for_plain(script: Script, tokens: int) -> Script:
    """A plain answer takes the time of all its tokens before its head, and halts after the first of two halves."""
    if not script.halt and not script.chunk_delay_ms:
        return script
    wait_ms = script.headers_delay_ms + script.chunk_delay_ms * tokens
    return msgspec.structs.replace(script, headers_delay_ms=wait_ms, halt_after=0 if script.halt_after == 0 else 1)


def _portions(body: bytes, tokens: int, script: Script) -> Iterator[Piece]:
    """A body given as a whole, in portions that a socket can take; in halves if it is to halt."""
    size = max(1, (len(body) + 1) // 2) if script.halt else PLAIN_PIECE_BYTES
    last = max(0, len(body) - 1) // size * size
    for start in range(0, last, size):
        yield Piece(body[start : start + size])
    yield Piece(body[last:], 0.0, tokens, tokens > 0 and script.usage != "never")
