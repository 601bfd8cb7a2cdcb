"""YAML text in, plain data and the line of every setting out.

A scalar keeps its text, so that the setting's type reads it and YAML's guesses (`no` as false,
`0123` as octal, `12:30` as 750, a hash as a float) never apply. Only an empty one, `~` and `null`
are nothing. Tags, merge keys, duplicate keys, more than one document and bombs are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from gateway.settings.diagnostics import Diagnostic, Path
from gateway.settings.interpolation import ReferenceBroken, References

MAX_DEPTH = 24
MAX_VALUES = 1_000_000
"""How many values a configuration may have once its aliases are written out."""

_NULLS = {"", "~", "null"}
_FORBIDDEN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue002-\ufffd\U00010000-\U0010ffff]")
"""What YAML does not allow (YAML 1.2, production 1, but for DEL), and the marks of references."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where it is there: nine times as fast, and 10,000 keys are 40,000 lines of events."""


class Place(NamedTuple):
    """Where a setting stands. `source` names the references that its value came from."""

    line: int
    source: str = ""


class DocumentMapping(dict[str, Any]):
    """A mapping of the file that knows its path."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


class Document(NamedTuple):
    """`data` is made of DocumentMapping, list, str and None. `places` has every path of it."""

    data: Any
    places: dict[Path, Place]
    diagnostics: list[Diagnostic]


class NotYaml(Exception):
    """The text cannot be read at all."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read(text: str, references: References) -> Document:
    """Raises NotYaml."""
    if (forbidden := _FORBIDDEN.search(text)) is not None:
        raise NotYaml(text.count("\n", 0, forbidden.start()) + 1, "contains a control or private-use character")
    try:
        root = _Composer(references.hide(text)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What is missing at the end of the text is missed on the line after it.
        line = min(mark.line + 1, len(text.splitlines())) if mark else 0
        raise NotYaml(line, f"is not YAML: {error.problem or error.context}") from None
    builder = _Builder(references)
    data = builder.value(root, (), root.line)
    return Document(data, builder.places, builder.diagnostics)


class _Scalar(NamedTuple):
    line: int
    text: str | None
    size: int = 1
    """How many values it has, aliases written out."""


class _Sequence(NamedTuple):
    line: int
    items: list[_Node]
    size: int


class _Map(NamedTuple):
    line: int
    members: list[tuple[_Node, _Node]]
    size: int


_Node = _Scalar | _Sequence | _Map


class _Composer:
    """Events of the YAML parser to a tree of nodes. An alias is the very node that it names, which is
    whole before it can be named: a tree can neither contain itself nor be large without being counted."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return _Scalar(1, None)
        root = self._node(next(self._events), 0)
        next(self._events)
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            raise NotYaml(_line(after), "a second YAML document begins here; a configuration is one")
        return root

    def _node(self, event: Any, depth: int) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            return self._named(event)
        if event.tag is not None:
            raise NotYaml(_line(event), "YAML tags (`!…`) are not supported; write the plain value")
        if depth > MAX_DEPTH:
            raise NotYaml(_line(event), f"nested deeper than {MAX_DEPTH} levels")
        node = self._content(event, depth)
        if node.size > MAX_VALUES:
            raise NotYaml(node.line, f"its aliases amount to more than {MAX_VALUES} values")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _content(self, event: Any, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            absent = event.implicit[0] and event.value in _NULLS
            return _Scalar(_line(event), None if absent else event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items = list(self._until(yaml.SequenceEndEvent, depth))
            return _Sequence(_line(event), items, 1 + sum(item.size for item in items))
        nodes = list(self._until(yaml.MappingEndEvent, depth))
        members = list(zip(nodes[::2], nodes[1::2], strict=True))
        return _Map(_line(event), members, 1 + sum(node.size for node in nodes))

    def _until(self, end: type, depth: int) -> Iterator[_Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth + 1)

    def _named(self, event: Any) -> _Node:
        if event.anchor not in self._anchors:
            raise NotYaml(_line(event), "an alias names nothing before it; put text that begins with * in quotes")
        return self._anchors[event.anchor]


class _Builder:
    """A tree of nodes to plain data, with references replaced and the place of every path."""

    def __init__(self, references: References) -> None:
        self._references = references
        self.places: dict[Path, Place] = {}
        self.diagnostics: list[Diagnostic] = []

    def value(self, node: _Node, path: Path, line: int) -> Any:
        self.places[path] = Place(line)
        match node:
            case _Scalar(text=text):
                return None if text is None else self._scalar(text, path)
            case _Sequence(items=items):
                return [self._item(item, (*path, index)) for index, item in enumerate(items)]
            case _Map():
                return self._mapping(node, path)

    def _scalar(self, text: str, path: Path) -> str | None:
        try:
            filled = self._references.fill(text)
        except ReferenceBroken as broken:
            self.diagnostics.append(Diagnostic(path, str(broken)))
            return None
        self.places[path] = self.places[path]._replace(source=filled.source)
        return filled.text

    def _item(self, node: _Node, path: Path) -> Any:
        if node == _Scalar(node.line, None):
            self.diagnostics.append(Diagnostic(path, "is empty; write a value or take the dash away"))
        return self.value(node, path, node.line)

    def _mapping(self, node: _Map, path: Path) -> DocumentMapping:
        built = DocumentMapping(path)
        lines: dict[str, int] = {}
        for key, value in node.members:
            name = self._key(key, path)
            if name is None:
                continue
            if name in built:
                self.diagnostics.append(
                    Diagnostic((*path, name), f"is set twice, first on line {lines[name]}", key.line)
                )
            lines.setdefault(name, key.line)
            built[name] = self.value(value, (*path, name), key.line)
        return built

    def _key(self, node: _Node, path: Path) -> str | None:
        """The name that a key is, or None with a diagnostic about one that is no name."""
        if not isinstance(node, _Scalar) or node.text is None:
            why = "a key is not text; write a name before the colon"
        elif node.text == "<<":
            why = "merge keys (`<<`) are not supported; name a whole value with & and repeat it with *"
        elif self._references.as_written(node.text) != node.text:
            why = "a key cannot be a reference such as ${NAME}; only values are replaced"
        else:
            return node.text
        self.diagnostics.append(Diagnostic(path, why, node.line))
        return None


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
