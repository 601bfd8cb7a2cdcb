"""How events are written: server-sent events (WHATWG HTML, section 9.2) in every accent that a script asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from gateway.demo.event import Event
from gateway.demo.script import Script

NEWLINES = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
BOM = b"\xef\xbb\xbf"


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Bytes to send after a wait. `then` says that the answer stops with it, and how."""

    data: bytes
    delay_s: float = 0.0
    tokens: int = 0
    reports: bool = False
    then: str = ""


def written(payload: Any, script: Script) -> bytes:
    """A value as JSON, compact or as Python's own library writes it."""
    if script.spaced:
        return json.dumps(payload).encode()
    return msgspec.json.encode(payload)


def spoken(events: Iterable[Event], script: Script, done: bytes) -> Iterator[Piece]:
    """Each event as the bytes of one piece, each token but the first after its wait, with what surrounds them."""
    pace_s = script.chunk_delay_ms / 1000
    delay_s = 0.0
    frame = _framer(script)
    head = BOM if script.bom else b""
    for event in events:
        text = frame(written(event.payload, script), event.name)
        yield Piece(head + text if head else text, delay_s if event.tokens else 0.0, event.tokens, event.reports)
        head = b""
        if event.tokens:
            delay_s = pace_s
    if done and not script.no_done:
        yield Piece(frame(done, ""))
    if script.after_done:
        yield Piece(script.after_done.encode())


def _framer(script: Script) -> Callable[[bytes, str], bytes]:
    """What makes an event of a payload and the name of its type."""
    newline = NEWLINES[script.newline]
    field = b"data:" if script.tight else b"data: "
    before = b": the next event follows" + newline + newline if script.comments else b""
    after = newline + newline

    def frame(payload: bytes, name: str) -> bytes:
        if script.multiline and payload.startswith(b"{"):
            payload = (newline + field).join(msgspec.json.format(payload, indent=1).split(b"\n"))
        if name:
            return b"%bevent: %b%b%b%b%b" % (before, name.encode(), newline, field, payload, after)
        return b"%b%b%b%b" % (before, field, payload, after)

    return frame
