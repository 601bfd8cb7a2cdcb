"""A form with files (multipart/form-data: RFC 7578, RFC 2046), read as it passes and written again.

Parsers of forms differ: in what ends a part, in which parameters of a head count, in how names are quoted, decoded and
nested. A client that knows the difference could be metered for one model and served another. So no byte of a form's
structure is passed on: the gateway writes the head of each part, and boundaries that the client cannot know. The
fields that are read come first, as plain text. Of the client's heads only the name, the file's name and the content
type are left. A form that cannot be written like this is refused, and so are names that some parsers take for one that
is read.
"""

from __future__ import annotations

import re
from collections.abc import Container
from enum import Enum, auto
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.core.errors import FormUnreadable
from gateway.core.json_spans import JsonSpans, folded
from gateway.core.request import BodyTail

HEAD_MAX = 8 * 1024
"""Bytes of one part's head, which names a field and a file."""

MOST_PARTS = 1_000
"""As many as Starlette and others take."""

FIELDS_MAX = 64 * 1024
"""Bytes of the fields that are read, which are held in memory."""

_LINE_END = b"\r\n"
_LINE_ENDS = re.compile(rb"(?:\r\n)*")
_PARAMETER = r'[ \t]*;[ \t]*([\w-]+\*?)=("(?:[^"]*[^"\\])?"|[^\s";,\\]+)'
"""A quoted value must not end in a backslash: some parsers see the quote after it, others do not."""
_PARAMETERS = re.compile(_PARAMETER, re.ASCII)
_VALUE = re.compile(rf"([\w.+/-]+)((?:{_PARAMETER})*)[ \t]*", re.ASCII)
_BOUNDARY = re.compile(r"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)
_HEADER = re.compile(r"([\w-]+):[ \t]*([^\r\n\0]*)", re.ASCII)
_NAME = re.compile(r"[A-Za-z][\w.\[\]-]*", re.ASCII)
"""A letter comes first: `_charset_` and `__proto__` mean more than a field to some parsers, and so does a bracket."""
_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_EXTENDED = re.compile(r"utf-8'[\w-]*'(.*)", re.IGNORECASE | re.ASCII)
_QUOTED = {'"': "%22", "\\": "%5C"} | {chr(code): f"%{code:02X}" for code in (*range(32), 127)}
_ENCODED_IN_NAMES = str.maketrans(_QUOTED)
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
_PLAIN_CHARSETS = ("", "utf-8", "utf8", "us-ascii")
_DISPOSITION_PARAMETERS = {"name", "filename", "filename*"}


class FormSpans(JsonSpans):
    """The fields that are read of a form, at their places in the written form, as `JsonSpans` are for an object: values
    are plain text."""

    def text(self, name: str) -> str:
        """Raises FormUnreadable."""
        try:
            return (self.value(name) or b"").decode()
        except UnicodeDecodeError:
            raise FormUnreadable(f"The form's field {name!r} is not valid UTF-8.") from None

    def written(self, text: str) -> bytes:
        return text.encode()


class Form(msgspec.Struct, frozen=True):
    """A form whose fields have been read. `rest` is what follows them, None where it is whole. `content_type` names
    the boundary in which it is written."""

    fields: FormSpans
    rest: BodyTail | None
    content_type: str


class _FormPart(msgspec.Struct, frozen=True):
    """What a part's head says. `filename` is None where it is no file."""

    name: str
    filename: str | None
    content_type: str

    def head(self) -> bytes:
        named = f'form-data; name="{self.name}"'
        if self.filename is not None:
            named += f'; filename="{self.filename.translate(_ENCODED_IN_NAMES)}"'
        kind = f"Content-Type: {self.content_type}\r\n" if self.content_type else ""
        return f"Content-Disposition: {named}\r\n{kind}\r\n".encode("utf-8", "replace")


class _State(Enum):
    BEGIN = auto()
    HEAD = auto()
    CONTENT = auto()
    OVER = auto()


class FormRewriter:
    """Takes a form in pieces, however it is cut, and gives the parts of the form that is to be sent instead.

    The fields that are read are not among them: they are collected in `fields`, in which `spans` gives begin and end
    of each value. All methods raise FormUnreadable.
    """

    def __init__(self, content_type: str, read: Container[str], boundary: str, model: str = "") -> None:
        """`boundary` must not be known to the client. A `model` that the path names takes the place of the form's."""
        self.spans: dict[str, tuple[int, int]] = {}
        self.fields = bytearray()
        self._read = read
        self._between = b"--" + _boundary(content_type)
        self._written_between = b"--" + boundary.encode()
        # Each delimiter begins with the end of a line, which the first one has not; so it is given one.
        self._held = _LINE_END
        self._searched = 0
        self._skipped = len(_LINE_END)
        """Of what is held, the bytes in front of a part's content."""
        self._state = _State.BEGIN
        self._parts = 0
        self._field: str | None = None
        self._field_begin = 0
        self._takes_fields = True
        self._out: list[bytes] = []
        self._path_model = model
        self._drops_part = False
        """Whether the part is another model than the path's."""
        if model:
            self._field = "model"
            self._write(self._written_between + _LINE_END + _FormPart("model", None, "").head())
            begin = len(self.fields)
            self._write(model.encode() + _LINE_END)
            self.spans["model"] = (begin, begin + len(model.encode()))
            self._field = None

    @property
    def in_field(self) -> bool:
        """Whether a field that is read has begun, and not ended."""
        return self._field is not None

    def feed(self, data: bytes) -> bytes:
        """What can be passed on now."""
        self._held += data
        if self._state is _State.BEGIN and self._held.startswith(_LINE_END * 2):
            # Unity's forms begin with a line end. The last one begins the first delimiter.
            line_ends = _LINE_ENDS.match(self._held)
            assert line_ends is not None, "it matches nothing, too"
            self._held = self._held[line_ends.end() - len(_LINE_END) :]
        while self._read_head() if self._state is _State.HEAD else self._pass_content():
            continue
        written = b"".join(self._out)
        self._out.clear()
        return written

    def refuse_fields(self) -> None:
        """From now on: what follows is sent without being judged first."""
        self._takes_fields = False

    def end(self) -> bytes:
        """The last boundary, once nothing follows."""
        if self._state is not _State.OVER:
            raise FormUnreadable("The form ends before its last boundary.")
        return self._written_between + b"--\r\n"

    def _pass_content(self) -> bool:
        """Go on to the end of the next delimiter, if it is here."""
        held, size = self._held, len(self._between)
        place = held.find(self._between, self._searched)
        if self._state is _State.BEGIN and place != len(_LINE_END) and len(held) >= len(_LINE_END) + size:
            raise FormUnreadable("The form does not begin with the boundary that its content-type names.")
        if place < 0:
            self._pass(max(0, len(held) - size - 1))
            return False
        if held[place - 1 : place] not in (b"\r", b"\n"):
            self._searched = place + 1
            return True
        behind = held[place + size : place + size + 2]
        if len(behind) < 2:
            return False
        is_delimiter = held[place - 2 : place] == _LINE_END and behind in (_LINE_END, b"--")
        if self._state is _State.OVER or not is_delimiter:
            raise FormUnreadable("The form's boundary also occurs inside a part: choose another one.")
        self._end_part(place - len(_LINE_END))
        self._drop(place + size)
        self._state = _State.OVER if behind == b"--" else _State.HEAD
        return True

    def _end_part(self, end: int) -> None:
        if self._state is _State.CONTENT:
            if end < self._skipped:
                raise FormUnreadable("A part of the form ends before it begins.")
            self._write(self._held[self._skipped : end])
            if self._field is not None:
                self.spans[self._field] = (self._field_begin, len(self.fields))
            self._write(_LINE_END)
        self._field = None
        self._drops_part = False

    def _read_head(self) -> bool:
        """Read the head of a part, if it is here whole."""
        end = self._held.find(_LINE_END * 2)
        if end < 0 and len(self._held) <= HEAD_MAX:
            return False
        if not 0 <= end <= HEAD_MAX:
            raise FormUnreadable(f"The head of a part of the form is longer than {HEAD_MAX:,} bytes.")
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise FormUnreadable(f"The form has more than {MOST_PARTS:,} parts.")
        self._begin_part(_part(self._held[len(_LINE_END) : end]))
        # The end of the head's last line stays, since a delimiter may follow at once.
        self._drop(end + len(_LINE_END))
        self._skipped = len(_LINE_END)
        self._state = _State.CONTENT
        return True

    def _begin_part(self, part: _FormPart) -> None:
        name = part.name
        if name == "model" and self._path_model:
            self._drops_part = True
        elif name in self._read:
            if part.filename is not None or name in self.spans:
                raise FormUnreadable(f"Send the form's field {name!r} once, as plain text.")
            if not self._takes_fields:
                raise FormUnreadable(f"Send the form's field {name!r} in front of the files.")
            # Some parsers take a part that has a content type for a file.
            part = _FormPart(name, None, "")
            self._field = name
        elif (meant := folded(re.split(r"[\[\].]", name)[0])) in self._read:
            raise FormUnreadable(f"The form's field {name!r} can be taken for {meant!r}. Send it as {meant!r}.")
        self._write(self._written_between + _LINE_END + part.head())
        self._field_begin = len(self.fields)

    def _pass(self, size: int) -> None:
        """Write what is content for sure."""
        if self._state is _State.CONTENT and size > self._skipped:
            self._write(self._held[self._skipped : size])
        self._skipped = max(0, self._skipped - size)
        self._drop(size)

    def _write(self, data: bytes) -> None:
        if self._drops_part:
            return
        if self._field is not None:
            self.fields += data
            if len(self.fields) > FIELDS_MAX:
                raise FormUnreadable(f"The form's fields that are read are longer than {FIELDS_MAX // 1024} KiB.")
        else:
            self._out.append(data)

    def _drop(self, size: int) -> None:
        self._held = self._held[size:]
        self._searched = 0


def is_form(content_type: str) -> bool:
    return content_type.lower().startswith("multipart/")


def form_type(boundary: str) -> str:
    """The content type of a form that is written with this boundary."""
    return f"multipart/form-data; boundary={boundary}"


def _boundary(content_type: str) -> bytes:
    """The line between the parts. Raises FormUnreadable."""
    kind, parameters = _parsed(content_type)
    boundary = parameters.get("boundary", "")
    charset = parameters.get("charset", "").lower()
    is_known = parameters.keys() <= {"boundary", "charset"} and charset in _PLAIN_CHARSETS
    if kind.lower() != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary) or not is_known:
        raise FormUnreadable("A form's content-type must read 'multipart/form-data; boundary=...', with one boundary.")
    return boundary.encode()


def _part(head: bytes) -> _FormPart:
    """Raises FormUnreadable."""
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in headers:
            raise FormUnreadable("A part of the form has a head that is not as RFC 7578 has it.")
        headers[found[1].lower()] = found[2]
    kind, parameters = _parsed(headers.get("content-disposition", ""))
    name = parameters.get("name", "")
    if kind.lower() != "form-data" or not _NAME.fullmatch(name):
        raise FormUnreadable("Each part of a form needs a 'content-disposition: form-data; name=...' of plain letters.")
    if unknown := parameters.keys() - _DISPOSITION_PARAMETERS:
        raise FormUnreadable(f"A part's content-disposition has {min(unknown)!r}: send name and filename alone.")
    if headers.get("content-transfer-encoding", "").strip().lower() not in _PLAIN_ENCODINGS:
        raise FormUnreadable(f"The form's part {name!r} has a content-transfer-encoding: send it as it is.")
    filename = _filename(parameters)
    return _FormPart(name, filename, _content_type(headers.get("content-type", ""), is_file=filename is not None))


def _filename(parameters: dict[str, str]) -> str | None:
    """The last component of its path, as RFC 7578, section 4.2 asks for. Raises FormUnreadable."""
    filename = parameters.get("filename")
    if (extended := parameters.get("filename*")) is not None:
        found = _EXTENDED.fullmatch(extended)
        if found is None:
            raise FormUnreadable("A part's filename* is not as RFC 8187 has it: utf-8''NAME.")
        filename = unquote_to_bytes(found[1].encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
    return filename and re.split(r"[/\\]", filename)[-1]


def _content_type(value: str, *, is_file: bool) -> str:
    """A part's content type without its parameters. Raises FormUnreadable for a form within the form, and for text in
    another charset."""
    if not value:
        return ""
    kind, parameters = _parsed(value)
    is_nested = kind.lower().startswith(("multipart/", "message/"))
    is_plain = is_file or parameters.get("charset", "").lower() in _PLAIN_CHARSETS
    if not _CONTENT_TYPE.fullmatch(kind) or is_nested or not is_plain:
        raise FormUnreadable(f"A part of the form has a content-type that cannot be passed on: {value[:80]!r}.")
    return kind


def _parsed(value: str) -> tuple[str, dict[str, str]]:
    """A header's value and its parameters, names in lower case; ("", {}) for what can be read in two ways."""
    found = _VALUE.fullmatch(value)
    if found is None:
        return "", {}
    named = [(name.lower(), text.strip('"')) for name, text in _PARAMETERS.findall(found[2])]
    parameters = dict(named)
    return (found[1], parameters) if len(parameters) == len(named) else ("", {})
