"""What an answer is, by its first bytes, whatever its content type says.

Servers stream under `text/plain` or no type at all, and send one JSON object under `text/event-stream`.
"""

from __future__ import annotations

import re
from enum import Enum

_BEFORE = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+")
_LINES = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST = max(map(len, _LINES))
BLANK_MAX = 4096
"""Bytes of blank at an answer's beginning that are waited for to end."""


class BodyKind(Enum):
    EVENTS = 1
    JSON = 2
    OTHER = 3


def kind_of(beginning: bytes) -> BodyKind | None:
    """The kind of a body that begins so; None while that cannot be told."""
    blank = _BEFORE.match(beginning)
    begin = blank.end() if blank else 0
    first = beginning[begin : begin + _LONGEST]
    if first.startswith((b"{", b"[")):
        return BodyKind.JSON
    if first.startswith(_LINES):
        return BodyKind.EVENTS
    may_become_events = any(line.startswith(first) for line in _LINES) or beginning in (b"\xef", b"\xef\xbb")
    return None if may_become_events and len(beginning) < BLANK_MAX else BodyKind.OTHER
