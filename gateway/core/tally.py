"""The tally looks on while an answer is relayed, and knows what it used.

A stream's bytes go in and the bytes for the client come out: the same, but for the final usage of a
client that did not ask for it. Chunks of content are never decoded; only an event that may carry
usage, an error or the end of a choice is. Both tallies answer `usage`, `failed` and `text_bytes`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import Endpoint
from gateway.core.errors import BodyUnreadable
from gateway.core.json_spans import read_json_spans
from gateway.core.output_budget import OutputBudget, carries_token, ending
from gateway.core.sse import EventSplitter, data_of, with_data
from gateway.core.upstream_json import (
    JsonMembers,
    Nullable,
    decoded,
    ends_choice,
    find_usage,
    has_choice,
    members_of,
    present,
    reports_error,
    usage_in_tail,
)
from gateway.core.usage import Usage
from gateway.core.usage_report import read_usage

HELD_MAX = 64 * 1024
"""Bytes of one unfinished event that are held back, so that a cut leaves whole events only. What is
longer is passed on as it comes."""

TAIL = 32 * 1024
"""Bytes of a long event or answer that are kept, to find the usage at its end."""

FRAME_MAX = 1024
"""Bytes of an event, at most, that are not its text."""

_DONE = b"[DONE]"
_USAGE = Nullable("usage")
_FINISH_REASON = Nullable("finish_reason")


class StreamTally:
    """One event stream. `merge` says that the client did not ask for usage: the usage chunk is dropped
    and its content put into the last chunk that has a choice. With an `budget`, the stream ends
    when that is used up: `stopped` tells."""

    def __init__(self, endpoint: Endpoint, *, merge: bool, budget: OutputBudget | None = None) -> None:
        self.stopped = False
        self.usage: Usage | None = None
        self.failed = False
        self.events = 0
        self._endpoint = endpoint
        self._merge = merge
        self._output_budget = budget
        self._tokens = 0
        self._splitter = EventSplitter()
        self._final: bytes | None = None
        self._after_final = bytearray()
        self._report: msgspec.Raw | None = None
        self._parts: dict[str, Any] = {}
        self._long = bytearray()
        self._bytes = 0
        self._smallest = FRAME_MAX
        self._opening = self._closing = b""

    @property
    def may_stop(self) -> bool:
        """Whether the stream may end before its upstream ends it."""
        return self._output_budget is not None

    @property
    def torn(self) -> bool:
        """Whether the client has the beginning of an event whose end has not come."""
        return bool(self._long)

    @property
    def ends_whole(self) -> bool:
        """Whether the stream can end here. The blank line after its last event many a server leaves out;
        half an event says that the rest was lost, however orderly the connection was closed."""
        if self._long:
            return self._long.rstrip().endswith(b"}")
        data = data_of(self._splitter.rest)
        return data is None or data.strip() in (b"", _DONE) or members_of(data) is not None

    @property
    def text_bytes(self) -> int:
        """Bytes of the answer's text, taking the smallest event for the frame of all."""
        return max(0, self._bytes - self.events * self._smallest)

    def feed(self, data: bytes) -> bytes:
        """Take in what the upstream sent; give what the client gets now."""
        # Most chunks differ from the one before in a text without quotes alone: they tell nothing new.
        if (
            self._opening
            and data.startswith(self._opening)
            and data.endswith(self._closing)
            and data.find(b'"', len(self._opening), -len(self._closing)) < 0
        ):
            self._count(data)
            return data
        if self._is_at_ease() and self._are_content(data):
            return data
        self._opening = b""
        return self._feed_events(data)

    def close(self) -> bytes:
        """The upstream's stream has ended as it should: give what was held back."""
        self._end_long()
        rest = self._splitter.release()
        last = self._on_event(rest) if rest else b""
        # Some servers tell an error as bare text, with status 200.
        self.failed = self.failed or not (self.events or self.usage)
        return last + self._release_final(merged=True)

    def cut(self) -> bytes:
        """The stream broke: give whole events that were held back, and drop half a one."""
        self._splitter.release()
        return self._release_final(merged=True)

    def _is_at_ease(self) -> bool:
        """Whether nothing is held and nothing must be looked at more closely."""
        return self._final is None and self._output_budget is None and not self._splitter.held and not self._long

    def _are_content(self, data: bytes) -> bool:
        """Whether these are whole events of content; if so, they are counted."""
        if not data.startswith(b"data:") or not data.endswith(b"\n\n") or not self._is_content(data):
            return False
        if data.find(b"\n\n") == len(data) - 2:
            self._count(data)
            self._learn_frame(data)
            return True
        events = data[:-2].split(b"\n\n")
        if data.count(b"\n\ndata:") != len(events) - 1:
            return False
        self.events += len(events)
        self._bytes += len(data)
        for each in events:
            self._size_up(each, len(each) + 2)
        return True

    def _learn_frame(self, event: bytes) -> None:
        # Not each time: where no chunk is like the one before, it would be for nothing.
        if self.events % 4 == 1:
            begin = event.find(b'content":"') + 10
            end = event.find(b'"', begin)
            self._opening, self._closing = (event[:begin], event[end:]) if 10 <= begin < end else (b"", b"")

    def _is_content(self, data: bytes) -> bool:
        """Whether these events, by their bytes alone, have no usage, no error and end no choice."""
        return (
            b'"error"' not in data
            and _DONE not in data
            and _USAGE.is_null(data)
            and (not self._merge or _FINISH_REASON.is_null(data))
        )

    def _count(self, event: bytes) -> None:
        size = len(event)
        self.events += 1
        self._bytes += size
        self._size_up(event, size)

    def _size_up(self, event: bytes, size: int) -> None:
        """Learn how small an event with text can be: the end of a choice has none, and so a smaller frame."""
        if size < self._smallest and _FINISH_REASON.is_null(event):
            self._smallest = size

    def _feed_events(self, data: bytes) -> bytes:
        passed = [b""]
        if self._long:
            data = self._pass_long(data, passed)
        passed += [self._on_event(event) for event in self._splitter.feed(data)]
        if self._splitter.held > HELD_MAX:
            begun = self._splitter.release()
            if not self.stopped:
                passed += [self._release_final(merged=True), begun]
                self._long += begun
                self._bytes += len(begun)
        return b"".join(passed)

    def _pass_long(self, data: bytes, passed: list[bytes]) -> bytes:
        """Pass on the rest of a long event; give what follows it."""
        # The blank line may have begun in what was passed on already.
        overlap = bytes(self._long[-3:])
        events = EventSplitter().feed(b"x" + overlap + data)
        end = len(events[0]) - 1 - len(overlap) if events else len(data)
        passed.append(data[:end])
        self._bytes += end
        self._long += data[:end]
        del self._long[:-TAIL]
        if events:
            self._end_long()
        return data[end:]

    def _end_long(self) -> None:
        if not self._long:
            return
        self.events += 1
        self._take(usage_in_tail(bytes(self._long)))
        self._long.clear()

    def _on_event(self, event: bytes) -> bytes:
        """What the client gets for one event: it, what was held before it, both or nothing."""
        if self.stopped:
            return b""
        data = data_of(event)
        if data is None:
            return self._pass_behind_final(event)
        if self._final is None and self._is_content(event):
            self._count(event)
            return self._within_allowance(event)
        chunk = members_of(data)
        if chunk is None:
            if data.strip() != _DONE:
                self._count(event)
            return self._release_final(merged=True) + event
        return self._on_chunk(event, chunk)

    def _on_chunk(self, event: bytes, chunk: JsonMembers) -> bytes:
        """What the client gets for an event that may tell something."""
        report = find_usage(chunk, self._endpoint.usage_at)
        self._take(report)
        chosen = has_choice(chunk)
        if reports_error(chunk):
            self.failed = True
            return self._release_final(merged=not chosen) + event
        if not chosen and self._merge and report is not None:
            return b""
        self._count(event)
        if not chosen:
            return self._pass_behind_final(event)
        before = self._release_final(merged=False)
        if self._merge and ends_choice(chunk) and not present(chunk, "usage"):
            self._final = event
            return before
        return before + self._within_allowance(event)

    def _within_allowance(self, event: bytes) -> bytes:
        """The event, or the stream's ending in its place. An upstream that keeps to the cap that it was
        given ends by itself, with the usage that it knows best."""
        budget = self._output_budget
        if budget is None or not self._is_content(event):
            return event
        self._tokens += carries_token(event)
        if self._tokens <= budget.output:
            return event
        self.stopped = True
        self.usage = budget.usage(budget.output)
        return ending(event, budget.choices, self.usage, merge=self._merge)

    def _take(self, report: msgspec.Raw | None) -> None:
        told = decoded(report) if report is not None else None
        if not isinstance(told, dict):
            return
        if self._endpoint.usage_in_parts:
            told = self._parts = self._parts | told
        usage = read_usage(told)
        if usage is not None:
            self.usage = usage
            self._report = report

    def _pass_behind_final(self, event: bytes) -> bytes:
        """Events without a choice keep their place: they wait while the final chunk is held."""
        if self._final is None:
            return event
        self._after_final += event
        return self._release_final(merged=True) if len(self._after_final) > HELD_MAX else b""

    def _release_final(self, *, merged: bool) -> bytes:
        """What is held: with the usage in it, if it is the last chunk that has a choice."""
        event, after = self._final, bytes(self._after_final)
        if event is None:
            return b""
        self._final = None
        self._after_final.clear()
        return (_with_usage(event, self._report) if merged and self._report is not None else event) + after


def _with_usage(event: bytes, report: msgspec.Raw) -> bytes:
    try:
        members = read_json_spans(data_of(event) or b"")
    except BodyUnreadable:
        return event  # What is not one plain object is better left as it is.
    return with_data(event, members.changed({"usage": bytes(report)}))
