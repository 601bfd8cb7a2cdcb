"""What is most often wrong with a text that is not YAML. The parser's own words name what it expected where it stopped;
the mistake is often a line earlier, and another one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

_NEEDS_QUOTES = re.compile(r"(?:^|[:,[{-])\s*(?:[*&!%@`]|\[[^]]*\][^\s,\]}]|\{[^}]*\}[^\s,\]}])")
"""Text that begins with a character that YAML has a use for, such as an IPv6 address with a port, or a glob."""
_OPEN_REFERENCE = re.compile(r"(?<!\$)\$\{(?:[A-Za-z_][A-Za-z0-9_]*(?:[^A-Za-z0-9_:}]|$)|[^}]*$)")
_SEARCHED_CHARACTERS = 1_000
"""How much of a line is searched: a search takes time by the square of the length."""


class Hint(NamedTuple):
    """`text` says what to do, and is empty where nothing is known. `line` is where, if it is not where the parser
    stopped."""

    text: str
    line: int = 0


class _ParserStop(NamedTuple):
    """Where the parser stopped, at `line`, while it read what begins at `start_line`; both count from 1, `column` from
    0. `expected` is what it says."""

    lines: list[str]
    line: int
    column: int
    start_line: int
    context: str
    expected: str

    def text(self, line: int) -> str:
        return self.lines[line - 1][:_SEARCHED_CHARACTERS] if 0 < line <= len(self.lines) else ""


def find_hint(text: str, error: Any) -> Hint:
    """A hint for a yaml.MarkedYAMLError, with its line."""
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    if mark is None:
        return Hint("")
    lines = text.splitlines()
    # What is missing at the end of the text is missed on the line after it.
    line = min(mark.line + 1, len(lines))
    start_line = start.line + 1 if start else line
    stop = _ParserStop(lines, line, mark.column, start_line, error.context or "", error.problem or "")
    found = next((hint for look in _LOOKS if (hint := look(stop))), Hint(""))
    return found if found.line else found._replace(line=line)


def _wrong_space(stop: _ParserStop) -> Hint | None:
    if "\t" in _indentation(stop.text(stop.line)):
        return Hint("indent with spaces, not with tabs")
    for line in (stop.line - 1, stop.line):
        if "\xa0" in _indentation(stop.text(line)):
            return Hint("indent with spaces; this line begins with a no-break space", line)
    return None


def _open_reference(stop: _ParserStop) -> Hint | None:
    for line in range(stop.start_line, stop.line + 1):
        if _OPEN_REFERENCE.search(stop.text(line)):
            return Hint("a `${` is not closed", line)
    return None


def _needs_quotes(stop: _ParserStop) -> Hint | None:
    if not _NEEDS_QUOTES.search(stop.text(stop.line)) or _begins_line(stop):
        return None
    return Hint("put text that begins with one of [ { * & ! % @ ` in quotes, such as '[::]:8080'")


def _open_quote(stop: _ParserStop) -> Hint | None:
    if stop.context != "while scanning a quoted scalar":
        return None
    return Hint("the quote that opens on this line is not closed", stop.start_line)


def _open_bracket(stop: _ParserStop) -> Hint | None:
    kind = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}.get(stop.context)
    if kind is None:
        return None
    where = "" if stop.start_line == stop.line else f" of line {stop.start_line}"
    return Hint(f"the {kind}{where} is not closed, or a comma is missing")


def _no_colon(stop: _ParserStop) -> Hint | None:
    if stop.context != "while scanning a simple key":
        return None
    return Hint("a name needs a colon and a space after it", stop.start_line)


def _value_and_more(stop: _ParserStop) -> Hint | None:
    if not stop.expected.startswith("mapping values are not allowed"):
        return None
    if stop.text(stop.line).count(": ") > 1:
        return Hint("put text with a colon and a space in it in quotes")
    return Hint("indent this line like the one before it, or put text with a colon in it in quotes")


def _wrong_indentation(stop: _ParserStop) -> Hint | None:
    if not _begins_line(stop) or not stop.context.startswith("while parsing a block"):
        return None
    spaces = len(_indentation(stop.text(stop.start_line)))
    section = f"line {stop.start_line}, where its section begins"
    return Hint(f"this line is indented by {stop.column} spaces, and {section}, by {spaces}")


def _begins_line(stop: _ParserStop) -> bool:
    return stop.column == len(_indentation(stop.text(stop.line)))


def _indentation(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


_LOOKS: tuple[Callable[[_ParserStop], Hint | None], ...] = (
    _wrong_space,
    _open_reference,
    _open_quote,
    _wrong_indentation,
    _needs_quotes,
    _open_bracket,
    _no_colon,
    _value_and_more,
)
