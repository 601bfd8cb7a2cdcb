"""Event streams, as bytes: where events end and what their data is (WHATWG HTML, section 9.2).

The splitter keeps every byte: its events joined, with what it holds, are what went in, however the
input was cut. Lines end in LF, CR LF or CR.
"""

from __future__ import annotations

import re

# A blank line after one that is not: line ends before an event belong to it. Atomic groups, or CR LF
# alone would be taken for two line ends when backtracking.
_BLANK_LINE = re.compile(rb"(?<=[^\r\n])(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE = re.compile(rb"([^\r\n]*+)(\r\n|\n|\r|\Z)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"


class EventSplitter:
    """Bytes in, whole events out, each with the blank line that ends it. A byte order mark that opens
    the stream comes out by itself."""

    __slots__ = ("_begun", "_pieces", "_searched")

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._searched = 0
        self._begun = False

    @property
    def held(self) -> int:
        """Bytes of an event whose end has not come yet."""
        return len(self._pieces)

    @property
    def rest(self) -> bytes:
        """What is held, which stays held."""
        return bytes(self._pieces)

    def feed(self, data: bytes) -> list[bytes]:
        self._pieces += data
        events: list[bytes] = []
        begin = 0
        if not self._begun and len(self._pieces) >= len(BOM):
            self._begun = True
            if self._pieces.startswith(BOM):
                events.append(BOM)
                # Or it would be a line, and a line end behind it the end of an event.
                del self._pieces[: len(BOM)]
        for end in _event_ends(self._pieces, self._searched):
            events.append(bytes(self._pieces[begin:end]))
            begin = end
        del self._pieces[:begin]
        # A blank line takes up to four bytes, three of which may be here already.
        self._searched = max(0, len(self._pieces) - 3)
        return events

    def release(self) -> bytes:
        """What is held, which is then held no more."""
        rest = bytes(self._pieces)
        self._pieces.clear()
        self._searched = 0
        return rest


def _event_ends(data: bytearray, begin: int) -> list[int]:
    """Where the blank lines behind the events end, as far as they are whole."""
    ends: list[int] = []
    if _CR not in data:
        # Nearly every stream has line feeds alone, and one between two events: a search finds them ten times as fast.
        while (at := data.find(b"\n\n", begin)) > 0 and data[at - 1] != _LF:
            begin = at + 2
            ends.append(begin)
        if at < 0:
            return ends
    for blank in _BLANK_LINE.finditer(data, begin):
        if blank.end() == len(data) and blank[0] == b"\r\n\r":
            break  # Its LF is still on the way, and belongs to this event.
        ends.append(blank.end())
    return ends


def data_of(event: bytes) -> bytes | None:
    """The data of one event, its lines joined by LF; None for a comment or an event without data."""
    found = [_field_value(line) for line in _LINE_END.split(event) if _is_data(line)]
    return b"\n".join(found) if found else None


def type_of(event: bytes) -> str:
    """The type that an event's own line gives, empty where it has none."""
    found = [line[6:].strip() for line in _LINE_END.split(event) if line.startswith(b"event:")]
    return found[-1].decode(errors="replace") if found else ""


def with_data(event: bytes, data: bytes) -> bytes:
    """The same event with other data at the place of its own; all else stays as it was."""
    pieces, placed = [], False
    for line, end in _LINE.findall(event):
        if not _is_data(line):
            pieces.append(line + end)
        elif not placed:
            name = b"data: " if line.startswith(b"data: ") else b"data:"
            pieces.append((end or b"\n").join([name + text for text in data.split(b"\n")]) + end)
            placed = True
    return b"".join(pieces)


def event_of(data: bytes, kind: bytes = b"") -> bytes:
    """A new event, of a named kind if one is given."""
    return b"%bdata: %b\n\n" % (b"event: %b\n" % kind if kind else b"", data)


def _is_data(line: bytes) -> bool:
    return line.startswith(b"data:") or line == b"data"


def _field_value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value
