"""The tally of an answer that is not a stream: what it used, what of it was delivered, and whether it is an answer.

JSON of up to KEPT_MAX bytes is kept. When it is complete, its outline is decoded, which says what it used and whether
it failed; the rest is decoded only where it is weighed, as where usage is not reported, or failed. Of longer JSON, the
reports of usage are picked out as it passes. A stream that was not asked for is read event by event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.core.answer_outline import outline_of
from gateway.core.body_kind import BodyKind, kind_of
from gateway.core.endpoints import Endpoint, StreamFormat
from gateway.core.estimate import CHARACTERS_PER_TOKEN
from gateway.core.refusals import Fault, fault_of
from gateway.core.sse import EventSplitter, data_of, type_of
from gateway.core.stream_format import answer_weight, event_weight, foreign_weight
from gateway.core.text_weight import weight_of, weight_of_json
from gateway.core.tolerant_json import JsonScanner
from gateway.core.upstream_json import decoded, fault_of_body, object_of
from gateway.core.usage import Usage
from gateway.core.usage_reading import UsageReader

KEPT_MAX = 256 * 1024
"""Bytes of a plain answer that are kept, to be read when it is whole."""

_FRAME_OF_PLAIN_ANSWER = 400
"""Bytes of a plain answer that are not its text: ids, names, usage."""


class PlainTally:
    """One answer. `fault` says that its status or its body reports a failure, or that something is in its place that no
    API answers, such as a page of a proxy. The page is weighed as the text that it is: what was delivered is not free
    because it cannot be read. With `is_opaque` the bytes cannot be read at all."""

    __slots__ = (
        "_bytes",
        "_endpoint",
        "_is_json",
        "_is_opaque",
        "_is_read",
        "_kept",
        "_reader",
        "_refused",
        "_reports_failure",
        "_scanner",
        "_unweighed",
        "_weight",
        "fault",
    )

    ended = False
    delivered_since = 0

    def __init__(self, endpoint: Endpoint, *, fault: Fault | None = None, is_opaque: bool = False) -> None:
        self.fault = fault
        self._reports_failure = self._refused = fault is not None
        self._is_opaque = is_opaque
        self._endpoint = endpoint
        self._reader = UsageReader(endpoint.usage, is_answer=True)
        self._kept: list[bytes] = []
        self._scanner: JsonScanner | None = None
        self._bytes = self._weight = 0
        self._unweighed: Sequence[dict[str, Any]] | bytes = ()
        """The answers, or the text of the one whose outline was read, until their weight is asked for, which it is not
        where usage is reported."""
        self._is_read = False
        self._is_json = True

    @property
    def failed(self) -> bool:
        return self.fault is not None

    @property
    def usage(self) -> Usage | None:
        """What the answer reports, as far as it has come; None if nothing."""
        if not self._is_read:
            self._read()
        return self._reader.usage if self._reader.reported and not self._refused else None

    @property
    def counted(self) -> Usage:
        """The units that were counted in the answer, where it reports no usage."""
        self._read()
        return self._reader.usage

    @property
    def transcribed_ms(self) -> int:
        """How long the sound was by what the answer shows of it; 0 where it shows nothing."""
        self._read()
        return transcript.shown_ms if (transcript := self._reader.transcript) is not None else 0

    @property
    def object_id(self) -> str:
        """Under which the upstream keeps the answer; empty where it has not said so yet."""
        return self._reader.object_id

    def is_final(self) -> bool:
        return self._reader.final

    def tells_input(self) -> bool:
        return self._reader.tells_input

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come that a client could take for an answer."""
        return self._reports_failure or not self._bytes

    @property
    def delivered(self) -> int:
        """Tokens in the text of the answer."""
        self._read()
        return 0 if self._reports_failure else int(self._weighed() // CHARACTERS_PER_TOKEN)

    def feed(self, data: bytes) -> None:
        self._bytes = size = self._bytes + len(data)
        if self._is_opaque:
            return
        if size <= KEPT_MAX:
            self._kept.append(data)
        else:
            self._scan(data)

    def _scan(self, data: bytes) -> None:
        """Take a piece of an answer that is too long to be kept."""
        if self._scanner is None:
            self._scanner = self._reader.scanner()
            data = b"".join((*self._kept, data))
            self._kept.clear()
        self._scanner.feed(data)
        self._weight += weight_of(data)
        if self._reader.transcript is not None:
            self._reader.transcript.take_text(data)

    def close(self) -> None:
        """The answer is whole. Some servers report an error with status 200, or give something else in its place."""
        self._read()
        if not self._is_json and self._endpoint.estimated:
            self.fault = self.fault or Fault.UNKNOWN

    def _read(self) -> None:
        """Read what was kept, once: what comes later of an answer that was cut is of no interest."""
        if self._is_read:
            return
        self._is_read = True
        if self._is_opaque:
            # Of compressed text a byte is about a token.
            self._weight = int(self._bytes * CHARACTERS_PER_TOKEN)
        elif self._scanner is not None:
            self._scanner.close()
        else:
            body = b"".join(self._kept)
            outline = outline_of(self._endpoint.usage.name, body)
            if outline is None or self._reader.transcript is not None or fault_of(200, outline) is not None:
                self._read_whole(body)
            else:
                self._reader.read_members(outline)
                self._unweighed = body
            if self.fault is not None and not self._reports_failure:
                self._reports_failure = not self._weighed()

    def _read_whole(self, body: bytes) -> None:
        """Read an answer whose outline does not say all that is to be known of it."""
        value = decoded(body)
        self._unweighed = answers = [value] if type(value) is dict else self._answers_in(value, body)
        for answer in answers:
            if self.fault is None:
                self.fault = fault_of(200, answer)
            self._reader.read_members(answer)
            if self._reader.transcript is not None:
                self._reader.transcript.take_members(answer)
        if not answers:
            self._read_otherwise(body, is_value=value is not None)

    def _read_otherwise(self, body: bytes, *, is_value: bool) -> None:
        """What is no answer in JSON that can be read to its end. `is_value`: it is JSON of another kind."""
        kind = kind_of(body)
        if kind is BodyKind.EVENTS and (events := _events_in(body)):
            for each in events:
                self._read_event(*each)
            return
        self.fault = self.fault or fault_of_body(200, body)
        self._reader.read(body)
        if self._reader.transcript is not None:
            self._reader.transcript.take_text(body)
        # JSON that no parser reads to its end may still be an answer.
        is_cut = kind is BodyKind.JSON and not is_value
        self._is_json = self._reader.reported or is_cut
        self._reports_failure = kind is BodyKind.EVENTS and not self._is_json  # Comments alone are no answer.
        if self.fault is None:
            self._weight = _weight_of_cut(body) if is_cut else weight_of(body)

    def _weighed(self) -> int:
        shape, answers = self._endpoint.stream_format, self._unweighed
        self._unweighed = ()
        if answers and shape is not None:
            if isinstance(answers, bytes):
                answers = self._answers_of(answers)
            weigh = answer_weight if self.fault is not None else _delivered_weight
            self._weight += sum([weigh(shape, answer) for answer in answers])
        return self._weight

    def _answers_of(self, body: bytes) -> list[dict[str, Any]]:
        """The answer whose outline was read; none where no parser reads the rest, which is weighed as it is then."""
        answer = object_of(body)
        if answer is None:
            self._weight += _weight_of_cut(body)
            return []
        return [answer]

    def _answers_in(self, value: Any, body: bytes) -> list[dict[str, Any]]:
        """Those in a body with this value, which is no object. Gemini's API has several in an array, where a stream was
        not asked for as events; of one that is cut off, those that are whole."""
        if self._endpoint.stream_format is not StreamFormat.GEMINI:
            return []
        answers = decoded(body.rstrip(b", \r\n") + b"]") if value is None else value
        return answers if isinstance(answers, list) and all(isinstance(each, dict) for each in answers) else []

    def _read_event(self, kind: str, data: bytes) -> None:
        """An event of a stream that was not asked for, and is not called one."""
        chunk, shape = object_of(data), self._endpoint.stream_format
        if chunk is not None:
            self.fault = self.fault or fault_of(200, chunk)
            self._reader.read_members(chunk, kind)
            if self._reader.transcript is not None:
                self._reader.transcript.take_members(chunk)
            self._weight += event_weight(shape, data) if shape is not None else 0


def _weight_of_cut(body: bytes) -> int:
    """That of JSON which is cut, or which no parser reads to its end."""
    return max(0, weight_of_json(body) - _FRAME_OF_PLAIN_ANSWER)


def _delivered_weight(shape: StreamFormat, answer: dict[str, Any]) -> int:
    return answer_weight(shape, answer) or foreign_weight(shape, answer)


def _events_in(body: bytes) -> list[tuple[str, bytes]]:
    """The type and the data of each event that has data."""
    splitter = EventSplitter()
    events = [*splitter.feed(body), splitter.release()]
    return [(type_of(event), data) for event in events if (data := data_of(event)) is not None]
