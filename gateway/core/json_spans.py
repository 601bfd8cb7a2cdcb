"""The top-level members of a JSON object: where each is in the bytes.

Reading them refuses what is not a JSON object, duplicate names and wrong UTF-8. Changing some leaves
every other byte as it was. Grammar: RFC 8259; duplicate names are refused because two parsers may
take different ones, which would let a client be metered for one model and served another. For the same
reason `refuse_lookalikes` refuses a name that only some parsers take for one that is read.

Half of a surrogate pair (`\\ud83d` alone) is JSON by RFC 8259, section 8.2, but no Unicode text; programs send it when
they cut a prompt within an emoji. It is read as U+FFFD, whose escape is as long, and passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

import msgspec

from gateway.core.errors import BodyUnreadable, FieldInvalid
from gateway.core.json_object import Path
from gateway.core.remembered import remembered
from gateway.core.sse import BOM

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPENING = re.compile(rb"[ \t\r\n]*\{")
_NAME = re.compile(rb'[ \t\r\n]*"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\r\n]*:[ \t\r\n]*')
_COMMA = re.compile(rb"[ \t\r\n]*,")
_CLOSING = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")
_LONE_SURROGATE = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2})*+"
    rb"(\\u[dD][89a-fA-F][\da-fA-F]{2})",
    re.DOTALL,
)

_WITH_BOM = "The body is not valid JSON: it begins with a byte order mark. Send it without one."

MOST = 1_000
"""Members of one object: far more than any API has, and few enough to be walked through at once. As many lone
surrogates are read."""

REMEMBERED_CHARACTERS = 512
"""Of all names of an object together, so that what follows from them is remembered. Clients send the same members with
every request, but can make up any."""

_SMALL_BYTES = 16 * 1024
"""An object of so few bytes has few members. In a larger one they are counted before each is decoded: a million of
them would take 170 MB and the better part of a second."""


class MemberNames(msgspec.Struct, frozen=True, eq=False):
    """The names of an object's members, in order of appearance, and the two usual ways to write such an object: what is
    before, between and behind its values, with nothing in the place of each. Without spaces, the first value begins at
    `value_at`, and what is no value takes `length` bytes. `are_remembered`: the next object with these names has the
    same `MemberNames`."""

    names: tuple[str, ...]
    are_remembered: bool
    short: tuple[bytes, ...]
    spaced: tuple[bytes, ...]
    value_at: int
    length: int


class JsonSpans(msgspec.Struct):
    """The members of an object. `readable` is the body with lone surrogates replaced. Where nothing but the members is
    in the body, in one of the two usual ways of writing (`_is_plain`), they are available as `raws`, and where they are
    is computed when something has to be changed. `named` is None where no object was read."""

    body: bytes
    found: dict[str, tuple[int, int]] | None = None
    readable: bytes = b""
    raws: dict[str, msgspec.Raw] = {}
    named: MemberNames | None = None

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Begin and end of each member's value in `body`, in order of appearance."""
        if self.found is None:
            self.found = _spans_by_walking(self.readable, self.raws)
        return self.found

    def names(self) -> Collection[str]:
        """Those of the members, in order of appearance."""
        return self.raws if self.found is None else self.found

    def value(self, name: str) -> bytes | None:
        """A member's value as JSON text, None where the object has no such member."""
        if self.found is None:
            raw = self.raws.get(name)
            return None if raw is None else bytes(raw)
        span = self.found.get(name)
        return self.body[span[0] : span[1]] if span else None

    def readable_value(self, name: str) -> bytes | None:
        """As `value`, with lone surrogates replaced: what a parser takes."""
        if self.readable is self.body or self.found is None:
            return self.value(name)
        span = self.found.get(name)
        return self.readable[span[0] : span[1]] if span else None

    def value_at(self, path: Path) -> bytes | None:
        """The value at a path of members; None where there is none. Raises BodyUnreadable for a member that should
        have more of them and is no object."""
        value = self.value(path[0])
        for name in path[1:]:
            if value is None or value == b"null":
                return None
            value = read_json_spans(value).value(name)
        return value

    def forget(self) -> None:
        """Hold nothing of the object any more: nothing is asked of it from now on."""
        self.body = self.readable = b""
        self.found, self.raws = None, {}

    def has_at(self, path: Path) -> bool:
        """Whether a member is at the path; `*` is any element of an array."""
        value = self.value(path[0])
        if value is None or len(path) == 1:
            return value is not None
        if path[1] == "*":
            return any(each.has_at(path[2:]) for each in _objects_in(value))
        return value.lstrip().startswith(b"{") and read_json_spans(value).has_at(path[1:])

    def changed_at(self, changes: Mapping[Path, bytes]) -> bytes:
        """As `changed`, for members at paths: objects on the way that are not there, or null, are made. In an array
        only those that are there are changed."""
        within: dict[str, dict[Path, bytes]] = {}
        whole: dict[str, bytes] = {}
        for path, text in changes.items():
            if len(path) == 1:
                whole[path[0]] = text
            else:
                within.setdefault(path[0], {})[path[1:]] = text
        for name, inner in within.items():
            whole[name] = _changed_within(self.value(name), inner)
        return self.changed(whole)

    def written(self, text: str) -> bytes:
        """A text as it is written for a value here."""
        return msgspec.json.encode(text)

    def changed(self, changes: Mapping[str, bytes]) -> bytes:
        """The object with some members set to other JSON texts; those it lacks are put last."""
        pieces, position = [], 0
        for name, (begin, end) in self.spans.items():
            if name in changes:
                pieces += [self.body[position:begin], changes[name]]
                position = end
        added = [b'"%b":%b' % (name.encode(), text) for name, text in changes.items() if name not in self.spans]
        if added:
            last = self.body.rindex(b"}")
            pieces += [self.body[position:last], b"," if self.spans else b"", b",".join(added)]
            position = last
        return b"".join((*pieces, self.body[position:]))

    def without(self, name: str) -> bytes:
        """The object without one of its members, and without the comma that came with it."""
        names = list(self.spans)
        place, (_, end) = names.index(name), self.spans[name]
        if place:
            _, begin = self.spans[names[place - 1]]
        else:
            opening, comma = _OPENING.match(self.body), _COMMA.match(self.body, end)
            assert opening is not None, "it was read as an object"
            begin, end = opening.end(), comma.end() if comma is not None else end
        return self.body[:begin] + self.body[end:]


def _changed_within(value: bytes | None, changes: Mapping[Path, bytes]) -> bytes:
    if value is None or value == b"null":
        return read_json_spans(b"{}").changed_at(changes)
    if not value.startswith(b"["):
        return read_json_spans(value).changed_at(changes)
    changed = []
    for each in _objects_in(value):
        there = {path[1:]: text for path, text in changes.items() if each.has_at(path[1:])}
        changed.append(each.changed_at(there))
    return b"[%b]" % b",".join(changed)


def _objects_in(array: bytes) -> list[JsonSpans]:
    """Raises FieldInvalid for what is no array of objects."""
    try:
        return [read_json_spans(bytes(raw)) for raw in msgspec.json.decode(array, type=list[msgspec.Raw])]
    except (msgspec.ValidationError, BodyUnreadable):
        raise BodyUnreadable("An array of objects was expected.") from None


def read_json_spans(body: bytes) -> JsonSpans:
    """Where the members of a JSON object are. Raises BodyUnreadable."""
    try:
        if not body.isascii():
            body.decode()
        raws = _OBJECT.decode(body) if len(body) <= _SMALL_BYTES else _MemberCount().decode(body)
    except UnicodeDecodeError as error:
        raise BodyUnreadable(f"The body is not valid UTF-8 at byte {error.start}. Send JSON in UTF-8.") from None
    except RecursionError:
        raise BodyUnreadable("The body is nested too deeply to be read. Send it with fewer levels.") from None
    except msgspec.ValidationError:
        raise BodyUnreadable("The body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        readable = _without_lone_surrogates(body)
        if body.startswith(BOM):
            raise BodyUnreadable(_WITH_BOM) from None
        if readable is body:
            raise BodyUnreadable(f"The body is not valid JSON: {error}.") from None
        return _read_with_surrogates(body, readable)
    if len(raws) > MOST:
        raise _too_many()
    named = _member_names(tuple(raws))
    if _is_plain(body, raws, named):
        return JsonSpans(body, None, body, raws, named)
    return JsonSpans(body, _spans_by_walking(body, raws), body, named=named)


def _read_with_surrogates(body: bytes, readable: bytes) -> JsonSpans:
    """An object that is read with its lone surrogates replaced. Raises BodyUnreadable."""
    members = read_json_spans(readable)
    if any("\ufffd" in name for name in members.names()):
        raise BodyUnreadable("The name of a member has half of a surrogate pair. Send whole characters.")
    return JsonSpans(body, members.spans, readable, named=members.named)


def _are_usual(names: tuple[str, ...]) -> bool:
    return len("".join(names)) <= REMEMBERED_CHARACTERS


@remembered(256, _are_usual)
def _member_names(names: tuple[str, ...]) -> MemberNames:
    """What is known of an object by the names of its members. Clients send the same ones with every request, but can
    make up any: those of usual lengths are remembered."""
    short, spaced = _around_values(names, b",", b""), _around_values(names, b", ", b" ")
    value_at = len(names[0].encode()) + 4 if names else 0
    length = sum(map(len, names)) + 4 * len(names) + 1
    return MemberNames(names, _are_usual(names), short, spaced, value_at, length)


def _around_values(names: tuple[str, ...], comma: bytes, space: bytes) -> tuple[bytes, ...]:
    begun = [b'%b"%b":%b' % (comma if place else b"{", name.encode(), space) for place, name in enumerate(names)]
    return (*chain.from_iterable((begin, b"") for begin in begun), b"}" if names else b"{}")


class NamesRead:
    """The names of the members that are read, by what all that can be taken for them fold to."""

    def __init__(self, names: Iterable[str]) -> None:
        self._meant = {folded(name): name for name in names}
        self._are_lower = all(name == name.lower() for name in self._meant.values())

    def __contains__(self, name: str) -> bool:
        """Whether it can be taken for one of them, or is one."""
        return folded(name) in self._meant

    def refuse_lookalikes(self, names: Collection[str]) -> None:
        """Refuse names that some parsers take for one that is read: Go's encoding/json, among others, compares without
        regard to case, in Unicode. Raises FieldInvalid."""
        if self._are_lower:
            all_names = "".join(names)
            if all_names.isascii() and all_names.islower():
                return
        for name in names:
            meant = self._meant.get(folded(name))
            if meant is not None and meant != name:
                raise FieldInvalid(
                    f"{name!r} can be taken for {meant!r}. Send it as {meant!r}, or not at all.", param=meant
                )


def folded(name: str) -> str:
    """Equal for names that differ by case alone, in whichever direction a parser folds it: the long s and the Kelvin
    sign are s and k, and so is the i without a dot an i."""
    return name.upper().casefold()


class _Name(str):
    """The name of a member that is counted."""

    __slots__ = ()


class _MemberCount:
    """Decodes an object, and stops at the first member that is one too many."""

    def __init__(self) -> None:
        self._count = 0

    def decode(self, body: bytes) -> dict[str, msgspec.Raw]:
        decoder = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=self._named)
        try:
            return {str(name): raw for name, raw in decoder.decode(body).items()}
        except msgspec.ValidationError:
            if self._count > MOST:
                raise _too_many() from None
            raise

    def _named(self, _kind: type, name: str) -> _Name:
        self._count += 1
        if self._count > MOST:
            raise ValueError
        return _Name(name)


def _without_lone_surrogates(body: bytes) -> bytes:
    """The same object if it has none."""
    # `match` goes on where the last one ended; a search would also begin in the middle of a pair.
    found = _LONE_SURROGATE.match(body)
    if found is None:
        return body
    readable = bytearray(body)
    for _ in range(MOST):
        readable[found.start(1) : found.end(1)] = rb"\ufffd"
        found = _LONE_SURROGATE.match(body, found.end())
        if found is None:
            return bytes(readable)
    raise BodyUnreadable(f"The body has more than {MOST:,} halves of surrogate pairs. Send whole characters.")


def _too_many() -> BodyUnreadable:
    return BodyUnreadable(f"The body has more than {MOST:,} members. Send only those that the API knows.")


def _is_plain(body: bytes, raws: dict[str, msgspec.Raw], named: MemberNames) -> bool:
    """Whether the object is written as shortly as it can be, or with one space behind each colon and comma, so that it
    has no second member of a name.

    A small one is written again and compared. Of a large one only the length is: no text that has these members is
    shorter than the shortest, so one that is just as long has nothing else: no space, no escape in a name, no second
    member.
    """
    if len(body) > _SMALL_BYTES:
        sizes: Iterable[bytes] = map(memoryview, raws.values())  # type: ignore[arg-type] # As long as they are.
        return len(body) == named.length + sum(map(len, sizes))
    pieces: list[Any] = list(named.spaced if body.startswith(b" ", named.value_at) else named.short)
    pieces[1::2] = raws.values()
    # A format string would take twice as long: it makes a text of each value first.
    return body == b"".join(pieces)


def _spans_by_walking(body: bytes, raws: dict[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    # The decoder keeps the last of two equal names, at the place of the first: walking the text in
    # the decoder's order stumbles over another value, or ends before the text does.
    opening = _OPENING.match(body)
    position = opening.end() if opening else 0
    spans: dict[str, tuple[int, int]] = {}
    for name, raw in raws.items():
        found = _NAME.match(body, position)
        begin = found.end() if found is not None else 0
        if not begin or not body.startswith(raw, begin):
            raise _repeated(name)
        position = begin + len(memoryview(raw))
        spans[name] = (begin, position)
        if body.startswith(b",", position):
            position += 1
        elif (comma := _COMMA.match(body, position)) is not None:
            position = comma.end()
    if not _CLOSING.match(body, position):
        raise _repeated(None)
    return spans


def _repeated(near: str | None) -> BodyUnreadable:
    place = f" (near {near!r})" if near is not None and len(near) <= 64 else ""
    return BodyUnreadable(f"The body names a member twice{place}. Send each member once.")
