"""Tells from the first bytes of an answer what it is, whatever its content type says.

Servers send streams as `text/plain` or without a type, and single JSON objects as `text/event-stream`. Sound without a
header can begin with any byte, so one character is not enough: the next one has to fit, too.
"""

from __future__ import annotations

import re
from enum import Enum

_BEFORE = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+")
_NAMES = (b"data:", b"event:", b"id:", b"retry:")
_COMMENT = re.compile(rb":[ \t\r\nA-Za-z]")
_JSON = re.compile(rb"""\{[ \t\r\n]*+["'}/]|\[[ \t\r\n]*+["'\[\]{/0-9tfnNI-]""")
_JSON_BEGUN = re.compile(rb"[{\[][ \t\r\n]*+\Z")
BLANK_MAX = 4096
"""At most this many blank bytes at the beginning of an answer are waited through."""


class BodyKind(Enum):
    EVENTS = 1
    JSON = 2
    OTHER = 3


_IS_EVENTS, _IS_JSON, _IS_OTHER = BodyKind  # Slow to reach through the class in Python 3.11.


def kind_of(beginning: bytes) -> BodyKind | None:
    """The kind of a body with this beginning; None while that is not certain."""
    if beginning.startswith(b'{"'):
        return _IS_JSON  # As most; the search below says the same.
    blank = _BEFORE.match(beginning)
    begin = blank.end() if blank else 0
    if _JSON.match(beginning, begin):
        return _IS_JSON
    if beginning.startswith(_NAMES, begin) or _COMMENT.match(beginning, begin):
        return _IS_EVENTS
    return None if len(beginning) < BLANK_MAX and _may_become(beginning, begin) else _IS_OTHER


def _may_become(beginning: bytes, begin: int) -> bool:
    """Whether more bytes can make it JSON or events."""
    first = beginning[begin : begin + len(max(_NAMES, key=len))]
    if first == b":" or beginning in (b"\xef", b"\xef\xbb") or _JSON_BEGUN.match(beginning, begin):
        return True
    return any(name.startswith(first) for name in _NAMES)
