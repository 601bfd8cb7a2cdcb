"""The commands of the documentation are commands: what needs a cluster, Docker or root is checked as far as it goes
without; tests/journeys/test_docs_are_followed.py runs the others."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from gateway.__main__ import main
from tests.house.shell_blocks import Block, blocks, commands, pages
from tests.house.tree import ROOT, functions, parsed, place, under

TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
QUOTED = re.compile(r"`((?:gateway|make|\.venv/bin/pytest) [a-z][^`]*)`")
OURS = ("helm/", "config/", "deploy/", "requirements/", "docs/")
BLOCKS = list(blocks())


def named(program: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of that program, in blocks and in the text, with its page."""
    texts = [(block.page, block.text) for block in BLOCKS]
    texts += [(page, quoted) for page in pages() for quoted in QUOTED.findall(page.read_text(encoding="utf-8"))]
    for page, text in texts:
        yield from ((place(page), words[1:]) for words in commands(text) if words[0].rpartition("/")[2] == program)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page.stem}-{block.text[:20]!r}")
def test_every_block_can_be_read_by_a_shell(block: Block) -> None:
    read = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert read.returncode == 0, f"{place(block.page)}: {read.stderr}"


def test_every_gateway_command_and_option_is_there() -> None:
    found = list(named("gateway"))
    assert found
    assert [f"{page}: gateway {' '.join(words)}: {why}" for page, words in found for why in _unknown(main, words)] == []


def test_every_target_of_make_is_there() -> None:
    files = [ROOT / "Makefile", *ROOT.glob("*.mk")]
    targets = {name for file in files for name in TARGET.findall(file.read_text(encoding="utf-8"))}
    asked = {word for _, words in named("make") for word in words if re.fullmatch("[a-z][a-z-]*", word)}
    assert asked
    assert asked - targets == set()


def test_every_file_of_the_repository_that_a_command_names_is_there() -> None:
    words = {word for block in BLOCKS for command in commands(block.text) for word in command}
    assert [word for word in words if word.startswith(OURS) and not (ROOT / word).exists()] == []


def test_every_choice_of_tests_that_a_page_makes_has_some() -> None:
    chosen = [words for _, words in named("pytest") if "-k" in words]
    assert chosen
    for words in chosen:
        file, wanted = ROOT / words[0], words[words.index("-k") + 1]
        assert [each.name for each in functions(file) if each.name.startswith("test_") and wanted in each.name], words


def test_every_value_that_helm_is_given_is_the_charts() -> None:
    schema = json.loads((ROOT / "helm" / "inducta-gateway" / "values.schema.json").read_text(encoding="utf-8"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    given = re.findall(r"--set ([a-zA-Z.]+)=", text)
    assert given
    assert [path for path in given if not _has(schema, path.split("."))] == []


def _unknown(group: click.Command, words: list[str]) -> Iterator[str]:
    command, path = group, list(words)
    while isinstance(command, click.Group) and path and not path[0].startswith("-"):
        below = command.get_command(click.Context(command), path[0])
        if below is None:
            yield f"{path[0]} is no command"
            return
        command, path = below, path[1:]
    options = {name for option in command.params for name in option.opts} | {"--help", "--version"}
    given = (word.split("=")[0] for word in path if re.match("--?[a-z]", word))
    yield from (f"{name} is no option" for name in given if name not in options)


def _has(schema: dict[str, Any], path: list[str]) -> bool:
    for name in path:
        schema = schema.get("properties", {}).get(name)
        if schema is None:
            return False
    return True


def test_a_wrong_option_is_found() -> None:
    assert list(_unknown(main, ["usage", "--sine", "7d"])) == ["--sine is no option"]
    assert list(_unknown(main, ["usages"])) == ["usages is no command"]
    assert Path(ROOT / "README.md") in pages()


def test_no_option_is_declared_twice() -> None:
    declared: dict[str, list[str]] = defaultdict(list)
    for path in under("gateway"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.option":
                declared[ast.unparse(node)].append(place(path, node.lineno))
    assert len(declared) > 20, "else they are not found"
    assert {option: places for option, places in declared.items() if len(places) > 1} == {}
