"""What import-linter cannot see: imports inside functions, and the two halves of aiohttp."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.tree import ROOT, functions, parsed, place, under

SERVER = "web"
# "*" is the whole package, through which anything could be reached.
CALLING = {"*", "ClientSession", "TCPConnector", "UnixConnector", "client", "client_reqrep", "connector", "request"}
Import = ast.Import | ast.ImportFrom


def test_an_import_inside_a_function_has_its_reason_beside_it() -> None:
    assert [line for path in under("gateway", "bench", "deploy", "tests") for line in _unexplained(path)] == []


def test_web_takes_nothing_of_aiohttp_that_opens_a_connection() -> None:
    taken = _taken_of_aiohttp("gateway/web")
    assert {where for where, name in taken if name in CALLING} == set()


def test_upstream_takes_nothing_of_the_server_of_aiohttp() -> None:
    taken = _taken_of_aiohttp("gateway/upstream")
    assert {where for where, name in taken if name == "*" or name.split("_")[0] == SERVER} == set()


def _unexplained(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    inner = {node for function in functions(path) for node in ast.walk(function) if isinstance(node, Import)}
    beside = {node: lines[max(0, node.lineno - 2) : node.end_lineno] for node in inner}
    explained = {node for node, near in beside.items() if near[0].lstrip().startswith("#") or "#" in near[-1]}
    return sorted(place(path, node.lineno) for node in inner - explained)


def _taken_of_aiohttp(room: str) -> set[tuple[str, str]]:
    """(place, name) of each name that a room imports from aiohttp; "*" for the whole package."""
    taken = set()
    for path in under("gateway"):
        if not path.is_relative_to(ROOT / room):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, Import):
                taken |= {(place(path, node.lineno), name) for name in _names_of_aiohttp(node)}
    return taken


def _names_of_aiohttp(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {_below(alias.name) for alias in node.names if alias.name.split(".")[0] == "aiohttp"}
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aiohttp":
        below = _below(node.module or "")
        return {alias.name for alias in node.names} if below == "*" else {below}
    return set()


def _below(dotted: str) -> str:
    """`web` of `aiohttp.web`, "*" of `aiohttp` itself."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "*"
