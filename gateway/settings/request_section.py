"""Checks what operators send: JSON in, frozen values out, with the messages that the configuration's errors have.

A section is a Struct. The types of its members say how each is read: `Checked` names the function, `Meta` a length.
pydantic checks the configuration, in a process that ends with it; a process that serves does not hold it.
"""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from gateway.settings.diagnostics import (
    MESSAGES,
    Diagnostic,
    Path,
    SettingsInvalid,
    no_section,
    one_of,
    unknown_name,
    wrong_name,
)


class ValueReader(Protocol):
    def __call__(self, given: Any, /) -> Any:
        """Raises ValueError: what is allowed."""


class Checked(NamedTuple):
    """How a value of an annotated type is read."""

    read: ValueReader


class RequestSection(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A member that is null counts as left out."""

    @property
    def path(self) -> Path:
        """Sections of the configuration know their place in the file; these have none."""
        return ()

    @property
    def given(self) -> frozenset[str]:
        """The members that are given, of a section whose members are nothing where they are left out."""
        return frozenset(name for name in self.__struct_fields__ if getattr(self, name) is not None)


SectionOf = TypeVar("SectionOf", bound=RequestSection)


def read_members(kind: type[SectionOf], written: Any) -> SectionOf:
    """Raises SettingsInvalid, with all that is wrong."""
    reading = _SectionReader()
    section = reading.section(kind, written, ())
    if reading.found:
        raise SettingsInvalid(reading.found)
    assert isinstance(section, kind)
    return section


@cache
def _members(kind: type[RequestSection]) -> dict[str, Any]:
    """The type of each member, in the order of the class; one that may be left out is not a union with None."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: _without_none(hints[name]) for name in kind.__struct_fields__}


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
        return Union[tuple(each for each in get_args(kind) if each is not NoneType)]  # noqa: UP007 # Of a tuple.
    return kind


@cache
def _required(kind: type[RequestSection]) -> frozenset[str]:
    return frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)


class _SectionReader:
    """Reads one value and all below it. `found` is what is wrong; what is wrong is read as None."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []

    def section(self, kind: type[RequestSection], written: Any, path: Path) -> RequestSection | None:
        members = _members(kind)
        if written is None:
            written = {}
        if not isinstance(written, dict):
            self._wrong(no_section(path, members))
            return None
        before = len(self.found)
        values: dict[str, Any] = {}
        for name, member in members.items():
            given = written.get(name)
            if given is not None:
                values[name] = self._value(member, given, (*path, name))
            elif name in _required(kind):
                self._wrong(Diagnostic((*path, name), MESSAGES["missing"]))
        for name in written:
            if name not in members:
                self._wrong(unknown_name((*path, name), list(members)))
        return kind(**values) if len(self.found) == before else None

    def _value(self, kind: Any, given: Any, path: Path) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self._annotated(arguments[0], arguments[1], given, path)
        if origin is tuple:
            return self._list(arguments[0], given, path)
        if origin is dict:
            return self._mapping(arguments[0], arguments[1], given, path)
        if origin is Literal:
            return given if given in arguments else self._wrong(Diagnostic(path, one_of(_listed(arguments), given)))
        return self.section(kind, given, path)

    def _annotated(self, kind: Any, mark: Checked | msgspec.Meta, given: Any, path: Path) -> Any:
        if isinstance(mark, Checked):
            try:
                return mark.read(given)
            except ValueError as error:
                return self._wrong(Diagnostic(path, str(error)))
        before = len(self.found)
        value = self._value(kind, given, path)
        if len(self.found) == before:
            if mark.min_length is not None and len(value) < mark.min_length:
                self._wrong(Diagnostic(path, MESSAGES["too_short"]))
            if mark.max_length is not None and len(value) > mark.max_length:
                self._wrong(Diagnostic(path, MESSAGES["too_long"]))
        return value

    def _list(self, kind: Any, given: Any, path: Path) -> Any:
        if not isinstance(given, list | tuple):
            return self._wrong(Diagnostic(path, MESSAGES["tuple_type"]))
        return tuple([self._value(kind, each, (*path, place)) for place, each in enumerate(given)])

    def _mapping(self, names: Any, values: Any, given: Any, path: Path) -> Any:
        if not isinstance(given, dict):
            return self._wrong(Diagnostic(path, MESSAGES["dict_type"]))
        _, of_names = get_args(names)
        read: dict[str, Any] = {}
        for name, value in given.items():
            try:
                of_names.read(name)
            except ValueError as error:
                self._wrong(wrong_name((*path, name), str(error)))
            read[name] = self._value(values, value, (*path, name))
        return read

    def _wrong(self, diagnostic: Diagnostic) -> Any:
        self.found.append(diagnostic)
        return None


def _listed(allowed: tuple[str, ...]) -> str:
    *others, last = [f"'{each}'" for each in allowed]
    return f"{', '.join(others)} or {last}" if others else last
