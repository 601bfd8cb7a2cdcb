"""How long the sound was that an answer transcribes, where the answer does not say it: an estimate.

The best sign is where the last piece of the transcript ends: the last cue of SRT and WebVTT
(https://www.w3.org/TR/webvtt1/#webvtt-timings), or the last segment or word in JSON and in events. It lacks the silence
behind it. A bare text has none, and is taken to be spoken at a usual speed. Without a text, as of music or of silence,
the size of what was sent is all there is to go by. Lengths are whole seconds, begun ones too, and never less than one.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.core.json_object import Path
from gateway.core.text_weight import weight_of, weight_of_string
from gateway.core.upstream_json import object_of
from gateway.core.usage_report import Members, milliseconds, value_at

SPOKEN_PER_SECOND = 15
"""Plain characters (text_weight.py) that are spoken in a second: about 150 words of English a minute."""

BYTES_PER_SECOND = 16_000
"""Of sound as it is sent: 128 kbit a second, as MP3 commonly has."""

_END_PATHS: tuple[Path, ...] = (("end",), ("segments", "*", "end"), ("words", "*", "end"))
"""Where an event or an answer in JSON says when a piece of the transcript ends, in seconds."""

_LONGEST_MS = 1_000 * 3_600 * 1_000
"""A thousand hours: what ends later is no time of a recording."""

_CUE_END = re.compile(rb"-->[ \t]*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})(?:[.,](\d{1,3}))?")
_JSON_END = re.compile(rb'"end"[ \t]*:[ \t]*"?(\d{1,7}(?:\.\d{1,12})?)')
"""The same in JSON that is too long to be decoded."""
_AGAIN_BYTES = 64
"""Of a text that comes in pieces, what is looked at once more with the next one: longer than a time and its name. The
beginning of a time is never later than the whole."""


class TranscriptLength:
    """What one answer shows of the length of its sound."""

    def __init__(self) -> None:
        self._end_ms = 0
        self._spoken = 0
        self._whole_text = 0
        """The weight of the longest text that is a whole transcript, rather than a piece of one."""
        self._before = b""

    @property
    def shown_ms(self) -> int:
        """By what the answer has; 0 where it has neither times nor text."""
        spoken = max(self._spoken, self._whole_text) * 1_000 // SPOKEN_PER_SECOND
        return _in_seconds(self._end_ms or spoken)

    def take_text(self, piece: bytes) -> None:
        """A piece of what is no JSON, or too long to be decoded."""
        self._spoken += weight_of(piece.strip())
        text = self._before + piece
        for hours, minutes, seconds, fraction in _CUE_END.findall(text):
            whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
            self._take_end(whole * 1_000 + int(fraction.ljust(3, b"0")))
        for end in _JSON_END.findall(text):
            self._take_end(milliseconds(end.decode()))
        self._before = text[-_AGAIN_BYTES:]

    def take_event(self, data: bytes) -> None:
        """The data of an event."""
        event = object_of(data)
        if event is not None:
            self.take_members(event)

    def take_members(self, members: Members) -> None:
        """An answer in JSON, an event, or those of its members that have been picked out."""
        for path in _END_PATHS:
            self._take_end(milliseconds(value_at(members, path)))
        self._whole_text = max(self._whole_text, _weight(members.get("text")))
        delta = members.get("delta")
        # vLLM streams transcripts as chunks of a chat do (https://docs.vllm.ai/en/latest/serving/openai_compatible_server).
        self._spoken += _weight(delta if delta is not None else value_at(members, ("choices", "*", "delta", "content")))

    def _take_end(self, end_ms: int | None) -> None:
        if end_ms is not None and self._end_ms < end_ms <= _LONGEST_MS:
            self._end_ms = end_ms


def sent_ms(size: int) -> int:
    """The length of so many bytes of sound."""
    return max(1, -(-size // BYTES_PER_SECOND)) * 1_000


def _in_seconds(length_ms: int) -> int:
    return -(-length_ms // 1_000) * 1_000


def _weight(text: Any) -> int:
    return weight_of_string(text) if isinstance(text, str) else 0
