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


class _Place(NamedTuple):
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
    place = _Place(lines, line, mark.column, start_line, error.context or "", error.problem or "")
    found = next((hint for look in _LOOKS if (hint := look(place))), Hint(""))
    return found if found.line else found._replace(line=line)


def _wrong_space(place: _Place) -> Hint | None:
    if "\t" in _indentation(place.text(place.line)):
        return Hint("indent with spaces, not with tabs")
    for line in (place.line - 1, place.line):
        if "\xa0" in _indentation(place.text(line)):
            return Hint("indent with spaces; this line begins with a no-break space", line)
    return None


def _open_reference(place: _Place) -> Hint | None:
    for line in range(place.start_line, place.line + 1):
        if _OPEN_REFERENCE.search(place.text(line)):
            return Hint("a `${` is not closed", line)
    return None


def _needs_quotes(place: _Place) -> Hint | None:
    if not _NEEDS_QUOTES.search(place.text(place.line)) or _begins_line(place):
        return None
    return Hint("put text that begins with one of [ { * & ! % @ ` in quotes, such as '[::]:8080'")


def _open_quote(place: _Place) -> Hint | None:
    if place.context != "while scanning a quoted scalar":
        return None
    return Hint("the quote that opens on this line is not closed", place.start_line)


def _open_bracket(place: _Place) -> Hint | None:
    kind = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}.get(place.context)
    if kind is None:
        return None
    where = "" if place.start_line == place.line else f" of line {place.start_line}"
    return Hint(f"the {kind}{where} is not closed, or a comma is missing")


def _no_colon(place: _Place) -> Hint | None:
    if place.context != "while scanning a simple key":
        return None
    return Hint("a name needs a colon and a space after it", place.start_line)


def _value_and_more(place: _Place) -> Hint | None:
    if not place.expected.startswith("mapping values are not allowed"):
        return None
    if place.text(place.line).count(": ") > 1:
        return Hint("put text with a colon and a space in it in quotes")
    return Hint("indent this line like the one before it, or put text with a colon in it in quotes")


def _wrong_indentation(place: _Place) -> Hint | None:
    if not _begins_line(place) or not place.context.startswith("while parsing a block"):
        return None
    spaces = len(_indentation(place.text(place.start_line)))
    section = f"line {place.start_line}, where its section begins"
    return Hint(f"this line is indented by {place.column} spaces, and {section}, by {spaces}")


def _begins_line(place: _Place) -> bool:
    return place.column == len(_indentation(place.text(place.line)))


def _indentation(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


_LOOKS: tuple[Callable[[_Place], Hint | None], ...] = (
    _wrong_space,
    _open_reference,
    _open_quote,
    _wrong_indentation,
    _needs_quotes,
    _open_bracket,
    _no_colon,
    _value_and_more,
)
