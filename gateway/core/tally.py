"""The tally watches an answer while it is relayed, and knows what it used.

A stream's bytes go in and the bytes for the client come out: the same bytes in the same call, with one exception.
The gateway always asks the upstream for usage. For a client that did not (`merge`), the chunk with the usage is
dropped, and the usage is put into the last chunk that has a choice. For this the chunk that ends a choice is held
until it is known what follows.

What comes in is looked at no more closely than it must be, on the first of these levels that suffices:

1. A piece that equals the one before but for a text without quotes is content (`_Template`). It is counted.
2. A piece of whole events in which, by their bytes, there is no usage, no error and no end of a choice, is content.
   It is counted, and the template is learned from it.
3. Any other piece is split into events. An event that by its bytes is content is counted and passes.
4. An event that may have usage, an error or the end of a choice in it is decoded.

A piece may end inside an event; then the rest is held until the event is whole, so that a broken stream leaves the
client whole events only. An event longer than HELD_MAX is passed on as it comes (`_LongEvent`), and only its end is
kept, to find its usage.

States of a stream:

    at ease ──an event is cut──► holding a part ──its end──► at ease
    at ease ──a choice ends (merge)──► holding the final chunk (`_FinalChunk`) ──usage, a choice or the end──► at ease
    holding a part ──longer than HELD_MAX──► in a long event ──its end──► at ease
    any, with a budget ──it is used up──► stopped: the ending is written, and nothing more is passed

At ease, levels 1 and 2 apply, in every other state and with a budget 3 and 4.

Every tally answers `usage`, `fault`, `failed`, `events` and `text_bytes`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.endpoints import Endpoint, StreamFormat
from gateway.core.errors import BodyUnreadable
from gateway.core.estimate import streamed_tokens
from gateway.core.json_spans import read_json_spans
from gateway.core.refusals import Fault
from gateway.core.sse import EventSplitter, data_of, with_data
from gateway.core.stream_format import ending, event_text_bytes
from gateway.core.upstream_json import (
    JsonMembers,
    Nullable,
    decoded,
    ends_choice,
    find_usage,
    has_choice,
    members_of,
    present,
    reported_fault,
    usage_in_tail,
)
from gateway.core.usage import Usage, UsageSource
from gateway.core.usage_report import read_usage

HELD_MAX = 64 * 1024
"""Bytes of one unfinished event that are held back, so that a cut leaves whole events only. What is
longer is passed on as it comes."""

TAIL = 32 * 1024
"""Bytes of a long event or answer that are kept, to find the usage at its end."""

FRAME_MAX = 1024
"""Bytes of an event, at most, that are not its text."""

KEPT_MAX = 256 * 1024
"""Bytes of a plain answer that are kept, to be read when it is whole."""

_DONE = b"[DONE]"
_USAGE = Nullable("usage")
_FINISH_REASON = Nullable("finish_reason")


class OutputBudget:
    """What a stream may deliver before a quota with `when_spent: stop` is spent, and how it is ended then.

    `output` is in tokens over all choices, `input` is the estimate of the request's. Tokens are estimated from the
    text of each event. An upstream that keeps to the cap that it was given ends by itself before the budget does.
    """

    def __init__(self, shape: StreamFormat, *, output: int, input_tokens: int, choices: int = 1) -> None:
        self._shape = shape
        self._output = output
        self._input = input_tokens
        self._choices = choices
        self._events = 0
        self._text_bytes = 0
        self._opening: bytes | None = None

    @property
    def delivered(self) -> int:
        """Tokens of the events that were admitted."""
        return streamed_tokens(self._events, self._text_bytes)

    def admits(self, data: bytes) -> bool:
        """Whether the event with this data may be delivered; if so, it is counted."""
        if self._opening is None:
            self._opening = data
        size = event_text_bytes(self._shape, data)
        if not size:
            return True
        if streamed_tokens(self._events + 1, self._text_bytes + size) > self._output:
            return False
        self._events += 1
        self._text_bytes += size
        return True

    def usage(self, reported: Usage | None) -> Usage:
        """What the stream has used: its input as `reported`, where it was."""
        entered = reported.input if reported is not None and reported.input else self._input
        return Usage(input=entered, output=self.delivered, source=UsageSource.ESTIMATED)

    def ending(self, data: bytes, usage: Usage, *, merge: bool) -> bytes:
        """The events that end the stream in place of the event with this data."""
        return ending(self._shape, self._opening or b"", data, usage, choices=self._choices, merge=merge)


class StreamTally:
    """One event stream. `merge` says that the client did not ask for usage. With a `budget` the stream may end before
    its upstream ends it: `stopped` says so."""

    def __init__(self, endpoint: Endpoint, *, merge: bool, budget: OutputBudget | None = None) -> None:
        self.stopped = False
        self.usage: Usage | None = None
        self.fault: Fault | None = None
        """Whose fault the failure is that the upstream reported first."""

        self.events = 0
        self._endpoint = endpoint
        self._merge = merge
        self._budget = budget
        self._splitter = EventSplitter()
        self._template = _Template()
        self._final = _FinalChunk()
        self._long = _LongEvent()
        self._report: msgspec.Raw | None = None
        self._parts: dict[str, Any] = {}
        self._bytes = 0
        self._smallest = FRAME_MAX

    @property
    def failed(self) -> bool:
        return self.fault is not None

    @property
    def may_stop(self) -> bool:
        """Whether the stream may end before its upstream ends it."""
        return self._budget is not None

    @property
    def ends_whole(self) -> bool:
        """Whether the stream can end here. The blank line after its last event many a server leaves out;
        half an event says that the rest was lost, however orderly the connection was closed."""
        if self._long.is_open:
            return self._long.ends_object
        data = data_of(self._splitter.rest)
        return data is None or data.strip() in (b"", _DONE) or members_of(data) is not None

    @property
    def text_bytes(self) -> int:
        """Bytes of the answer's text, taking the smallest event for the frame of all."""
        return max(0, self._bytes - self.events * self._smallest)

    def feed(self, data: bytes) -> bytes:
        """Take in what the upstream sent; give what the client gets now."""
        if self._template.fits(data):
            self._count(data)
            return data
        if self._is_at_ease() and self._are_content(data):
            return data
        self._template.forget()
        return self._feed_events(data)

    def close(self) -> bytes:
        """The upstream's stream has ended as it should: give what was held back."""
        self._end_long()
        rest = self._splitter.release()
        last = self._on_event(rest) if rest else b""
        # Some servers report an error as bare text, with status 200.
        if not (self.events or self.usage):
            self.fault = self.fault or Fault.UNKNOWN
        return last + self._final.release(self._report)

    def cut(self) -> bytes:
        """The stream broke: give whole events that were held back, and drop half a one."""
        self._splitter.release()
        return self._final.release(self._report)

    def _is_at_ease(self) -> bool:
        """Whether nothing is held and nothing must be looked at more closely."""
        return self._budget is None and not self._final.is_held and not self._splitter.held and not self._long.is_open

    def _are_content(self, data: bytes) -> bool:
        """Whether these are whole events of content; if so, they are counted."""
        if not data.startswith(b"data:") or not data.endswith(b"\n\n") or not self._is_content(data):
            return False
        if data.find(b"\n\n") == len(data) - 2:
            self._count(data)
            # Not each time: where no chunk is like the one before, it would be for nothing.
            if self.events % 4 == 1:
                self._template.learn(data)
            return True
        events = data[:-2].split(b"\n\n")
        if data.count(b"\n\ndata:") != len(events) - 1:
            return False
        for each in events:
            self._count(each, blank_line=2)
        return True

    def _is_content(self, data: bytes) -> bool:
        """Whether these events, by their bytes alone, have no usage, no error and end no choice."""
        return (
            b'"error"' not in data
            and _DONE not in data
            and _USAGE.is_null(data)
            and (not self._merge or _FINISH_REASON.is_null(data))
        )

    def _count(self, event: bytes, blank_line: int = 0) -> None:
        """Count one event. The smallest one with text shows the size of the frame; the end of a choice has none.
        `blank_line` is the size of the event's end where that is left out."""
        size = len(event) + blank_line
        self.events += 1
        self._bytes += size
        if size < self._smallest and _FINISH_REASON.is_null(event):
            self._smallest = size

    def _feed_events(self, data: bytes) -> bytes:
        passed = [b""]
        if self._long.is_open:
            data = self._pass_long(data, passed)
        passed += [self._on_event(event) for event in self._splitter.feed(data)]
        if self._splitter.held > HELD_MAX:
            begun = self._splitter.release()
            if not self.stopped:
                passed += [self._final.release(self._report), begun]
                self._long.begin(begun)
                self._bytes += len(begun)
        return b"".join(passed)

    def _pass_long(self, data: bytes, passed: list[bytes]) -> bytes:
        """Pass on the rest of a long event; give what follows it."""
        end, is_over = self._long.take(data)
        passed.append(data[:end])
        self._bytes += end
        if is_over:
            self._end_long()
        return data[end:]

    def _end_long(self) -> None:
        if self._long.is_open:
            self.events += 1
            self._take(usage_in_tail(self._long.end()))

    def _on_event(self, event: bytes) -> bytes:
        """What the client gets for one event: it, what was held before it, both or nothing."""
        if self.stopped:
            return b""
        data = data_of(event)
        if data is None:
            return self._pass_behind_final(event)
        if not self._final.is_held and self._is_content(event):
            self._count(event)
            return self._within_budget(event, data)
        chunk = members_of(data)
        if chunk is None:
            if data.strip() != _DONE:
                self._count(event)
            return self._final.release(self._report) + event
        return self._on_chunk(event, data, chunk)

    def _on_chunk(self, event: bytes, data: bytes, chunk: JsonMembers) -> bytes:
        """What the client gets for an event that was decoded."""
        report = find_usage(chunk, self._endpoint.usage_at)
        self._take(report)
        chosen = has_choice(chunk)
        fault = reported_fault(chunk)
        if fault is not None:
            self.fault = self.fault or fault
            return self._final.release(None if chosen else self._report) + event
        if not chosen and self._merge and report is not None:
            return b""
        self._count(event)
        if not chosen:
            return self._pass_behind_final(self._within_budget(event, data))
        before = self._final.release(None)
        passed = self._within_budget(event, data)
        if not self.stopped and self._merge and ends_choice(chunk) and not present(chunk, "usage"):
            self._final.hold(event)
            return before
        return before + passed

    def _within_budget(self, event: bytes, data: bytes) -> bytes:
        """The event, or the stream's ending in its place."""
        budget = self._budget
        if budget is None or budget.admits(data):
            return event
        self.stopped = True
        self.usage = budget.usage(self.usage)
        return budget.ending(data, self.usage, merge=self._merge)

    def _take(self, report: msgspec.Raw | None) -> None:
        reported = decoded(report) if report is not None else None
        if not isinstance(reported, dict):
            return
        if self._endpoint.usage_in_parts:
            reported = self._parts = self._parts | reported
        usage = read_usage(reported)
        if usage is not None:
            self.usage = usage
            self._report = report

    def _pass_behind_final(self, event: bytes) -> bytes:
        """Events without a choice keep their place: they wait while the final chunk is held."""
        if not self._final.is_held:
            return event
        self._final.follow(event)
        return self._final.release(self._report) if self._final.is_long else b""


class _Template:
    """What the next chunk of content looks like, learned from one: all of it but its text."""

    def __init__(self) -> None:
        self._opening = self._closing = b""

    def fits(self, data: bytes) -> bool:
        """Whether this differs from what was learned in a text without quotes alone: it has nothing new."""
        opening = self._opening
        return (
            bool(opening)
            and data.startswith(opening)
            and data.endswith(self._closing)
            and data.find(b'"', len(opening), -len(self._closing)) < 0
        )

    def learn(self, event: bytes) -> None:
        begin = event.find(b'content":"') + 10
        end = event.find(b'"', begin)
        self._opening, self._closing = (event[:begin], event[end:]) if 10 <= begin < end else (b"", b"")

    def forget(self) -> None:
        """Something else came: look at what follows."""
        self._opening = b""


class _FinalChunk:
    """The chunk that ends a choice, held until it is known whether the usage belongs into it, and what came after."""

    def __init__(self) -> None:
        self._event: bytes | None = None
        self._after = bytearray()

    @property
    def is_held(self) -> bool:
        return self._event is not None

    @property
    def is_long(self) -> bool:
        return len(self._after) > HELD_MAX

    def hold(self, event: bytes) -> None:
        self._event = event

    def follow(self, event: bytes) -> None:
        self._after += event

    def release(self, report: msgspec.Raw | None) -> bytes:
        """What is held, if anything: with the usage in it, if there is a report for it."""
        event = self._event
        if event is None:
            return b""
        self._event, after = None, bytes(self._after)
        self._after.clear()
        return (event if report is None else _with_usage(event, report)) + after


class _LongEvent:
    """An event that is too long to be held: where it ends, and the usage at its end."""

    def __init__(self) -> None:
        self._tail = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether the client has the beginning of an event whose end has not come."""
        return bool(self._tail)

    @property
    def ends_object(self) -> bool:
        return self._tail.rstrip().endswith(b"}")

    def begin(self, data: bytes) -> None:
        self._tail += data

    def take(self, data: bytes) -> tuple[int, bool]:
        """How many of these bytes belong to the event, and whether it ends with them."""
        # The blank line may have begun in what was passed on already.
        overlap = bytes(self._tail[-3:])
        events = EventSplitter().feed(b"x" + overlap + data)
        end = len(events[0]) - 1 - len(overlap) if events else len(data)
        self._tail += data[:end]
        del self._tail[:-TAIL]
        return end, bool(events)

    def end(self) -> bytes:
        """It is over: its last bytes."""
        tail = bytes(self._tail)
        self._tail.clear()
        return tail


class PlainTally:
    """One answer that is not a stream: a JSON body, of which the beginning and the end are kept. What has
    `failed` has no text; and no usage either, where its status said so from the beginning."""

    events = 0

    def __init__(self, endpoint: Endpoint, *, failed: bool = False) -> None:
        self.fault = Fault.UNKNOWN if failed else None
        self._refused = failed
        self._endpoint = endpoint
        self._kept = bytearray()
        self._chunk: JsonMembers | None = None
        self._bytes = 0

    @property
    def failed(self) -> bool:
        return self.fault is not None

    @property
    def text_bytes(self) -> int:
        return 0 if self.failed else self._bytes

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        self._kept += data
        if len(self._kept) > KEPT_MAX:
            del self._kept[TAIL:-TAIL]

    def close(self) -> None:
        """The answer is whole. Some servers report an error with status 200: as JSON, or in place of it."""
        if self._is_kept:
            chunk = self._chunk = members_of(bytes(self._kept))
            if chunk is not None:
                self.fault = self.fault or reported_fault(chunk)
            elif self._endpoint.cap_members:
                self.fault = self.fault or Fault.UNKNOWN

    @property
    def usage(self) -> Usage | None:
        """What the body reports; to be read once it is whole."""
        if self._refused:
            return None
        if self._is_kept:
            chunk = self._chunk or members_of(bytes(self._kept))
            report = find_usage(chunk, self._endpoint.usage_at) if chunk else None
        else:
            report = usage_in_tail(bytes(self._kept[TAIL:])) or usage_in_tail(bytes(self._kept[:TAIL]))
        return read_usage(decoded(report) or {}) if report is not None else None

    @property
    def _is_kept(self) -> bool:
        return len(self._kept) == self._bytes


def _with_usage(event: bytes, report: msgspec.Raw) -> bytes:
    try:
        members = read_json_spans(data_of(event) or b"")
    except BodyUnreadable:
        return event  # What is not one plain object is better left as it is.
    return with_data(event, members.changed({"usage": bytes(report)}))
