from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from gateway.settings.document import MAX_DEPTH, Document, NotYaml, read
from gateway.settings.interpolation import References


def document(text: str) -> Document:
    return read(text, References({"NAME": "value"}, Path()))


def refusal(text: str) -> tuple[int, str]:
    with pytest.raises(NotYaml) as refused:
        document(text)
    return refused.value.line, refused.value.message


def test_every_path_has_the_line_that_it_stands_on() -> None:
    read = document("a: 1\nb:\n  c:\n    - x\n    - {d: y}\n")
    lines = {(): 1, ("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 4, ("b", "c", 1): 5, ("b", "c", 1, "d"): 5}
    assert {path: read.place(path).line for path in lines} == lines


def test_a_path_that_is_not_written_has_the_line_of_what_it_belongs_to() -> None:
    read = document("a: 1\nb:\n  c:\n    - x\n")
    missing = {("z",): 1, ("b", "z"): 2, ("b", "c", 7): 3, ("b", "c", 0, "z"): 4, ("a", 0): 1}
    assert {path: read.place(path).line for path in missing} == missing


def test_a_scalar_keeps_its_text_whatever_yaml_takes_it_for() -> None:
    data = document("[no, 0123, 12:30, 1_000, 5e88, 2027-01-01, 0x1F, .inf, 'true', 0.10]").data
    assert data == ["no", "0123", "12:30", "1_000", "5e88", "2027-01-01", "0x1F", ".inf", "true", "0.10"]


def test_a_value_that_is_left_out_is_none_and_a_quoted_one_is_not() -> None:
    assert document("{a: , b: ~, c: null, d: '', e: 'null'}").data == {
        "a": None,
        "b": None,
        "c": None,
        "d": "",
        "e": "null",
    }


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_an_empty_file_is_none(text: str) -> None:
    assert document(text).data is None


def test_an_alias_repeats_what_it_names_under_its_own_path() -> None:
    read = document("a: &usual {x: 1}\nb: *usual\n")
    assert read.data == {"a": {"x": "1"}, "b": {"x": "1"}}
    assert read.place(("b", "x")).line == 1
    assert read.place(("b",)).line == 2


def test_a_key_that_is_set_twice_names_both_lines() -> None:
    diagnostics = document("a:\n  b: 1\n  c: 2\n  b: 3\n").diagnostics
    assert [(diagnostic.path, diagnostic.message, diagnostic.line) for diagnostic in diagnostics] == [
        (("a", "b"), "is set twice, first on line 2", 4)
    ]


@pytest.mark.parametrize("key", ["? [1, 2]\n", "? {a: 1}\n", "? ~\n"])
def test_a_key_that_is_not_text_is_refused(key: str) -> None:
    (diagnostic,) = document(f"x: 1\n{key}: 2\n").diagnostics
    assert (diagnostic.line, diagnostic.message) == (2, "a key is not text; write a name before the colon")


def test_a_merge_key_is_refused_with_what_to_write_instead() -> None:
    (diagnostic,) = document("a: &a {x: 1}\nb:\n  <<: *a\n").diagnostics
    assert (diagnostic.path, diagnostic.line) == (("b",), 3)
    assert diagnostic.message.startswith("merge keys (`<<`) are not supported; name a whole value with &")


def test_a_reference_in_a_key_is_refused() -> None:
    (diagnostic,) = document("${NAME}: 1\n").diagnostics
    assert diagnostic.message == "a key cannot be a reference such as ${NAME}; only values are replaced"


def test_a_dash_without_a_value_is_refused() -> None:
    (diagnostic,) = document("a:\n  - 1\n  -\n").diagnostics
    assert diagnostic[:2] == (("a", 1), "is empty; write a value or remove the dash")


QUOTES = "; put text that begins with one of [ { * & ! % @ ` in quotes, such as '[::]:8080'"
BRACKET = "; the [ of line 1 is not closed, or a comma is missing"
SPACES = "; indent with spaces, not with tabs"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1\nb: 2\n", 2, f"is not YAML: did not find expected ',' or ']'{BRACKET}"),
        ("a: 1\nb: [", 2, "is not YAML: did not find expected node content"),
        ("a: 1\nb: [::]:8080\n", 2, f"is not YAML: did not find expected node content{QUOTES}"),
        ("a: 1\nb: [x]y\n", 2, f"is not YAML: did not find expected key{QUOTES}"),
        ("a: 1\nb: {c: [*]}\n", 2, f"is not YAML: did not find expected alphabetic or numeric character{QUOTES}"),
        ("a: 1\nb: @c\n", 2, f"is not YAML: found character that cannot start any token{QUOTES}"),
        ("a:\n\tb: 1\n", 2, f"is not YAML: found character that cannot start any token{SPACES}"),
        ("a: 1\nb: !!int 3\n", 2, "YAML tags (`!…`) are not supported; write the plain value"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "YAML tags (`!…`) are not supported; write the plain value"),
        ("a: 1\n--- \nb: 1\n", 2, "a second YAML document begins here; a configuration is one"),
        ("a: *nothing\n", 1, "an alias names nothing before it; put text that begins with * in quotes"),
        ("a: &a\n  b: *a\n", 2, "an alias names nothing before it; put text that begins with * in quotes"),
        ("a: 1\nb: \x07\n", 2, "contains a control or private-use character"),
        ("a: \ue0000\ue001\n", 1, "contains a control or private-use character"),
        ("a: 1\nb: \x00\n", 2, "contains a control or private-use character"),
        ("\n" + "[" * 100, 2, f"nested deeper than {MAX_DEPTH} levels"),
        ("{a: " * 100_000, 1, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    assert refusal(text) == (line, message)


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    levels = "".join(f"{name}: &{name} [{', '.join([f'*{inner}'] * 10)}]\n" for inner, name in pairwise("abcdefghi"))
    line, message = refusal("a: &a [x]\n" + levels)
    assert message == "its aliases amount to more than 1000000 values"
    assert line == 7


@pytest.mark.parametrize(("spaces", "is_hinted"), [(0, True), (2_000, False)])
def test_a_hint_is_searched_for_at_the_beginning_of_a_long_line_alone(spaces: int, is_hinted: bool) -> None:
    assert ("in quotes" in refusal(f"a: {' ' * spaces}[::]:80")[1]) is is_hinted
