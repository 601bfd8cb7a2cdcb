"""The tally looks on while an answer is relayed, and knows what it used.

A stream's bytes go in and the bytes for the client come out: the same, but for the final usage of a
client that did not ask for it. Chunks of content are never decoded; only an event that may carry
usage, an error or the end of a choice is. Both tallies answer `usage`, `failed` and `text_bytes`.
"""

from __future__ import annotations

import msgspec

from gateway.core.endpoints import Endpoint
from gateway.core.report import (
    ends_choice,
    find_usage,
    is_empty_list,
    members_of,
    only_null,
    present,
    usage_in_tail,
)
from gateway.core.sse import EventSplitter, data_of, with_data
from gateway.core.stopping import Allowance, carries_token, ending
from gateway.core.usage import Usage, read_usage

HELD_MAX = 64 * 1024
"""Bytes of one unfinished event that are held back, so that a cut leaves whole events only. What is
longer is passed on as it comes."""

TAIL = 32 * 1024
"""Bytes of a long event or body that are kept, to find the usage at its end."""

_DONE = b"[DONE]"


class StreamTally:
    """One event stream. `merge` says that the client did not ask for usage: the usage chunk is dropped
    and its content put into the last chunk that ends a choice. With an `allowance`, the stream ends
    when that is used up: `stopped` tells."""

    def __init__(self, endpoint: Endpoint, *, merge: bool, allowance: Allowance | None = None) -> None:
        self.stopped = False
        self.usage: Usage | None = None
        self.failed = False
        self.done = False
        self.events = 0
        self._endpoint = endpoint
        self._merge = merge
        self._allowance = allowance
        self._tokens = 0
        self._splitter = EventSplitter()
        self._final: bytes | None = None
        self._report: msgspec.Raw | None = None
        self._long = bytearray()
        self._bytes = 0
        self._smallest = HELD_MAX

    @property
    def torn(self) -> bool:
        """Whether the client has the beginning of an event whose end has not come."""
        return bool(self._long)

    @property
    def text_bytes(self) -> int:
        """Bytes of the answer's text, taking the smallest event for the frame of all."""
        return max(0, self._bytes - self.events * self._smallest)

    def feed(self, data: bytes) -> bytes:
        """Take in what the upstream sent; give what the client gets now."""
        if (
            self._final is None
            and self._allowance is None
            and not self._splitter.held
            and not self._long
            and data.endswith(b"\n\n")
            and self._is_content(data)
        ):
            self._count(data, data.count(b"\n\n"))
            return data
        return self._feed_events(data)

    def close(self) -> bytes:
        """The upstream's stream has ended as it should: give what was held back."""
        rest = self._splitter.release()
        return (self._on_event(rest) if rest else b"") + self._release_final()

    def cut(self) -> bytes:
        """The stream broke: give whole events that were held back, and drop half a one."""
        self._splitter.release()
        return self._release_final()

    def _feed_events(self, data: bytes) -> bytes:
        passed = [b""]
        if self._long:
            data = self._pass_long(data, passed)
        passed += [self._on_event(event) for event in self._splitter.feed(data)]
        if self._splitter.held > HELD_MAX:
            passed.append(self._release_final())
            passed.append(self._splitter.release())
            self._long += passed[-1]
        return b"".join(passed)

    def _pass_long(self, data: bytes, passed: list[bytes]) -> bytes:
        """Pass on the rest of a long event; give what follows it."""
        # The blank line may have begun in what was passed on already.
        overlap = bytes(self._long[-3:])
        splitter = EventSplitter()
        events = splitter.feed(b"x" + overlap + data)
        end = len(events[0]) - 1 - len(overlap) if events else len(data)
        passed.append(data[:end])
        self._long += data[:end]
        del self._long[:-TAIL]
        if events:
            self._see_tail(bytes(self._long))
            self._long.clear()
            self.events += 1
        return data[end:]

    def _see_tail(self, tail: bytes) -> None:
        report = usage_in_tail(tail)
        if report is not None:
            self._take(report)

    def _is_content(self, data: bytes) -> bool:
        """Whether these events, by their bytes alone, have no usage, no error and end no choice."""
        return (
            b'"error"' not in data
            and _DONE not in data
            and only_null(data, b'"usage"')
            and (not self._merge or only_null(data, b'"finish_reason"'))
        )

    def _count(self, data: bytes, events: int) -> None:
        self.events += events
        self._bytes += len(data)
        if events:
            self._smallest = min(self._smallest, len(data) // events)

    def _on_event(self, event: bytes) -> bytes:
        """What the client gets for one event: it, what was held before it, both or nothing."""
        if self.stopped:
            return b""
        if self._is_content(event):
            if data_of(event) is None:
                return event
            self._count(event, 1)
            return self._release_final() + (event if self._allowance is None else self._within(self._allowance, event))
        return self._on_telling_event(event, data_of(event))

    def _within(self, allowance: Allowance, event: bytes) -> bytes:
        """The event, or the stream's ending in its place: an upstream that keeps to the cap that it was
        given ends by itself, with the usage that it knows best."""
        self._tokens += carries_token(event)
        if self._tokens <= allowance.output:
            return event
        self.stopped = True
        self.usage = allowance.usage(allowance.output)
        return ending(event, allowance.choices, self.usage, merge=self._merge)

    def _on_telling_event(self, event: bytes, data: bytes | None) -> bytes:
        chunk = members_of(data)
        if chunk is None:
            self.done = self.done or (data is not None and data.strip() == _DONE)
            return self._release_final() + event
        self.failed = self.failed or present(chunk, "error")
        report = find_usage(chunk, self._endpoint.usage_at)
        if report is not None:
            self._take(report)
        if self._merge and report is not None and is_empty_list(chunk, "choices"):
            return b""
        self._count(event, 1)
        before = self._release_final()
        if self._merge and ends_choice(chunk) and not present(chunk, "usage"):
            self._final = event
            return before
        return before + event

    def _take(self, report: msgspec.Raw) -> None:
        usage = read_usage(msgspec.json.decode(report))
        if usage is not None:
            self.usage = usage
            self._report = report

    def _release_final(self) -> bytes:
        event, self._final = self._final, None
        if event is None:
            return b""
        chunk = members_of(data_of(event))
        if chunk is None or self._report is None:
            return event
        return with_data(event, msgspec.json.encode({**chunk, "usage": self._report}))


class PlainTally:
    """One answer that is not a stream: a JSON body, of which the beginning and the end are kept."""

    events = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self.failed = False
        self._endpoint = endpoint
        self._head = bytearray()
        self._tail = bytearray()
        self._bytes = 0

    @property
    def text_bytes(self) -> int:
        return self._bytes

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes <= 4 * HELD_MAX:
            self._head += data
        else:
            self._tail += data
            del self._tail[:-TAIL]

    @property
    def usage(self) -> Usage | None:
        """What the body reports; to be asked once it is whole."""
        report: msgspec.Raw | None
        if self._tail:
            report = usage_in_tail(bytes(self._tail)) or usage_in_tail(bytes(self._head))
        else:
            chunk = members_of(bytes(self._head))
            report = find_usage(chunk, self._endpoint.usage_at) if chunk else None
        return read_usage(msgspec.json.decode(report)) if report is not None else None
