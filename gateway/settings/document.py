"""Reads YAML text into plain data, with the line of every setting.

A scalar keeps its text, so that the setting's type reads it and YAML's guesses (`no` as false, `0123` as octal, `12:30`
as 750, a hash as a float) never apply. Only an empty scalar, `~` and `null` are null. Tags, merge keys, duplicate keys,
more than one document and bombs are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import yaml

from gateway.settings.diagnostics import Diagnostic, Path
from gateway.settings.interpolation import ReferenceBroken, References, ReferenceUnset, has_reference
from gateway.settings.syntax_hints import find_hint

MAX_DEPTH = 24
MAX_VALUES = 1_000_000
"""The most values of a configuration, with its aliases expanded."""

_NULLS = {"", "~", "null"}
_FORBIDDEN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue002-\ufffd\U00010000-\U0010ffff]")
"""What YAML does not allow (YAML 1.2, production 1, except for DEL), and the marks of references."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where it is there: nine times as fast, and 10,000 keys are 40,000 lines of events."""


class Place(NamedTuple):
    """The place of a setting. `source` names the references that its value came from."""

    line: int
    source: str = ""


class DocumentMapping(dict[str, Any]):
    """A mapping of the file that knows its path."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


class Document:
    """`data` is made of DocumentMapping, list, str and None. `sources` has the paths whose values came from references,
    and what these are. `unset` are the values whose references this machine does not have: they are `stand_in` in
    `data`."""

    def __init__(self, root: Node, builder: _DocumentBuilder) -> None:
        self.data = builder.value(root, (), root.line)
        self.sources = builder.sources
        self.diagnostics = builder.diagnostics
        self.unset = builder.unset
        self._root = root
        self._members: dict[int, dict[str, tuple[Node, int]]] = {}

    def place(self, path: Path) -> Place:
        """Where a setting is written, or, if it is not, what it belongs to. Found by walking down from the root: a
        file of 10,000 keys has 200,000 places, and hardly one is asked for."""
        node, line = self._root, self._root.line
        for depth, step in enumerate(path):
            below = self._below(node, step)
            if below is None:
                path = path[:depth]
                break
            node, line = below
        return Place(line, self.sources.get(path, ""))

    def _below(self, node: Node, step: str | int) -> tuple[Node, int] | None:
        """The value at this step below a node, and its line. Of two with the same name, the last one counts."""
        if isinstance(node, _Sequence) and isinstance(step, int):
            return (node.items[step], node.items[step].line) if step < len(node.items) else None
        if not isinstance(node, _Map) or not isinstance(step, str):
            return None
        members = self._members.get(id(node))
        if members is None:
            named = [(key, value) for key, value in node.members if isinstance(key, _Scalar)]
            members = self._members[id(node)] = {key.text or "": (value, key.line) for key, value in named}
        return members.get(step)


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
        hint = find_hint(text, error)
        message = f"is not YAML: {error.problem or error.context}"
        raise NotYaml(hint.line, f"{message}; {hint.text}" if hint.text else message) from None
    return Document(root, _DocumentBuilder(references))


class _Scalar(NamedTuple):
    line: int
    text: str | None
    size: int = 1
    """The number of its values, with aliases expanded."""


class _Sequence(NamedTuple):
    line: int
    items: list[Node]
    size: int


class _Map(NamedTuple):
    line: int
    members: list[tuple[Node, Node]]
    size: int


Node = _Scalar | _Sequence | _Map


class _Composer:
    """Events of the YAML parser to a tree of nodes. An alias is the very node that it names, which is
    whole before it can be named: a tree can neither contain itself nor be large without being counted."""

    def __init__(self, text: str) -> None:
        self._next_event: Callable[[], Any] = LOADER(text).get_event
        self._anchors: dict[str, Node] = {}

    def document(self) -> Node:
        self._next_event()
        if isinstance(self._next_event(), yaml.StreamEndEvent):
            return _Scalar(1, None)
        root = self._node(self._next_event(), 0)
        self._next_event()
        if not isinstance(after := self._next_event(), yaml.StreamEndEvent):
            raise NotYaml(_line(after), "a second YAML document begins here; a configuration is one")
        return root

    def _node(self, event: Any, depth: int) -> Node:
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

    def _content(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            text = event.value
            return _Scalar(line, None if text in _NULLS and event.implicit[0] else text)
        if isinstance(event, yaml.SequenceStartEvent):
            items = self._until(yaml.SequenceEndEvent, depth)
            return _Sequence(line, items, 1 + sum([item.size for item in items]))
        nodes = self._until(yaml.MappingEndEvent, depth)
        members = list(zip(nodes[::2], nodes[1::2], strict=True))
        return _Map(line, members, 1 + sum([node.size for node in nodes]))

    def _until(self, end: type, depth: int) -> list[Node]:
        next_event, nodes = self._next_event, []
        while not isinstance(event := next_event(), end):
            nodes.append(self._node(event, depth + 1))
        return nodes

    def _named(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise NotYaml(_line(event), "an alias names nothing before it; put text that begins with * in quotes")
        return self._anchors[event.anchor]


class _DocumentBuilder:
    """A tree of nodes to plain data, with references replaced. Paths are made where something needs one: sections
    know theirs, a scalar has one only with a reference or a diagnostic."""

    def __init__(self, references: References) -> None:
        self._references = references
        self.sources: dict[Path, str] = {}
        self.diagnostics: list[Diagnostic] = []
        self.unset: list[Diagnostic] = []

    def value(self, node: Node, path: Path, line: int) -> Any:
        match node:
            case _Scalar(text=text):
                return text if text is None or not has_reference(text) else self._replaced(text, path, line)
            case _Sequence(items=items):
                return [self._item(item, (*path, index)) for index, item in enumerate(items)]
            case _Map():
                return self._mapping(node, path)

    def _replaced(self, text: str, path: Path, line: int) -> str | None:
        try:
            filled = self._references.fill(text)
        except ReferenceUnset as unset:
            self.unset.append(Diagnostic(path, str(unset), line))
            return stand_in(path)
        except ReferenceBroken as broken:
            self.diagnostics.append(Diagnostic(path, str(broken), line))
            return None
        if filled.source:
            self.sources[path] = filled.source
        return filled.text

    def _item(self, node: Node, path: Path) -> Any:
        if isinstance(node, _Scalar) and node.text is None:
            self.diagnostics.append(Diagnostic(path, "is empty; write a value or remove the dash", node.line))
        return self.value(node, path, node.line)

    def _mapping(self, node: _Map, path: Path) -> DocumentMapping:
        built = DocumentMapping(path)
        for key, value in node.members:
            name = self._key(key, path)
            if name is None:
                continue
            if name in built:
                first = next(
                    other.line for other, _ in node.members if isinstance(other, _Scalar) and other.text == name
                )
                message = f"is set twice, first on line {first}"
                self.diagnostics.append(Diagnostic((*path, name), message, key.line))
            if isinstance(value, _Scalar) and (value.text is None or not has_reference(value.text)):
                built[name] = value.text
            else:
                built[name] = self.value(value, (*path, name), key.line)
        return built

    def _key(self, node: Node, path: Path) -> str | None:
        """The name in a key, or None with a diagnostic if it is not a name."""
        if not isinstance(node, _Scalar) or node.text is None:
            why = "a key is not text; write a name before the colon"
        elif node.text == "<<":
            why = "merge keys (`<<`) are not supported; name a whole value with & and repeat it with *"
        elif has_reference(node.text):
            why = "a key cannot be a reference such as ${NAME}; only values are replaced"
        else:
            return node.text
        self.diagnostics.append(Diagnostic(path, why, node.line))
        return None


def stand_in(path: Path) -> str | None:
    """What is in the place of a value that this machine does not have: what is right for the settings that are most
    often secret, and without which the rest of their section could not be checked; else nothing."""
    name = str(path[-1]) if path else ""  # The document itself may be one reference.
    unique = hashlib.sha256(repr(path).encode()).hexdigest()
    return {"key": f"gw_{unique[:43]}", "sha256": unique, "base_url": "https://unset.invalid/v1"}.get(name)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
