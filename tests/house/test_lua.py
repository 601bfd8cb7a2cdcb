"""The heads of the Lua scripts: one sentence, every key, every argument, what comes back."""

from __future__ import annotations

import re
from pathlib import Path

from tests.house.tree import ROOT, files, place

INPUT = re.compile(r"\b(?:KEYS|ARGV)\[\d+\]")
OPENING = re.compile(r"[A-Z](?:[^.]|\.\w)*\.")


def test_every_script_opens_with_one_sentence() -> None:
    openings = {place(script): re.split(r"\n\n|\n(?=KEYS|ARGV|Returns)", _head(script))[0] for script in _scripts()}
    assert {name: text for name, text in openings.items() if not OPENING.fullmatch(text)} == {}


def test_every_script_names_the_keys_and_arguments_that_it_reads() -> None:
    unnamed = {place(script): _inputs(_code(script)) - _inputs(_head(script)) for script in _scripts()}
    assert {name: inputs for name, inputs in unnamed.items() if inputs} == {}


def test_every_script_says_what_it_returns() -> None:
    silent = [script for script in _scripts() if not re.search(r"^Returns\b", _head(script), re.MULTILINE)]
    assert [place(script) for script in silent if re.search(r"^return\b", _code(script), re.MULTILINE)] == []


def _scripts() -> list[Path]:
    scripts = [path for path in files() if path.suffix == ".lua"]
    assert scripts or not (ROOT / "gateway/store/in_redis").exists()
    return scripts


def _head(script: Path) -> str:
    """The comment that a script opens with, without its dashes."""
    lines = script.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("--").strip() for line in lines[: _size(lines)])


def _code(script: Path) -> str:
    lines = script.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[_size(lines) :])


def _size(lines: list[str]) -> int:
    return next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))


def _inputs(text: str) -> set[str]:
    return set(INPUT.findall(text))
