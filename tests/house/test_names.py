"""One name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

import pytest

from tests.house.tree import parsed, place, under


def _places() -> dict[str, list[str]]:
    """Where each class of gateway/ is, by its name without leading underscores."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in under("gateway"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(place(path, node.lineno))
    return found


def _aliases() -> dict[str, list[str]]:
    """Where each alias of a type is defined, by its definition."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in under("gateway"):
        for node in parsed(path).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
                definition = ast.unparse(node)
                if definition.lstrip("_")[:1].isupper() and not definition.partition(" ")[0].isupper():
                    found[definition].append(place(path, node.lineno))
    return found


_SHARED = {name: places for name, places in _places().items() if len(places) > 1}


@pytest.mark.parametrize("name", sorted(_SHARED.keys() | {""}))
def test_no_two_classes_share_a_name(name: str) -> None:
    """The empty name stands for all: without a shared one there is still a test to pass."""
    assert _SHARED.get(name, []) == []


def test_no_alias_of_a_type_is_defined_twice() -> None:
    aliases = _aliases()
    assert "JsonObject = dict[str, Any]" in aliases, "else none is found"
    assert {definition: places for definition, places in aliases.items() if len(places) > 1} == {}
