"""An event of a stream that is too long to be held until it is whole."""

from __future__ import annotations

from gateway.core.endpoints import StreamFormat
from gateway.core.sse import EventSplitter, data_of
from gateway.core.tolerant_json import JsonScanner

_TAIL = 64
"""Bytes of the event that are kept, to see where and how it ends."""

_TEXT_MARKS = {
    StreamFormat.CHAT: b"choices",
    StreamFormat.COMPLETIONS: b"choices",
    StreamFormat.RESPONSES: b'.delta"',
    StreamFormat.MESSAGES: b"content_block_delta",
    StreamFormat.GEMINI: b'"text"',
}
"""What the beginning of a long event that delivers text has in it."""


class LongEvent:
    """An event that is too long to be held: where it ends. Its data go through a `JsonScanner` as they pass. `is_text`
    says that it delivers text, rather than repeat some."""

    def __init__(self, begun: bytes, scanner: JsonScanner, shape: StreamFormat | None) -> None:
        mark = _TEXT_MARKS.get(shape) if shape is not None else None
        self.is_text = mark is not None and mark in begun[:1024]
        self._tail = bytearray(begun[-_TAIL:])
        self._scanner = scanner
        scanner.feed(data_of(begun) or b"")

    @property
    def ends_object(self) -> bool:
        return self._tail.rstrip().endswith(b"}")

    def take(self, data: bytes) -> tuple[int, bool]:
        """How many of these bytes belong to the event, and whether it ends with them."""
        # The blank line may have begun in what was passed on already.
        overlap = bytes(self._tail[-3:])
        events = EventSplitter().feed(b"x" + overlap + data)
        end = len(events[0]) - 1 - len(overlap) if events else len(data)
        self._scanner.feed(data[:end])
        self._tail += data[:end]
        del self._tail[:-_TAIL]
        return end, bool(events)

    def end(self) -> None:
        self._scanner.close()
