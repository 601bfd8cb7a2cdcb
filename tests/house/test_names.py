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


_SHARED = {name: places for name, places in _places().items() if len(places) > 1}


@pytest.mark.parametrize("name", sorted(_SHARED.keys() | {""}))
def test_no_two_classes_share_a_name(name: str) -> None:
    """The empty name stands for all: without a shared one there is still a test to pass."""
    assert _SHARED.get(name, []) == []
