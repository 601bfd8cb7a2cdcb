"""Event streams, as bytes: where events end and what their data is (WHATWG HTML, section 9.2).

The splitter keeps every byte: its events joined, with what it holds, are what went in, however the
input was cut. Lines end in LF, CR LF or CR.
"""

from __future__ import annotations

import re

# Atomic groups, or CR LF alone would be taken for two line ends when backtracking.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


class EventSplitter:
    """Bytes in, whole events out, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._pieces = bytearray()
        self._searched = 0

    @property
    def held(self) -> int:
        """Bytes of an event whose end has not come yet."""
        return len(self._pieces)

    def feed(self, data: bytes) -> list[bytes]:
        self._pieces += data
        events, begin = [], 0
        for blank in _BLANK_LINE.finditer(self._pieces, self._searched):
            if not self._pieces[begin : blank.start()].strip(b"\r\n"):
                continue  # Line ends before the first line belong to the event that follows.
            events.append(bytes(self._pieces[begin : blank.end()]))
            begin = blank.end()
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


def data_of(event: bytes) -> bytes | None:
    """The data of one event, its lines joined by LF; None for a comment or an event without data."""
    lines = _LINE_END.split(event.lstrip(b"\r\n").removeprefix(BOM))
    found = [_field_value(line) for line in lines if line == b"data" or line.startswith(b"data:")]
    return b"\n".join(found) if found else None


def with_data(event: bytes, data: bytes) -> bytes:
    """The same event with other data, in one line at the place of the first; all else stays."""
    end = _LINE_END.search(event.lstrip(b"\r\n"))
    line_end = end[0] if end else b"\n"
    lines, placed = [], False
    for line in _LINE_END.split(event.strip(b"\r\n")):
        if line != b"data" and not line.startswith(b"data:"):
            lines.append(line)
        elif not placed:
            lines.append(b"data: " + data)
            placed = True
    return line_end.join((*lines, b"", b""))


def event_of(data: bytes, kind: bytes = b"") -> bytes:
    """A new event, of a named kind if one is given."""
    return b"%bdata: %b\n\n" % (b"event: %b\n" % kind if kind else b"", data)


def _field_value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value
