"""Puts the usage into a stream whose client did not ask for it: into the last chunk that has a choice. That chunk is
held until it is known that no other follows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import StreamFormat
from gateway.core.errors import BodyUnreadable
from gateway.core.json_spans import read_json_spans
from gateway.core.sse import data_of, with_data
from gateway.core.stream_format import empty_choice
from gateway.core.usage_report import Members

_AFTER_MAX = 64 * 1024
"""Bytes of what comes behind a final chunk that are held with it."""


class FinalChunk:
    """The chunk that ends a choice, held until it is known whether the usage belongs into it, and what came after; and
    the chunk with the usage alone, until it is known whether another one shows it. `report` is the last usage object,
    `is_shown` whether the last chunk with a choice that was passed on has one."""

    __slots__ = ("_after", "_event", "_shape", "_usage_event", "is_shown", "report")

    _after: bytearray
    """What came behind the event that is held."""

    def __init__(self, shape: StreamFormat | None) -> None:
        self.report: Members | None = None
        self.is_shown = False
        self._shape = shape
        self._event: bytes | None = None
        self._usage_event = b""

    @property
    def is_held(self) -> bool:
        return self._event is not None

    def hold(self, event: bytes) -> None:
        self._event, self._after = event, bytearray()

    def keep_usage(self, event: bytes) -> None:
        self._usage_event = event

    def follow(self, event: bytes) -> bytes:
        """An event without a choice, which keeps its place behind what is held. What is passed on now."""
        if self._event is None:
            return event
        self._after += event
        return self.release() if len(self._after) > _AFTER_MAX else b""

    def pass_by(self) -> bytes:
        """Another chunk with a choice comes: this was not the last. What is held."""
        self.is_shown = False
        return self._released(None)

    def release(self) -> bytes:
        """What is held: with the usage in it, if it is known already."""
        self.is_shown = self.is_shown or (self.is_held and self.report is not None)
        return self._released(self.report)

    def end(self) -> bytes:
        """The stream ends: what is held, and the usage, if no chunk has shown it."""
        passed = self.release()
        if self._usage_event and not self.is_shown:
            passed += _with_member(self._usage_event, "choices", [empty_choice(self._shape)])
        self._usage_event = b""
        return passed

    def _released(self, report: Members | None) -> bytes:
        event = self._event
        if event is None:
            return b""
        self._event = None
        return (event if report is None else _with_member(event, "usage", report)) + bytes(self._after)


def _with_member(event: bytes, name: str, value: Any) -> bytes:
    """The event with one member of its object set."""
    try:
        members = read_json_spans(data_of(event) or b"")
        return with_data(event, members.changed({name: msgspec.json.encode(value)}))
    except (BodyUnreadable, msgspec.MsgspecError, UnicodeEncodeError, OverflowError):
        return event  # What is not one plain object is better left as it is.
