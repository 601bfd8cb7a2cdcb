"""One name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict

import pytest

from tests.house.tree import parsed, place, under

REMAINING: dict[str, set[str]] = {
    "Address": {"gateway/core/address.py", "gateway/store/in_redis/address.py"},
    "Asked": {"gateway/demo/turn.py", "gateway/web/passing.py"},
    "Desk": {"gateway/demo/reply.py", "gateway/web/admin_plane.py"},
    "Line": {"gateway/store/in_redis/line.py", "gateway/store/journal.py"},
    "Origin": {"gateway/store/in_redis/settlement.py", "gateway/upstream/origin.py"},
    "Plain": {"gateway/cli/again.py", "gateway/upstream/decoding.py"},
    "Reply": {"gateway/demo/reply.py", "gateway/web/passing.py"},
    "Request": {"gateway/demo/wire.py", "gateway/upstream/connection.py"},
    "Script": {"gateway/demo/script.py", "gateway/store/in_redis/script.py"},
    "Source": {"gateway/app/serve.py", "gateway/upstream/incoming.py"},
}
"""Names that still stand for several classes, and where. The list only shrinks."""


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
    places = {where.partition(":")[0] for where in _SHARED.get(name, [])}
    assert places <= REMAINING.get(name, set()), f"{name}: {_SHARED[name]}"
