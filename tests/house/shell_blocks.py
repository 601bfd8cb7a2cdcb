"""The commands of the documentation: shell blocks of Markdown, joined over line ends, without comments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.house.tree import ROOT, files

_BLOCK = re.compile(r"^( *)```(?:sh|console)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INDEX = re.compile(r"^\| (?:\S+ )*?\| *`([^`]+)`", re.MULTILINE)
_JOINS = re.compile(r"\s*(?:&&|\|\||;|\|)\s*")


class Block(NamedTuple):
    page: Path
    text: str


def pages() -> list[Path]:
    """What readers follow. A decision is left as it was taken."""
    found = [path for path in files() if path.suffix == ".md" and path.relative_to(ROOT).parts[0] != "tests"]
    return [path for path in found if "decisions" not in path.parts]


def blocks() -> Iterator[Block]:
    for page in pages():
        for indent, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            yield Block(page, "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True)))


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command, without quoting, assignments and redirections of a word of their own."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            continue  # A quoted text goes over several lines.
        yield from _simple(words)


def _simple(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in [*words, ";"]:
        if word and set(word) <= set("();<>|&"):
            if command and word not in ("<", ">"):
                yield command
                command = []
        elif command or not re.match(r"^\w+=|^(then|do|else|if|while|for|set|exec)$", word):
            command.append(word)
