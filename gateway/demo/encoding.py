"""Turns the events or the body of an answer into the bytes of an HTTP/1.1 response, with the faults of a script.

Pure generators over pieces, no I/O. Events become server-sent events (WHATWG HTML, section 9.2) in the script's
dialect. A body is then cut short, compressed, cut into pieces and framed (RFC 9112), in that order; each step is
independent of the others.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.demo.plan import DemoEvent
from gateway.demo.script import DemoScript

NEWLINES = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
BOM = b"\xef\xbb\xbf"

NEXT_TURN_S = 1e-6
"""A wait of no time, in which the event loop sends what came before."""

PLAIN_PIECE_BYTES = 65_536
FRAGMENT_BYTES = 100
PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Bytes to send after a wait. `then` says how the answer ends, if it ends with them."""

    data: bytes
    delay_s: float = 0.0
    tokens: int = 0
    reports: bool = False
    then: str = ""


def encoded(payload: Any, script: DemoScript) -> bytes:
    """A value as JSON, compact or as Python's own library writes it."""
    if script.spaced:
        return json.dumps(payload).encode()
    return msgspec.json.encode(payload)


def encoded_events(events: Iterable[DemoEvent], script: DemoScript, done: bytes) -> Iterator[Piece]:
    """Each event as the bytes of one piece, with a wait before each token except the first."""
    pace_s = script.chunk_delay_ms / 1000
    delay_s = 0.0
    frame = _framer(script)
    head = BOM if script.bom else b""
    for event in events:
        text = frame(encoded(event.payload, script), event.name)
        yield Piece(head + text if head else text, delay_s if event.tokens else 0.0, event.tokens, event.reports)
        head = b""
        if event.tokens:
            delay_s = pace_s
    if done and not script.no_done:
        yield Piece(frame(done, ""))
    if script.after_done:
        yield Piece(script.after_done.encode())


def _framer(script: DemoScript) -> Callable[[bytes, str], bytes]:
    """A function that makes an event from a payload and the name of its type."""
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


def encoded_response(
    body: Iterable[Piece], content_type: str, streams: bool, script: DemoScript, dice: random.Random
) -> Iterator[Piece]:
    """The whole answer. The last piece's `then` says what happens to the connection."""
    for status in script.informational:
        yield Piece(_status_line(status, "1.1") + b"\r\n", NEXT_TURN_S)
    wait_s = script.headers_delay_ms / 1000
    if script.halts_at("before_headers"):
        yield Piece(b"", wait_s, then=script.halt)
        return
    if script.gzip:
        body = compressed(body)
    framing = script.framing or ("chunked" if streams else "length")
    length = None
    if framing == "length":
        body = list(body)
        length = sum(len(piece.data) for piece in body)
    head = _head(script, content_type, framing, length)
    if script.halts_at("after_headers"):
        yield Piece(head, wait_s, then=script.halt)
        return
    yield Piece(head, wait_s)
    pieces = framed(cut(halted(body, script), script, dice), framing, script)
    first = next(pieces)
    yield replace(first, delay_s=first.delay_s + script.first_delay_ms / 1000)
    yield from pieces


def halted(body: Iterable[Piece], script: DemoScript) -> Iterator[Piece]:
    """The pieces up to the place where the script halts; a complete answer ends with `then` "done"."""
    if not script.halts_at("between_events", "inside_event", "inside_framing"):
        yield from body
        yield Piece(b"", then="done")
        return
    stop = script.chunks // 2 if script.halt_after is None else script.halt_after
    for index, piece in enumerate(body):
        if index == stop:
            yield _halt(piece, script)
            return
        yield piece
    yield Piece(b"", then="done")


def _halt(piece: Piece, script: DemoScript) -> Piece:
    if script.halt_at == "between_events":
        return Piece(b"", piece.delay_s, then=script.halt)
    return Piece(piece.data[: len(piece.data) // 2], piece.delay_s, then=script.halt)


def compressed(body: Iterable[Piece]) -> Iterator[Piece]:
    """As gzip; each piece can be decompressed when it arrives."""
    deflate = zlib.compressobj(wbits=31)
    for piece in body:
        yield replace(piece, data=deflate.compress(piece.data) + deflate.flush(zlib.Z_SYNC_FLUSH))
    yield Piece(deflate.flush())


def cut(body: Iterable[Piece], script: DemoScript, dice: random.Random) -> Iterator[Piece]:
    """The same bytes in other pieces. A token counts as delivered with the last byte of its event."""
    if script.cuts:
        return _cut_at(_whole(body), script.cuts)
    if script.pieces == "byte":
        return _bytewise(body)
    if script.pieces == "random":
        return _at_random(body, dice)
    if script.pieces == "whole":
        return _whole(body)
    return iter(body)


def _bytewise(body: Iterable[Piece]) -> Iterator[Piece]:
    for piece in body:
        delay_s = piece.delay_s or NEXT_TURN_S
        for index in range(len(piece.data) - 1):
            yield Piece(piece.data[index : index + 1], delay_s)
            delay_s = NEXT_TURN_S
        yield replace(piece, data=piece.data[-1:], delay_s=delay_s)


def _at_random(body: Iterable[Piece], dice: random.Random) -> Iterator[Piece]:
    """The last bytes of each piece are held, and go out with the first of the next."""
    held = Piece(b"")
    for piece in body:
        first, *others = _fragments(piece.data, dice)
        held = replace(held, data=held.data + first, delay_s=piece.delay_s or NEXT_TURN_S)
        for fragment in others:
            yield held
            held = Piece(fragment, NEXT_TURN_S)
        tokens, reports = held.tokens + piece.tokens, held.reports or piece.reports
        held = Piece(held.data, held.delay_s, tokens, reports, piece.then)
    yield held


def _fragments(data: bytes, dice: random.Random) -> list[bytes]:
    bounds = [0]
    while bounds[-1] < len(data):
        bounds.append(bounds[-1] + dice.randint(1, FRAGMENT_BYTES))
    return [data[start:end] for start, end in pairwise(bounds)] or [b""]


def _whole(body: Iterable[Piece]) -> Iterator[Piece]:
    pieces = list(body)
    yield Piece(
        b"".join(piece.data for piece in pieces),
        sum(piece.delay_s for piece in pieces),
        sum(piece.tokens for piece in pieces),
        any(piece.reports for piece in pieces),
        pieces[-1].then,
    )


def _cut_at(body: Iterable[Piece], offsets: tuple[int, ...]) -> Iterator[Piece]:
    (whole,) = body
    inner = sorted({offset for offset in offsets if 0 < offset < len(whole.data)})
    bounds = [0, *inner, len(whole.data)]
    for start, end in pairwise(bounds[:-1]):
        yield Piece(whole.data[start:end], NEXT_TURN_S)
    yield replace(whole, data=whole.data[bounds[-2] :], delay_s=whole.delay_s + NEXT_TURN_S)


def framed(body: Iterable[Piece], framing: str, script: DemoScript) -> Iterator[Piece]:
    """Each piece, and the end, in the transfer coding, if there is one."""
    chunked = framing == "chunked"
    for piece in body:
        data = piece.data
        if chunked and data and not piece.then:
            yield Piece(b"%x\r\n%b\r\n" % (len(data), data), piece.delay_s, piece.tokens, piece.reports)
        elif chunked:
            yield replace(piece, data=_last_chunk(piece, script))
        elif framing == "close" and piece.then == "done":
            yield replace(piece, then="close_done")
        else:
            yield piece


def _last_chunk(piece: Piece, script: DemoScript) -> bytes:
    size = len(piece.data)
    if piece.then not in ("", "done") and script.halt_at == "inside_framing":
        return b"%x\r\n%b" % (2 * size + 1, piece.data)
    chunk = b"%x\r\n%b\r\n" % (size, piece.data) if size else b""
    if piece.then != "done":
        return chunk
    return chunk + (b"0\r\nx-demo-trailer: end\r\n\r\n" if script.trailers else b"0\r\n\r\n")


def _head(script: DemoScript, content_type: str, framing: str, length: int | None) -> bytes:
    lines = [_status_line(script.status, "1.0" if framing == "close" else "1.1")]
    given = {"content-type": content_type, **{name.lower(): value for name, value in script.headers.items()}}
    if framing == "chunked":
        given["transfer-encoding"] = "chunked"
    if length is not None:
        given["content-length"] = str(length)
    if script.gzip:
        given["content-encoding"] = "gzip"
    if script.trailers:
        given["trailer"] = "x-demo-trailer"
    if script.afterwards == "close":
        given["connection"] = "close"
    lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in given.items()]
    return b"".join(lines) + b"\r\n"


def _status_line(status: int, version: str) -> bytes:
    phrase = PHRASES.get(status, "Unknown")
    return f"HTTP/{version} {status} {phrase}\r\n".encode()
