"""How events are written: server-sent events (WHATWG HTML, section 9.2) in every accent that a script asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from gateway.demo.event import Event
from gateway.demo.script import Script

NEWLINES = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
BOM = b"\xef\xbb\xbf"


class Piece(NamedTuple):
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
    """Each event as the bytes of one piece, each token after its wait, with what surrounds them."""
    newline = NEWLINES[script.newline]
    head = BOM if script.bom else b""
    pace_s = script.chunk_delay_ms / 1000
    waited = False
    for event in events:
        payload = written(event.payload, script)
        text = head + _framed(payload, event.name, script, newline)
        head = b""
        delay_s = pace_s if event.tokens and waited else 0.0
        waited = waited or event.tokens > 0
        yield Piece(text, delay_s, event.tokens, event.reports)
    if done and not script.no_done:
        yield Piece(_framed(done, "", script, newline))
    if script.after_done:
        yield Piece(script.after_done.encode())


def _framed(payload: bytes, name: str, script: Script, newline: bytes) -> bytes:
    field = b"data:" if script.tight else b"data: "
    if script.multiline and payload.startswith(b"{"):
        lines = msgspec.json.format(payload, indent=1).split(b"\n")
        text = b"".join(field + line + newline for line in lines) + newline
    else:
        text = field + payload + newline + newline
    if name:
        text = b"event: " + name.encode() + newline + text
    if script.comments:
        text = b": the next event follows" + newline + newline + text
    return text
