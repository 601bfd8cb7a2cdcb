"""A text that is not YAML is refused with what to do about it, on the line where it is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.document import NotYaml, read
from gateway.settings.interpolation import References


def refusal(text: str) -> tuple[int, str]:
    """The line, and the hint behind the parser's words."""
    with pytest.raises(NotYaml) as refused:
        read(text, References({}, Path()))
    return refused.value.line, refused.value.message.partition("; ")[2]


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        (
            "a:\n   b: 1\n    c: 2\n",
            3,
            "indent this line like the one before it, or put text with a colon in it in quotes",
        ),
        (
            "a:\n  b:\n   c: [1]\n    d: 2\n",
            4,
            "this line is indented by 4 spaces, and line 3, where its section begins, by 3",
        ),
        (
            "a:\n   b: {c: 1}\n  d: 2\n",
            3,
            "this line is indented by 2 spaces, and line 1, where its section begins, by 0",
        ),
        ("a: b: c\n", 1, "put text with a colon and a space in it in quotes"),
        ("a:\n\xa0 b: [1]\n    c: 2\n", 2, "indent with spaces; this line begins with a no-break space"),
        ("a:\n\tb: 1\n", 2, "indent with spaces, not with tabs"),
        ('a: {key: "${NAME"}\nb: {c: 1}\n', 1, "a `${` is not closed"),
        ('a: 1\nb: "c\nd: 2\n', 2, "the quote that opens on this line is not closed"),
        ("a:\n  b: [{c: 1}, {d: 2}\n  e: 3\n", 3, "the [ of line 2 is not closed, or a comma is missing"),
        ("a: {b: 1 c: 2}\n", 1, "the { is not closed, or a comma is missing"),
        ("a: 1\nb\nc: 2\n", 2, "a name needs a colon and a space after it"),
        ("a: [*]\n", 1, "put text that begins with one of [ { * & ! % @ ` in quotes, such as '[::]:8080'"),
    ],
)
def test_the_hint_says_what_to_change_and_where(text: str, line: int, hint: str) -> None:
    assert refusal(text) == (line, hint)


def test_a_long_line_is_searched_in_a_moment() -> None:
    line, hint = refusal("a: 1\nb: [" + "{" * 20 + "," * 1_000_000)
    assert line == 2
    assert len(hint) < 200
