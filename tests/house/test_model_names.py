"""Whoever copies an example gets a model that its provider serves.

Providers end models within a year or two. What is current is what the SDKs of Anthropic and OpenAI list and do not call
deprecated, at the versions of requirements/dev.txt, and for Gemini what the catalogue of prices has: `make lock
UPGRADE=--upgrade` brings newer lists. Recordings and tests of old exports keep the names that they had.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from genai_prices.data import providers

from tests.house.shell_blocks import pages
from tests.house.tree import ROOT, place, under

NAME = re.compile(r"\b(?:claude-(?:opus|sonnet|haiku|fable|mythos)-|gpt-|gemini-)\d[a-z0-9.-]*[a-z0-9]")
SHIPPED = ("config", "deploy", "gateway", "helm")


def source(package: str, *parts: str) -> ast.Module:
    """A module of an SDK as it is written: to import it takes a second."""
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return ast.parse(Path(found.origin).parent.joinpath(*parts).read_text(encoding="utf-8"))


def texts(tree: ast.Module) -> Iterator[str]:
    """The strings of a module, without its docstrings: those are expressions of their own."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def anthropics() -> set[str]:
    listed = set(texts(source("anthropic", "types", "model.py")))
    ended = next(
        ast.literal_eval(node.value)
        for node in source("anthropic", "resources", "messages", "messages.py").body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEPRECATED_MODELS"
    )
    return listed - set(ended)


def openais() -> set[str]:
    tree = source("openai", "types", "shared", "chat_model.py")
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    told = ast.literal_eval(last.value)
    assert told.startswith("Deprecated values:")
    return set(texts(tree)) - set(re.findall(r'"([^"]+)"', told))


def googles() -> set[str]:
    google = next(provider for provider in providers if provider.id == "google")
    return {model.id for model in google.models if model.id.startswith("gemini-") and not model.deprecated}


CURRENT = anthropics() | openais() | googles()
PAGES = [page for page in pages() if page.name != "CHANGELOG.md"]
FILES = [*PAGES, *under(*SHIPPED), *under(*SHIPPED, suffix=".yaml")]


def test_what_is_current_is_known() -> None:
    assert {name.split("-")[0] for name in CURRENT} >= {"claude", "gpt", "gemini"}
    assert {"claude-1.3", "gpt-3.5-turbo", "gemini-2.5-flash-image"} & CURRENT == set()


@pytest.mark.parametrize("path", [path for path in FILES if NAME.search(path.read_text(encoding="utf-8"))], ids=place)
def test_a_model_that_a_page_or_a_shipped_file_names_is_current(path: Path) -> None:
    named = set(NAME.findall(path.read_text(encoding="utf-8")))
    assert named - CURRENT == set(), "see CONTRIBUTING.md, How to add: a model's name in an example"


def test_pages_and_shipped_files_name_models() -> None:
    assert any(NAME.search(page.read_text(encoding="utf-8")) for page in PAGES)
    assert NAME.search((ROOT / "gateway" / "cli" / "starter.yaml").read_text(encoding="utf-8"))
