"""The tally watches an answer while it is relayed, and knows what it used and what of it was delivered.

A stream's bytes go in and the bytes for the client come out: the same bytes in the same call, with one exception.
The gateway always asks the upstream for usage. For a client that did not (`merge`), the chunk with the usage is
dropped, and the usage is put into the last chunk that has a choice. For this the chunk that ends a choice is held
until it is known what follows. Where no such chunk is held at the end, because none says why it ends or another
chunk with a choice came behind it, the chunk with the usage is sent after all, with one empty choice in it.

What comes in is looked at no more closely than it must be, event by event, on the first of these levels that suffices:

1. An event that equals the one before except for its text is content (`ContentTemplate`). Its text is weighed.
2. A whole event in which, by its bytes, there is no usage, no error and no end of a choice or of the stream is content.
   Its text is weighed, and the template is learned from it. A run of comments is passed by as one.
3. Anything else goes through the `EventSplitter`. An event that by its bytes is content is weighed and passes.
4. An event that may have usage, an error or an end in it is decoded.

A piece may end inside an event; then the rest is held until the event is whole, so that a broken stream leaves the
client whole events only. An event longer than HELD_MAX is passed on as it comes (`LongEvent`), and what it reports is
picked out of it meanwhile.

States of a stream:

    at ease ──an event is cut──► holding a part ──its end──► at ease
    at ease ──a choice ends (merge)──► holding the final chunk (`FinalChunk`) ──usage, a choice or the end──► at ease
    holding a part ──longer than HELD_MAX──► in a long event ──its end──► at ease
    any, with a budget ──it is used up──► stopped: the ending is written, and nothing more is passed

At ease, levels 1 and 2 apply, in every other state and with a budget 3 and 4.

Usage is read by `UsageReader`: reported is what the API's own places say, whatever else is in the answer. What was
delivered is weighed from the decoded texts, and counts where the answer does not report its output.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.core.body_kind import BodyKind, kind_of
from gateway.core.content_template import BACKSLASH, QUOTE, ContentTemplate
from gateway.core.endpoints import Endpoint, StreamFormat
from gateway.core.estimate import streamed_tokens
from gateway.core.final_chunk import FinalChunk
from gateway.core.long_event import LongEvent
from gateway.core.output_budget import OutputBudget
from gateway.core.refusals import FAULT_PATHS, Fault
from gateway.core.sse import EventSplitter, data_of, type_of
from gateway.core.stream_format import event_weight, foreign_event_weight, only_opens
from gateway.core.text_weight import weight_of, weight_of_json
from gateway.core.tolerant_json import JsonScanner
from gateway.core.upstream_json import (
    Nullable,
    ends_choice,
    fault_of_body,
    has_choice,
    object_of,
    reported_fault,
)
from gateway.core.usage import Usage
from gateway.core.usage_reading import UsageReader, report_in, wanted_of
from gateway.core.usage_report import Members, value_at

HELD_MAX = 64 * 1024
"""Bytes of one unfinished event that are held back, so that a cut leaves whole events only. What is
longer is passed on as it comes."""

_DONE = b"[DONE]"
_TIERS = (b'"service_tier":"', b'"service_tier": "')
"""In front of the name of a tier. Many servers write it into every chunk, some into the first alone."""
_COMMENTS = re.compile(rb"(?::[^\r\n]*+\n\n)++")
_USAGE = Nullable("usage")
_FINISH_REASON = Nullable("finish_reason")


class StreamTally:
    """One event stream. `merge` says that the client did not ask for usage. With a `budget` the stream may end before
    its upstream ends it: `stopped` says so. `ended` says that the API's last event was passed on."""

    __slots__ = (
        "_alike_events",
        "_budget",
        "_delivered_before",
        "_endpoint",
        "_events",
        "_final",
        "_foreign_events",
        "_foreign_weight",
        "_long",
        "_long_reports",
        "_marks",
        "_merge",
        "_openings",
        "_reader",
        "_shape",
        "_splitter",
        "_stopped_usage",
        "_template",
        "_text_events",
        "_weight",
        "ended",
        "fault",
        "stopped",
    )

    def __init__(self, endpoint: Endpoint, *, merge: bool, budget: OutputBudget | None = None) -> None:
        self.stopped = self.ended = False
        self.fault: Fault | None = None
        """Whose fault the failure is that the upstream reported first."""

        self._endpoint = endpoint
        self._shape = endpoint.stream_format
        self._marks = _marks_of(endpoint)
        if endpoint.asks_with_stream_options:
            self._marks = (*_TIERS, *self._marks)
        self._merge = merge
        self._budget = budget
        self._splitter = EventSplitter()
        self._template = ContentTemplate(endpoint.stream_format)
        self._final = FinalChunk(endpoint.stream_format)
        self._long: LongEvent | None = None
        self._long_reports = False
        self._reader = UsageReader(endpoint.usage)
        self._stopped_usage: Usage | None = None
        self._events = self._text_events = self._alike_events = self._weight = self._delivered_before = 0
        self._foreign_events = self._foreign_weight = 0
        self._openings = 0
        """Events that begin the answer, and have no part of it."""

    @property
    def failed(self) -> bool:
        return self.fault is not None

    @property
    def events(self) -> int:
        """How many events with data were passed on."""
        return self._events + self._alike_events

    @property
    def usage(self) -> Usage | None:
        """What the upstream has reported so far, None if nothing."""
        return self._stopped_usage or (self._reader.usage if self._reader.reported else None)

    @property
    def counted(self) -> Usage:
        """The units that were counted in the answer, where it reports no usage."""
        return self._reader.usage

    @property
    def transcribed_ms(self) -> int:
        """How long the sound was by what the answer shows of it; 0 where it shows nothing."""
        return transcript.shown_ms if (transcript := self._reader.transcript) is not None else 0

    @property
    def object_id(self) -> str:
        """Under which the upstream keeps the answer; empty where it has not said so yet."""
        return self._reader.object_id

    def is_final(self) -> bool:
        """Whether the reported usage has the output."""
        return self._stopped_usage is not None or self._reader.final

    def tells_input(self) -> bool:
        return self._stopped_usage is not None or self._reader.tells_input

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come that a client could take for an answer. Where the upstream reports a failure, the
        opening of a stream is none."""
        openings = self._openings if self.fault is not None else 0
        return self.events == openings and not self._weight and self._long is None

    @property
    def delivered(self) -> int:
        """Tokens in the text that the client was given. A stream without any of the API's own is one of another API."""
        if self._foreign_weight and not self._weight:
            return streamed_tokens(self._foreign_events, self._foreign_weight)
        return streamed_tokens(self._text_events + self._alike_events, self._weight)

    @property
    def delivered_since(self) -> int:
        """Of these, those behind the last report."""
        return self.delivered - self._delivered_before if self._stopped_usage is None else 0

    @property
    def may_stop(self) -> bool:
        """Whether the stream may end before its upstream ends it."""
        return self._budget is not None

    @property
    def ends_whole(self) -> bool:
        """Whether the stream can end here. The blank line after its last event many a server leaves out;
        half an event says that the rest was lost, however orderly the connection was closed."""
        if self._long is not None:
            return self._long.ends_object
        data = data_of(self._splitter.rest)
        return data is None or data.strip() in (b"", _DONE) or object_of(data) is not None

    def is_between_events(self) -> bool:
        """Whether what was passed on so far ends between two events."""
        return self._long is None

    def feed(self, data: bytes) -> bytes:
        """Take in what the upstream sent; give what the client gets now."""
        template = self._template
        # Two calls in less than half the time of three slices, of which two are compared.
        text = data.removeprefix(template.opening).removesuffix(template.closing)
        if text and len(data) - len(text) == template.size and QUOTE not in text:
            # One event that is like the template, as most pieces are.
            self._alike_events += 1
            self._weight += len(text) if text.isascii() and BACKSLASH not in text else weight_of_json(text)
            return data
        end = self._pass_alike(data, 0)
        if end == len(data):
            return data
        if self._is_at_ease():
            end = self._pass_content(data, end)
            if end == len(data):
                return data
        passed = [data[:end]]
        while end < len(data):
            # One event, so that what follows it can be passed at ease again.
            begin, end = end, data.find(b"\n\n", end) + 2
            end = end if end >= 2 else len(data)
            passed.append(self._feed_events(data[begin:end]))
            if self._is_at_ease():
                if not self._final.is_shown:
                    self._template.resume()
                begin, end = end, self._pass_content(data, self._pass_alike(data, end))
                passed.append(data[begin:end])
        return b"".join(passed)

    def close(self) -> bytes:
        """The upstream's stream has ended as it should: give what was held back."""
        self._end_long()
        rest = self._splitter.release()
        last = self._on_event(rest) if rest else b""
        # Some servers answer with bare text, such as an error page, and status 200.
        if not (self.events or self.usage):
            self.fault = self.fault or Fault.UNKNOWN
        return last + self._final.end()

    def cut(self) -> bytes:
        """The stream broke: give whole events that were held back, and drop half a one."""
        self._splitter.release()
        return self._final.end()

    def _is_at_ease(self) -> bool:
        """Whether nothing is held and nothing must be looked at more closely."""
        return self._budget is None and not self._final.is_held and not self._splitter.held and self._long is None

    def _pass_alike(self, data: bytes, begin: int) -> int:
        """Weigh the events from here that are like the template except for their text, and so have nothing else that is
        new. Where the first other one begins."""
        texts = self._template.texts_of(data, begin)
        if not texts:
            return begin
        text, empty = b"".join(texts), texts.count(b"")
        self._events += empty
        self._alike_events += len(texts) - empty
        self._weight += len(text) if text.isascii() and BACKSLASH not in text else weight_of_json(text)
        return begin + len(text) + len(texts) * self._template.size

    def _pass_content(self, data: bytes, begin: int) -> int:
        """Weigh the whole events from here that are content, and pass by comments. Where the first other one begins."""
        while (blank := data.find(b"\n\n", begin)) >= 0:
            event = data[begin:blank]
            text = _one_line_of_data(event)
            if not text and (comments := _COMMENTS.match(data, begin)) is not None:
                begin = comments.end()
                continue
            if not text or not self._is_content(event):
                break
            self._count(text)
            self._follow_shown(text)
            # Not each time: where no chunk is like the one before, it would be for nothing.
            if self._events < 4 or self._events % 4 == 1:
                self._template.learn(data[begin : blank + 2])
            begin = self._pass_alike(data, blank + 2)
        return begin

    def _is_content(self, data: bytes) -> bool:
        """Whether these events, by their bytes alone, have no usage and no error, and end nothing."""
        for mark in self._marks:
            if data.partition(mark)[1]:  # As in redaction.py, less than `find` takes.
                return False
        return _USAGE.is_null(data) and (not self._merge or _FINISH_REASON.is_null(data))

    def _count(self, data: bytes) -> None:
        """Count one event that is passed on, and weigh its text."""
        self._events += 1
        if self._shape is not None:
            weight = event_weight(self._shape, data)
            self._weigh(weight)
            if not (weight or self._weight):
                self._count_without_text(self._shape, data)
        elif self._reader.transcript is not None:
            self._reader.transcript.take_event(data)

    def _count_without_text(self, shape: StreamFormat, data: bytes) -> None:
        """An event without text of the API's own, before any that has some."""
        if only_opens(shape, data):
            self._openings += 1
        elif foreign := foreign_event_weight(shape, data):
            self._foreign_events += 1
            self._foreign_weight += foreign

    def _follow_shown(self, data: bytes) -> None:
        """Usage that was shown before another choice came is not in the last chunk."""
        if self._final.is_shown and has_choice(object_of(data) or {}):
            self._final.is_shown = False

    def _weigh(self, weight: int) -> None:
        if weight:
            self._text_events += 1
            self._weight += weight

    def _feed_events(self, data: bytes) -> bytes:
        self._template.suspend()
        passed = [b""]
        if self._long is not None:
            data = self._pass_long(self._long, data, passed)
        passed += [self._on_event(event) for event in self._splitter.feed(data)]
        if self._splitter.held > HELD_MAX:
            begun = self._splitter.release()
            if not self.stopped:
                passed += [self._final.release(), begun]
                self._begin_long(begun)
        return b"".join(passed)

    def _begin_long(self, begun: bytes) -> None:
        kind = type_of(begun)
        self._long_reports = False

        def note(chunk: Members) -> None:
            self._long_reports |= self._note(chunk, kind, reported_fault(chunk))

        scanner = JsonScanner(wanted_of(self._endpoint.usage, FAULT_PATHS), note)
        self._long = LongEvent(begun, scanner, self._shape)
        self._weigh_long(self._long, begun)

    def _pass_long(self, event: LongEvent, data: bytes, passed: list[bytes]) -> bytes:
        """Pass on the rest of a long event; give what follows it."""
        end, is_over = event.take(data)
        passed.append(data[:end])
        self._weigh_long(event, data[:end])
        if is_over:
            self._end_long()
        return data[end:]

    def _weigh_long(self, event: LongEvent, piece: bytes) -> None:
        if event.is_text:
            self._weight += weight_of(piece)
        if self._long_reports:
            self._on_report()

    def _end_long(self) -> None:
        if self._long is not None:
            self._long.end()
            self._events += 1
            self._text_events += self._long.is_text
            if self._long_reports:
                self._on_report()
            self._long = None

    def _on_event(self, event: bytes) -> bytes:
        """What the client gets for one event: it, what was held before it, both or nothing."""
        if self.stopped:
            return b""
        data = data_of(event)
        if data is None:
            if kind_of(event) not in (BodyKind.EVENTS, None):
                self._weigh(weight_of(event))  # It is no event, and may be read all the same.
            return self._final.follow(event)
        if not self._final.is_held and self._is_content(event):
            self._count(data)
            self._follow_shown(data)
            return self._within_budget(event, data)
        if data.strip() == _DONE:
            self.ended = True
            return self._final.end() + event
        chunk = object_of(data)
        if chunk is None:
            return self._final.release() + self._on_other_event(event, data)
        return self._on_chunk(event, data, chunk)

    def _on_chunk(self, event: bytes, data: bytes, chunk: dict[str, Any]) -> bytes:
        """What the client gets for an event that was decoded."""
        if self._marks[0] is _TIERS[0] and isinstance(chunk.get("service_tier"), str):
            self._marks = self._marks[len(_TIERS) :]  # The next chunks that name it are content again.
        fault, chosen = reported_fault(chunk), has_choice(chunk)
        reports = self._note(chunk, type_of(event), fault)
        if fault is not None:
            return (self._final.pass_by() if chosen else self._final.end()) + event
        if not chosen and self._merge and reports:
            self._on_report()
            self._final.keep_usage(event)
            return b""
        self._count(data)
        if reports:
            self._on_report()
        if not chosen:
            return self._final.follow(self._within_budget(event, data))
        before = self._final.pass_by()
        passed = self._within_budget(event, data)
        if not self.stopped and self._merge:
            if chunk.get("usage") is not None:
                self._final.is_shown = True
            elif ends_choice(chunk):
                self._final.hold(event)
                return before
        return before + passed

    def _on_other_event(self, event: bytes, data: bytes) -> bytes:
        """The same for one whose data is not one object: several in an array, or what no strict parser reads."""
        self.fault = self.fault or fault_of_body(200, data)
        reports = self._reader.read(data, type_of(event))
        self._count(data)
        if reports:
            self._on_report()
        return event

    def _on_report(self) -> None:
        """What comes behind a report that has the output is not in it."""
        if self._reader.tells_output:
            self._delivered_before = self.delivered

    def _note(self, chunk: Members, kind: str, fault: Fault | None) -> bool:
        """Take in what a chunk says of the stream. Whether it reports usage."""
        self.fault = self.fault or fault
        self.ended = self.ended or _is_terminal(chunk, kind, self._endpoint)
        reports = self._reader.read_members(chunk, kind)
        if reports and self._merge:
            self._final.report = report_in(chunk, self._endpoint.usage)
        return reports

    def _within_budget(self, event: bytes, data: bytes) -> bytes:
        """The event, or the stream's ending in its place."""
        budget = self._budget
        if budget is None or budget.admits(data):
            return event
        self.stopped = True
        self._stopped_usage = budget.usage(self._reader.usage)
        return budget.ending(data, self._stopped_usage, merge=self._merge)


def _marks_of(endpoint: Endpoint) -> tuple[bytes, ...]:
    """What an event has in it that is more than content, except for `usage` itself."""
    names = {place.path[-1] if place.path else "eval_count" for place in endpoint.usage.places}
    places = names - {"usage", "billed_units"}
    usage = endpoint.usage
    events = (*endpoint.terminal_events, *sorted(usage.image_events | usage.unit_events))
    units = [items.path[-1] for items in usage.items if "*" in items.path]
    return (b'"error"', _DONE, *[name.encode() for name in (*sorted(places), *units, *events)])


def _is_terminal(chunk: Members, kind: str, endpoint: Endpoint) -> bool:
    if endpoint.terminal_member:
        return value_at(chunk, endpoint.terminal_member) is not None
    return chunk.get("type", kind) in endpoint.terminal_events


def _one_line_of_data(event: bytes) -> bytes:
    """The data of an event that has it in one line, the last, and its type before it at most; else nothing."""
    begin = 0 if event.startswith(b"data:") else event.find(b"\ndata:") + 1
    if event.find(b"\n", begin) >= 0 or not (event.startswith(b"event:") if begin else event.startswith(b"data:")):
        return b""
    return event[begin + 5 :]
