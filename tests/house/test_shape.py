"""Sizes of functions, names and docstrings of modules."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.tree import functions, parsed, place, under

FUNCTION_LINES = 50
BANNED = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "base", "misc"}


def test_no_function_is_longer_than_50_lines() -> None:
    sizes = {
        place(path, function.lineno): (function.end_lineno or 0) - function.lineno + 1
        for path in under("gateway", "bench", "deploy", "tests")
        for function in functions(path)
    }
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_every_module_says_what_it_holds() -> None:
    modules = under("gateway", "bench", "deploy")
    assert [place(path) for path in modules if not ast.get_docstring(parsed(path))] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    paths = under("gateway", "bench", "deploy", "tests")
    assert [place(path) for path in paths if BANNED & {part.removesuffix(".py") for part in path.parts}] == []


def test_no_module_keeps_state() -> None:
    assert [line for path in under("gateway") for line in _state(path)] == []


def _state(path: Path) -> list[str]:
    """Where a function writes to its module, or a module names a container as if it were to change."""
    tree = parsed(path)
    writes = [place(path, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Global)]
    return writes + [place(path, node.lineno) for node in tree.body if _is_variable_container(node)]


def _is_variable_container(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    holds = isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
    return holds and any(not name.isupper() and not name.startswith("__") for name in names)
