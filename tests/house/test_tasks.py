"""Tasks belong to an owner that logs, counts and restarts what fails: gateway/runtime/tasks.py."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house.tree import ROOT, parsed, place, under

STARTERS = {"create_task", "ensure_future", "run_coroutine_threadsafe", "TaskGroup"}
SCHEDULERS = {"call_soon", "call_soon_threadsafe", "call_later", "call_at"}

OUTSIDE = [path for path in under("gateway") if ROOT / "gateway" / "runtime" not in path.parents]


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_tasks_are_started_in_the_runtime_package_alone(path: Path) -> None:
    tree = parsed(path)
    coroutines = {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    starts = [place(path, call.lineno) for call in calls if _called(call) in STARTERS]
    for call in calls:
        if _called(call) in SCHEDULERS:
            names = {getattr(argument, "attr", getattr(argument, "id", "")) for argument in call.args}
            starts += [place(path, call.lineno) for name in names & coroutines]
    assert starts == []
