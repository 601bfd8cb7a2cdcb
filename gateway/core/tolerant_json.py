"""Picks members out of JSON text as it comes, also out of text that a strict parser refuses.

A `JsonScanner` takes bytes in pieces. For each object at the top (or in an array at the top) it gives what the object
has at the wanted paths. Nothing else is decoded or kept, so memory stays small whatever the text's length is. A string
is one token, so that nothing inside a string is ever taken for a member. The time is linear in the text.

It reads what servers really send: byte order marks, lone surrogates, control characters in strings, NaN and infinities,
comments, trailing commas, a missing tail. It raises nothing and leaves out what it cannot understand. Text that begins
with anything else than an object, an array, or comments in front of one is not JSON: nothing in it is read, since it
may be a model's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

Wanted = Mapping[str, "Wanted | None"]
"""The wanted members by name, `*` for the elements of an array; None wants a whole value."""

TOKEN_MAX = 4096
"""Bytes of one token that is kept; longer strings and numbers have no value here."""
DEPTH_MAX = 64
VALUES_MAX = 10_000
"""Depth and number of the values that are kept of one object. What is beyond is left out."""

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_COMMENT = rb"//[^\n]*+\n|\#[^\n]*+\n|/\*(?:[^*]++|\*(?!/))*+\*/"
_TOKEN = re.compile(
    rb"(?P<blank>[\s:]++)|(?P<string>%b)|(?P<mark>[{}\[\],])|(?P<comment>%b)"
    rb'|(?P<literal>[^\s"{}\[\],:/\#]++|/(?=[^/*]))' % (_STRING, _COMMENT),
    re.DOTALL,
)
# A bound on what is looked at together: each of many short values that are skipped would cost all the rest.
_SKIPPED = re.compile(
    rb'(?P<plain>[^"/\#]{1,512}+|/(?=[^/*]))|(?P<string>%b)|(?P<comment>%b)' % (_STRING, _COMMENT), re.DOTALL
)
_BEFORE = re.compile(rb"(?P<blank>[\s\xef\xbb\xbf]++)|(?P<mark>[{\[])|(?P<comment>:[^\n]*+\n|%b)" % _COMMENT, re.DOTALL)
_COMMENT_BEGINNINGS = (b":", b"#", b"/")
_MARK = re.compile(rb"[{}\[\]]")
_STRING_BODY = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_INTEGER = re.compile(rb"-?[0-9]{1,40}\Z")
_NUMBER = re.compile(rb"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,4})?\Z")
_WORDS: dict[bytes, bool | None] = {b"true": True, b"false": False, b"null": None}


def wanted_members(paths: Iterable[tuple[str, ...]]) -> Wanted:
    """Paths as a tree. A path wants the whole value at its end; one that ends in "" wants only that a
    container is there (its elements, empty, where it ends in `*` and "")."""
    tree: dict[str, Any] = {}
    for path in sorted(paths, key=len, reverse=True):
        node = tree
        for name in path[:-1]:
            below = node.setdefault(name, {})
            node = below if below is not None else {}
        if path:
            # A shorter path wants all that the longer ones do, except for the whole object itself.
            node[path[-1]] = None
    return tree


class _Frame:
    """One open object or array whose members are looked at."""

    __slots__ = ("container", "name", "wanted")

    def __init__(self, container: dict[str, Any] | list[Any], wanted: Wanted | None) -> None:
        self.container = container
        self.wanted = wanted
        self.name: str | None = None

    def wants(self) -> bool:
        """Whether the next value is wanted, wholly or in part."""
        if isinstance(self.container, dict) and self.name is None:
            return False
        return self.wanted is None or self._member in self.wanted

    def below(self) -> Wanted | None:
        return None if self.wanted is None else self.wanted[self._member]

    def put(self, value: Any) -> None:
        if isinstance(self.container, list):
            self.container.append(value)
        elif self.name is not None:
            self.container.pop(self.name, None)  # The last of equal names counts, and is the last member.
            self.container[self.name] = value

    @property
    def _member(self) -> str:
        return "*" if isinstance(self.container, list) or self.name is None else self.name


class JsonScanner:
    """JSON text in, in pieces; `on_object` gets each object at the top when it ends."""

    def __init__(self, wanted: Wanted, on_object: Callable[[dict[str, Any]], None]) -> None:
        self._wanted = wanted
        self._on_object = on_object
        self._frames: list[_Frame] = []
        self._skipped = 0
        self._values = 0
        self._carry = b""
        self._discarding = b""
        self._is_json = True

    def feed(self, data: bytes) -> None:
        self._scan(self._carry + data, ended=False)

    def close(self) -> None:
        """The text has ended. Of an object whose end is missing the wanted values that are whole count."""
        self._scan(self._carry, ended=True)
        self._drop_unfinished()
        for frame in self._frames[:2]:
            if isinstance(frame.container, dict):
                self._on_object(frame.container)
                break
        self._frames.clear()

    def _drop_unfinished(self) -> None:
        for parent, frame in pairwise(self._frames):
            if frame.wanted is None:
                if isinstance(parent.container, list):
                    parent.container.pop()
                else:
                    parent.container.popitem()
                return

    def _scan(self, text: bytes, *, ended: bool) -> None:
        self._carry = b""
        position, end = 0, len(text)
        while position < end and self._is_json:
            if self._discarding:
                position = self._discard(text, position)
                continue
            found = self._next(text, position)
            cut = found is None or (found.lastgroup == "literal" and found.end() == end)
            if found is None and not self._can_begin(text, position):
                self._is_json = False
            elif cut and not ended and end - position <= TOKEN_MAX:
                self._carry = text[position:]
                return
            elif found is None:
                # A string or a comment that is too long to be kept, or whose end is missing.
                self._discarding = text[position : position + 2]
                position += 2 if self._discarding == b"/*" else 1
            elif found.lastgroup == "plain":
                position += self._skip(found[0])
            else:
                if not cut:  # A number at the text's end may have lost its last digits.
                    self._take(found.lastgroup, found[0])
                position = found.end()

    def _next(self, text: bytes, position: int) -> re.Match[bytes] | None:
        pattern = _SKIPPED if self._skipped else _TOKEN if self._frames else _BEFORE
        return pattern.match(text, position)

    def _can_begin(self, text: bytes, position: int) -> bool:
        """Whether a text that is no token so far may become one: in front of an object, only a comment may."""
        return bool(self._frames) or text.startswith(_COMMENT_BEGINNINGS, position)

    def _discard(self, text: bytes, position: int) -> int:
        """Pass over the rest of a string or comment; give where it ends."""
        if self._discarding.startswith(b'"'):
            found = _STRING_BODY.match(text, position)
            end = found.end() if found else len(text)
            if text[end : end + 1] == b'"':
                self._discarding = b""
                self._on_string(None)
                return end + 1
            self._carry = text[end:]  # Nothing, or a backslash whose character is still to come.
            return len(text)
        mark = b"*/" if self._discarding == b"/*" else b"\n"
        end = text.find(mark, position)
        if end >= 0:
            self._discarding = b""
            return end + len(mark)
        self._carry = b"*" if mark == b"*/" and text.endswith(b"*") else b""
        return len(text)

    def _skip(self, text: bytes) -> int:
        """Pass over text without strings in an unwanted value, up to its end at most; give how much."""
        closing = text.count(b"}") + text.count(b"]")
        if closing < self._skipped:
            self._skipped += text.count(b"{") + text.count(b"[") - closing
            return len(text)
        for mark in _MARK.finditer(text):
            self._skipped += 1 if mark[0] in b"{[" else -1
            if not self._skipped:
                return mark.end()
        return len(text)

    def _take(self, kind: str | None, token: bytes) -> None:
        if kind == "mark":
            self._on_mark(token)
        elif kind == "string":
            self._on_string(token)
        elif kind == "literal":
            self._on_value(token)

    def _on_mark(self, mark: bytes) -> None:
        if mark in b"{[":
            self._open(mark)
        elif mark == b",":
            if self._frames:
                self._frames[-1].name = None
        elif self._frames:
            self._close()

    def _open(self, mark: bytes) -> None:
        top = self._frames[-1] if self._frames else None
        container: dict[str, Any] | list[Any] = {} if mark == b"{" else []
        if top is None:
            self._values = 0
            self._frames.append(_Frame(container, self._wanted if mark == b"{" else {"*": self._wanted}))
        elif top.wants() and len(self._frames) < DEPTH_MAX and self._values < VALUES_MAX:
            below = top.below()
            if len(self._frames) == 1 and isinstance(top.container, list):
                self._values = 0  # An element of the array at the top is an object by itself.
            else:
                self._values += 1
                top.put(container)
            top.name = None
            self._frames.append(_Frame(container, below))
        else:
            top.name = None
            self._skipped = 1

    def _close(self) -> None:
        closed = self._frames.pop().container
        at_top = not self._frames or (len(self._frames) == 1 and isinstance(self._frames[0].container, list))
        if at_top and isinstance(closed, dict):
            self._on_object(closed)

    def _on_string(self, token: bytes | None) -> None:
        """One string; None for one too long to be kept."""
        frame = self._frames[-1] if self._frames and not self._skipped else None
        if frame and isinstance(frame.container, dict) and frame.name is None:
            frame.name = _text(token) if token is not None else ""
        else:
            self._on_value(token)

    def _on_value(self, token: bytes | None) -> None:
        if self._skipped or not self._frames:
            return
        frame = self._frames[-1]
        if frame.wants() and self._values < VALUES_MAX:
            whole = frame.below() is None
            if whole or isinstance(frame.container, list):
                self._values += 1
                frame.put(_value(token) if whole else None)
        frame.name = None


def scan(text: bytes, wanted: Wanted) -> list[dict[str, Any]]:
    """The wanted members of every object at the top of a whole text."""
    found: list[dict[str, Any]] = []
    scanner = JsonScanner(wanted, found.append)
    scanner.feed(text)
    scanner.close()
    return found


def _value(token: bytes | None) -> Any:
    if token is None or token.startswith(b'"'):
        return _text(token) if token else None
    if _INTEGER.match(token):
        return int(token)
    if _NUMBER.match(token):
        return float(token)
    return _WORDS.get(token)


def _text(token: bytes) -> str:
    if b"\\" not in token:
        return token[1:-1].decode(errors="replace")
    try:
        return msgspec.json.decode(token, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        return str(json.loads(token.decode(errors="replace"), strict=False))
    except ValueError:
        return token[1:-1].decode(errors="replace")
