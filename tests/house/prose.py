"""A linter of prose: `python -m tests.house.prose` reads what people read, and finds words that have a plainer term.

It reads the documentation, the texts of the program (help, errors, log, metrics, descriptions of settings),
docstrings and comments, the console's scripts, and comments of YAML that is shipped. words.yaml has the words, each
with what to write in its place. Code, quoted names and the targets of links are left out. Decisions and the changelog
are left as they were written.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.house.tree import ROOT, place, under

MAKEFILES = ("clients.mk", "console.mk", "deploy.mk", "robustness.mk")
WORDS = Path(__file__).parent / "words.yaml"
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"`[^`\n]*`|\]\([^)\n]*\)|https?://\S+|\{[^{}\n]*\}|<!--.*?-->")
_SENTENCE = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z*`\[])")
_BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)")
LONGEST_SENTENCE = 60
"""Words. Most sentences have fewer than 25; this is where one cannot be read in a breath."""

_COMMENT = re.compile(r"(?:^|\s)#(?!!)(.*)$", re.MULTILINE)
_STRINGS = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1))


class Text(NamedTuple):
    path: Path
    line: int
    prose: str


class Word(NamedTuple):
    pattern: re.Pattern[str]
    write: str


def known() -> list[Word]:
    """The entries of words.yaml; a pattern is a regular expression over whole words, in any case."""
    lists: dict[str, dict[str, str]] = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    entries = [entry for each in lists.values() for entry in each.items()]
    return [Word(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), write) for pattern, write in entries]


def texts() -> Iterator[Text]:
    for path in _pages():
        yield from _markdown(path)
    for path in under("deploy", "gateway", suffix=".py"):
        yield from _python(path)
    for path in under("gateway", suffix=".js"):
        if "vendor" not in path.parts:
            yield from _script(path)
    for path in under("config", "deploy", "gateway", "helm", suffix=".yaml"):
        yield from _comments(path)
    for path in (ROOT / name for name in ("Makefile", *MAKEFILES, "mkdocs.yml")):
        yield from _comments(path)


def findings(read: Iterator[Text], avoided: list[Word]) -> Iterator[str]:
    for text in read:
        prose = _NOT_PROSE.sub(_blank, text.prose)
        for word in avoided:
            for found in word.pattern.finditer(prose):
                line = text.line + prose.count("\n", 0, found.start())
                yield f'{place(text.path, line)}: "{found[0]}": write {word.write}'


def too_long(text: Text) -> Iterator[str]:
    """Sentences of a page that have to be split; tables are left out."""
    position = 0
    for block in _BLOCK.split(text.prose):
        position = text.prose.index(block, position)
        lengths = [len(sentence.split()) for sentence in _SENTENCE.split(" ".join(block.split()))]
        if max(lengths) > LONGEST_SENTENCE and not re.search(r"^ *\|", block, re.MULTILINE):
            line = text.line + text.prose.count("\n", 0, position)
            yield f"{place(text.path, line)}: split the sentence of {max(lengths)} words"


def _pages() -> Iterator[Path]:
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))
    yield from (path for path in under("docs", "helm", suffix=".md") if "decisions" not in path.parts)


def _markdown(path: Path) -> Iterator[Text]:
    yield Text(path, 1, _FENCE.sub(_blank, path.read_text(encoding="utf-8")))


def _python(path: Path) -> Iterator[Text]:
    """Docstrings, comments and texts; a text of one word is a name."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _STRINGS and " " in token.string.strip():
            yield Text(path, token.start[0], token.string)


def _script(path: Path) -> Iterator[Text]:
    """All of it: what a page says is in templates, which are between the marks of quoted names."""
    yield Text(path, 1, path.read_text(encoding="utf-8").replace("`", "'"))


def _comments(path: Path) -> Iterator[Text]:
    text = path.read_text(encoding="utf-8")
    for comment in _COMMENT.finditer(text):
        yield Text(path, text.count("\n", 0, comment.start(1)) + 1, comment[1])


def _blank(found: re.Match[str]) -> str:
    """Nothing, on as many lines."""
    return re.sub(r"[^\n]", " ", found[0])


def main() -> int:
    found = list(findings(texts(), known()))
    found += [each for page in _pages() for text in _markdown(page) for each in too_long(text)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
