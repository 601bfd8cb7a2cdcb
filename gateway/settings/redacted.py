"""The text of a configuration for people: as it is written, without comments and secrets.

The settings say where a secret can be: those whose type is a secret, and those that are left out of their
representation (headers, queries, proxies). Of these a reference such as `${NAME}` is shown, and anything else is not:
neither a value nor the default of a reference. Comments are left out, since they can contain anything.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from types import NoneType
from typing import Any, NamedTuple

import yaml
from pydantic import SecretStr

from gateway.settings.base_section import BaseSection
from gateway.settings.diagnostics import looks_like_secret
from gateway.settings.document import LOADER
from gateway.settings.interpolation import HiddenReferences
from gateway.settings.models import Settings

REDACTED = "(redacted)"

_SHOWN = re.compile(r"(Bearer )?\$\{([A-Za-z_][A-Za-z0-9_]*(:-)?|file:[^{}]+)\}|none|memory://|~|null|")
"""Of what is a secret: a reference without a default, and words that say that there is none."""

_MARKS = re.compile("[\ue000\ue001]")

_USER = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"\?.+", re.DOTALL)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_WIDTH = 120


class Unreadable(Exception):
    """The text is not YAML."""


def redacted_text(text: str) -> str:
    """Raises Unreadable."""
    return _Redaction(text).text()


class TextTree(NamedTuple):
    """Plain data of mappings, lists and texts: as it is, for comparisons, and as it may be shown."""

    raw: Any
    shown: Any


def text_tree(text: str) -> TextTree:
    """Raises Unreadable."""
    redaction = _Redaction(text)
    return TextTree(redaction.raw, redaction.plain())


class _Redaction:
    """What the text says, and what of it may be shown."""

    def __init__(self, text: str) -> None:
        self._references = HiddenReferences()
        self._hidden_names = 0
        marked = self._references.hide(_MARKS.sub("", text))
        try:
            self._root = yaml.compose(marked, Loader=LOADER)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f" in line {mark.line + 1}" if mark else ""
            raise Unreadable(f"The text is not YAML{place}.") from None
        self.raw = self.plain()
        if self._root is not None:
            self._hide(self._root, Settings, secret=False, seen=set())

    def text(self) -> str:
        if self._root is None:
            return ""
        return self._unmarked(yaml.serialize(self._root, Dumper=_DUMPER, width=_WIDTH, allow_unicode=True))

    def plain(self) -> Any:
        return self._plain(self._root)

    def _unmarked(self, text: str) -> str:
        return self._references.replaced(text, lambda reference: reference or "")

    def _hide(self, node: Any, kind: Any, *, secret: bool, seen: set[tuple[int, bool]]) -> None:
        """Hide secrets at and below a node. `kind` is the type of its setting; None if there is no such setting."""
        if (id(node), secret) in seen:
            return  # An alias.
        seen.add((id(node), secret))
        if isinstance(node, yaml.ScalarNode):
            node.value = self._shown(node.value, secret=secret)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._hide(item, _item_of(kind), secret=secret, seen=seen)
        else:
            for key, value in node.value:
                name = _name(key)
                below, hidden = _member_of(kind, name)
                if below is None and looks_like_secret(name):
                    self._hidden_names += 1
                    key.value = f"{REDACTED} {self._hidden_names}"
                self._hide(value, below, secret=secret or hidden, seen=seen)

    def _shown(self, value: str, *, secret: bool) -> str:
        if secret:
            return value if _SHOWN.fullmatch(self._unmarked(value)) else REDACTED
        if "://" not in value:
            return value
        return _QUERY.sub(f"?{REDACTED}", _USER.sub(f"{REDACTED}@", value))

    def _plain(self, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {self._unmarked(_name(key)): self._plain(value) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item) for item in node.value]
        return None if node is None else self._unmarked(node.value)


def _name(key: Any) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else ""


def _member_of(kind: Any, name: str) -> tuple[Any, bool]:
    """The type of a member, and whether it is secret. An unknown one is secret: it may be a misspelt name."""
    for each in _choices(kind):
        if isinstance(each, type) and issubclass(each, BaseSection):
            field = next((field for known, field in each.model_fields.items() if name in (known, field.alias)), None)
            if field is None:
                return None, True
            return field.annotation, field.repr is False or SecretStr in _choices(field.annotation)
        if typing.get_origin(each) is dict:
            return typing.get_args(each)[1], False
    return None, True


def _item_of(kind: Any) -> Any:
    return next((typing.get_args(each)[0] for each in _choices(kind) if typing.get_origin(each) in (tuple, list)), kind)


def _choices(kind: Any) -> Iterator[Any]:
    """The types that a value may have: of `X | None`, X."""
    if typing.get_origin(kind) is typing.Annotated:
        yield from _choices(typing.get_args(kind)[0])
    elif NoneType in typing.get_args(kind):
        for each in typing.get_args(kind):
            yield from () if each is NoneType else _choices(each)
    else:
        yield kind
