"""A form with files (multipart/form-data: RFC 7578, RFC 2046) as it passes: where the fields are that are read.

A field that comes twice is refused wherever it is, and so is what two parsers could take
differently: else a client could be metered for one model and served another.
"""

from __future__ import annotations

import re
from collections.abc import Container

import msgspec

from gateway.core.errors import FormUnreadable
from gateway.core.json_spans import JsonSpans
from gateway.core.request import BodyTail

HEAD_MAX = 8 * 1024
"""Bytes of one part's head, which names a field and a file."""

_LINE_END = b"\r\n"
_PARAMETER = r'[ \t]*;[ \t]*([\w-]+\*?)=("(?:[^"]*[^"\\])?"|[^\s";,\\]+)'
"""A quoted value must not end in a backslash: some parsers see the quote after it, others do not."""
_PARAMETERS = re.compile(_PARAMETER, re.ASCII)
_VALUE = re.compile(rf"([\w/-]+)((?:{_PARAMETER})*)[ \t]*", re.ASCII)
_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)
_HEADER = re.compile(r"([\w-]+):[ \t]*([^\r\n\0]*)", re.ASCII)
_NAME = re.compile(r"[\w.\[\]-]+", re.ASCII)
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")


class FormSpans(JsonSpans, frozen=True):
    """The fields found in a form's beginning, as `JsonSpans` are those of an object: values are plain text."""

    def text(self, name: str) -> str:
        """Raises FormUnreadable."""
        try:
            return (self.value(name) or b"").decode()
        except UnicodeDecodeError:
            raise FormUnreadable(f"The form's field {name!r} is not valid UTF-8.") from None

    def written(self, text: str) -> bytes:
        return text.encode()


class Form(msgspec.Struct, frozen=True):
    """A form whose beginning has been read. `rest` is None where nothing follows."""

    fields: FormSpans
    rest: BodyTail | None


class FormReader:
    """Takes a form in pieces, however it is cut; `spans` gives begin and end of each wanted field's value,
    once it is whole. Both raise FormUnreadable."""

    def __init__(self, content_type: str, wanted: Container[str]) -> None:
        self.spans: dict[str, tuple[int, int]] = {}
        self._wanted = wanted
        self._dashes = b"--" + _boundary(content_type)
        # Each delimiter begins with the end of a line, which the first one has not; so it is given one.
        self._held = _LINE_END
        self._at = -len(_LINE_END)
        self._searched = 0
        self._seen: set[str] = set()
        self._field: str | None = None
        self._begin: int | None = None
        self._in_head = self._over = False

    def feed(self, data: bytes) -> None:
        self._held += data
        while self._read_head() if self._in_head else self._pass_content():
            continue

    def _pass_content(self) -> bool:
        """Go on to the end of the next delimiter, if it is here."""
        held, size = self._held, len(self._dashes)
        place = held.find(self._dashes, self._searched)
        if self._begin is None and place != len(_LINE_END) and len(held) >= len(_LINE_END) + size:
            raise FormUnreadable("The form does not begin with the boundary that its content-type names.")
        if place < 0:
            self._drop(max(0, len(held) - size - 1))
            return False
        if held[place - 1 : place] not in (b"\r", b"\n"):
            self._searched = place + 1
            return True
        behind = held[place + size : place + size + 2]
        if len(behind) < 2:
            return False
        if self._over or held[place - 2 : place] != _LINE_END or behind not in (_LINE_END, b"--"):
            raise FormUnreadable("The form's boundary also occurs inside a part: choose another one.")
        self._end_part(self._at + place - len(_LINE_END))
        self._drop(place + size)
        self._over, self._in_head = behind == b"--", behind == _LINE_END
        return True

    def _end_part(self, end: int) -> None:
        if self._begin is not None and end < self._begin:
            raise FormUnreadable("A part of the form ends before it begins.")
        if self._field is not None and self._begin is not None:
            self.spans[self._field] = (self._begin, end)
        self._field = None

    def _read_head(self) -> bool:
        """Read the head of a part, if it is here whole."""
        end = self._held.find(_LINE_END * 2)
        if end < 0 and len(self._held) <= HEAD_MAX:
            return False
        if not 0 <= end <= HEAD_MAX:
            raise FormUnreadable(f"The head of a part of the form is longer than {HEAD_MAX:,} bytes.")
        name, plain = _named(self._held[len(_LINE_END) : end])
        if name in self._wanted:
            if not plain or name in self._seen:
                raise FormUnreadable(f"Send the form's field {name!r} once, as plain text.")
            self._seen.add(name)
            self._field = name
        # The end of the head's last line stays, since a delimiter may follow at once.
        self._drop(end + len(_LINE_END))
        self._begin = self._at + len(_LINE_END)
        self._in_head = False
        return True

    def _drop(self, size: int) -> None:
        self._held = self._held[size:]
        self._at += size
        self._searched = 0


def is_form(content_type: str) -> bool:
    return content_type.lower().startswith("multipart/")


def model_part(content_type: str, model: str) -> bytes:
    """A part that names the model, to be put in front of a form that does not. Raises FormUnreadable."""
    head = b'content-disposition: form-data; name="model"'
    return b"--%b\r\n%b\r\n\r\n%b\r\n" % (_boundary(content_type), head, model.encode())


def _boundary(content_type: str) -> bytes:
    """The line between the parts. Raises FormUnreadable."""
    kind, parameters = _parsed(content_type)
    boundary = parameters.get("boundary", "")
    if kind.lower() != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
        raise FormUnreadable("A form's content-type must read 'multipart/form-data; boundary=...', with one boundary.")
    return boundary.encode()


def _named(head: bytes) -> tuple[str, bool]:
    """A part's name, and whether it is plain text. Raises FormUnreadable."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in headers:
            raise FormUnreadable("A part of the form has a head that is not as RFC 7578 has it.")
        headers[found[1].lower()] = found[2]
    kind, parameters = _parsed(headers.get("content-disposition", ""))
    name = parameters.get("name", "")
    if kind.lower() != "form-data" or not _NAME.fullmatch(name):
        raise FormUnreadable("Each part of a form needs a 'content-disposition: form-data; name=...' of plain letters.")
    encoding = headers.get("content-transfer-encoding", "").strip().lower()
    is_file = bool(parameters.keys() & {"filename", "filename*", "name*"})
    return name, not is_file and encoding in _PLAIN_ENCODINGS


def _parsed(value: str) -> tuple[str, dict[str, str]]:
    """A header's value and its parameters, names in lower case; ("", {}) for what can be read in two ways."""
    found = _VALUE.fullmatch(value)
    if found is None:
        return "", {}
    named = [(name.lower(), text.strip('"')) for name, text in _PARAMETERS.findall(found[2])]
    parameters = dict(named)
    return (found[1], parameters) if len(parameters) == len(named) else ("", {})
