"""One function for each reader of bytes from outside. It takes any bytes, and raises where the reader breaks a promise:
it raises what its docstring does not say, or reads the same bytes in another way when they are cut elsewhere.

Where a target cuts, the first byte says how: into pieces of so many bytes.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from gateway.core.body_kind import kind_of
from gateway.core.content_coding import CodingDamaged, ContentDecoder, DecodedTooLarge, codings_of
from gateway.core.endpoints import CHAT, ENDPOINTS, MESSAGES, MODEL, MODELS, RESPONSES, Endpoint
from gateway.core.errors import BodyUnreadable, CallerError, FormUnreadable
from gateway.core.form import FormRewriter
from gateway.core.http_syntax import header_fault, read_base_url
from gateway.core.input_size import input_size, weighed_members
from gateway.core.json_spans import read_json_spans
from gateway.core.plain_tally import PlainTally
from gateway.core.retry import read_retry_after
from gateway.core.sse import EventSplitter
from gateway.core.stream_tally import StreamTally
from gateway.core.tolerant_json import JsonScanner
from gateway.core.upstream_json import error_message, fault_of_body
from gateway.core.url_paths import PathTable
from gateway.core.usage import Usage
from gateway.core.usage_reading import UsageReader, wanted_of
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.loading import parse
from gateway.store import journal
from gateway.upstream.framing import BodyPieces, Framing

DECODED_BYTES = 256 * 1024
_PATHS = PathTable(ENDPOINTS, (MODELS.path, MODEL.path))
_FORM_FIELDS = frozenset({"model", "stream", "n", "user"})
_ENV: Mapping[str, str] = {"NAME": "value"}


def _cut(data: bytes) -> tuple[bytes, Iterator[bytes]]:
    """The bytes whole, and in pieces."""
    step, rest = 1 + (data[0] if data else 0), data[1:]
    return rest, (rest[at : at + step] for at in range(0, len(rest), step))


def framing(data: bytes) -> None:
    """An upstream's response: where it ends, and its body."""
    whole, pieces = _cut(data)
    assert _framed([whole]) == _framed(pieces)


def _framed(pieces: Iterator[bytes] | list[bytes]) -> tuple[int, bytes, bool, bool]:
    reader, body = Framing(BodyPieces()), b""
    for piece in pieces:
        body += reader.feed(piece)
        if reader.complete or reader.fault:
            break
    closed = not reader.fault and reader.close()
    # Of a response that is at fault, it is not promised how much of its body was given.
    return (reader.status, body, closed, False) if not reader.fault else (0, b"", False, True)


def events(data: bytes) -> None:
    whole, pieces = _cut(data)
    splitter = EventSplitter()
    found = [event for piece in pieces for event in splitter.feed(piece)]
    assert b"".join(found) + splitter.rest == whole
    # A line feed that comes late, behind another line's carriage return, opens the next event instead.
    assert [each.strip(b"\r\n") for each in EventSplitter().feed(whole)] == [each.strip(b"\r\n") for each in found]


def stream(data: bytes) -> None:
    """A streamed answer: what the client gets, and what is charged."""
    whole, pieces = _cut(data)
    given = list(pieces)
    for endpoint, merge in product((CHAT, RESPONSES, MESSAGES), (False, True)):
        assert _tallied(endpoint, [whole], merge=merge) == _tallied(endpoint, given, merge=merge)
    assert _tallied(CHAT, given, merge=False)[0] == whole


def _tallied(endpoint: Endpoint, pieces: list[bytes], *, merge: bool) -> tuple[bytes, Usage | None, bool]:
    tally = StreamTally(endpoint, merge=merge)
    passed = b"".join(tally.feed(piece) for piece in pieces) + tally.close()
    _check(tally.usage)
    assert tally.delivered >= 0
    return passed, tally.usage, tally.failed


def answer(data: bytes) -> None:
    """A plain answer: what is charged."""
    whole, pieces = _cut(data)
    given = list(pieces)
    for endpoint in ENDPOINTS.values():
        assert _counted(endpoint, [whole]) == _counted(endpoint, given)


def _counted(endpoint: Endpoint, pieces: list[bytes]) -> tuple[Usage | None, bool]:
    tally = PlainTally(endpoint)
    for piece in pieces:
        tally.feed(piece)
    tally.close()
    _check(tally.usage)
    _check(tally.counted)
    return tally.usage, tally.failed


def _check(usage: Usage | None) -> None:
    """No count is negative, and none is larger than the store can add."""
    if usage is not None:
        counts = [getattr(usage, name) for name in usage.__struct_fields__]
        assert all(0 <= count < 2**53 for count in counts if isinstance(count, int)), usage


def usage(data: bytes) -> None:
    """One JSON text, by the table of each API."""
    for endpoint in ENDPOINTS.values():
        reader = UsageReader(endpoint.usage)
        reader.read(data)
        _check(reader.usage)


def scanned(data: bytes) -> None:
    """JSON that may be broken, in pieces."""
    whole, pieces = _cut(data)
    wanted = wanted_of(CHAT.usage)
    found: list[list[dict[str, Any]]] = []
    for given in ([whole], pieces):
        objects: list[dict[str, Any]] = []
        scanner = JsonScanner(wanted, objects.append)
        for piece in given:
            scanner.feed(piece)
        scanner.close()
        found.append(objects)
    assert repr(found[0]) == repr(found[1])


def members(data: bytes) -> None:
    """A request's body: what is judged is what a JSON parser reads."""
    try:
        spans = read_json_spans(data)
    except BodyUnreadable:
        return
    input_size(spans, weighed_members(spans.names()))
    with contextlib.suppress(ValueError, RecursionError):  # More digits, or deeper, than Python's parser takes.
        read = json.loads(data)
        assert list(read) == list(spans.spans)
        assert repr(read) == repr({name: json.loads(spans.value(name) or b"") for name in spans.spans})
        changed = spans.changed({"model": b'"other"'})
        assert json.loads(changed) == {**read, "model": "other"}


def form(data: bytes) -> None:
    whole, pieces = _cut(data)
    assert _rewritten([whole]) == _rewritten(pieces)


def _rewritten(pieces: Iterator[bytes] | list[bytes]) -> tuple[bytes, bytes] | None:
    try:
        rewriter = FormRewriter("multipart/form-data; boundary=b", _FORM_FIELDS, "new")
        written = b"".join(rewriter.feed(piece) for piece in pieces) + rewriter.end()
    except FormUnreadable:
        return None
    return bytes(rewriter.fields), written


def form_type(data: bytes) -> None:
    with contextlib.suppress(FormUnreadable):
        FormRewriter(data.decode("latin-1"), _FORM_FIELDS, "new")


def coding(data: bytes) -> None:
    """A compressed body: never more than is allowed, and the same however it comes."""
    names = [name for bit, name in enumerate(("gzip", "deflate", "br", "zstd")) if data[:1] and data[0] >> bit & 1]
    if names:
        whole, pieces = _cut(data[1:])
        assert _decoded(names, [whole]) == _decoded(names, pieces)


def _decoded(names: list[str], pieces: Iterator[bytes] | list[bytes]) -> bytes | None:
    decoder, output = ContentDecoder(names, DECODED_BYTES), bytearray()
    try:
        for piece in filter(None, pieces):
            decoder.feed(piece)
            while not decoder.needs_input:
                output += decoder.read()
        decoder.end()
    except (CodingDamaged, DecodedTooLarge):
        return None
    assert len(output) <= DECODED_BYTES
    return bytes(output)


def path(data: bytes) -> None:
    _PATHS.find("/" + data.decode("latin-1"))


def base_url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        read = read_base_url(text)
        assert read.host.isascii()
        assert not header_fault("host", read.authority)
        assert not header_fault("x", read.path + read.query)


def error(data: bytes) -> None:
    """What an upstream says instead of an answer, and when it may be asked again."""
    status = 400 + (data[0] if data else 0)
    fault_of_body(status, data[1:])
    error_message(data[1:])
    kind_of(data[1:])
    for name in ("retry-after", "retry-after-ms"):
        assert 0 <= read_retry_after({name: data[1:].decode("latin-1")}, 0) < float("inf")


def settings(data: bytes) -> None:
    with contextlib.suppress(SettingsInvalid):
        parse(data.decode("utf-8", "replace"), "fuzz.yaml", _ENV)


def _believed(_text: bytes) -> bool:
    """Whoever can sign a line is not held up by its signature."""
    return True


def journal_lines(data: bytes) -> None:
    """What a dead process, or a full disk, left in a journal."""
    with tempfile.NamedTemporaryFile(suffix=".journal") as file:
        file.write(data)
        file.flush()
        found, at = [], 0
        while lines := journal.read(file.fileno(), _believed, at):
            found += lines
            at = lines[-1].end
        assert b"".join(line.text for line in found) == data[: data.rfind(b"\n") + 1]
        assert journal.count(file.fileno()) == len(found)


def coding_names(data: bytes) -> None:
    with contextlib.suppress(CallerError):
        assert all(name and name == name.lower() for name in codings_of(data.decode("latin-1")))


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(framing, events, stream, answer, usage, scanned, members, form, form_type, coding, path, base_url, error),
        *(settings, journal_lines, coding_names),
    )
}
