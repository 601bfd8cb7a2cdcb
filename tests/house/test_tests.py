"""Rules for the tests themselves: no patching, no sleeping."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.tree import functions, parsed, place, under

PATCHING = {"mock", "mocker", "unittest.mock"}


def test_nothing_is_patched() -> None:
    assert [line for path in under("tests") for line in _patches(path)] == []


def test_no_test_sleeps() -> None:
    assert [line for path in under("tests") for line in _sleeps(path)] == []


def _patches(path: Path) -> list[str]:
    imported = [
        node.lineno
        for node in ast.walk(parsed(path))
        if (isinstance(node, ast.Import) and PATCHING & {alias.name for alias in node.names})
        or (isinstance(node, ast.ImportFrom) and node.module in PATCHING | {"unittest"})
    ]
    asked = [function.lineno for function in functions(path) if any(arg.arg == "mocker" for arg in function.args.args)]
    return [place(path, line) for line in imported + asked]


def _sleeps(path: Path) -> list[str]:
    """Calls of any `sleep` with a fixed time: what a test waits for must be an event, not a guess."""
    return [
        place(path, node.lineno)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and _is_sleep(node.func) and any(_is_time(time) for time in _arguments(node))
    ]


def _is_sleep(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name == "sleep"


def _is_time(time: ast.expr) -> bool:
    return isinstance(time, ast.Constant) and time.value != 0


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]
