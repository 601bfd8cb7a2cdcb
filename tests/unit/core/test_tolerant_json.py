from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tolerant_json import DEPTH_MAX, TOKEN_MAX, VALUES_MAX, JsonScanner, scan, wanted_members

WANTED = wanted_members([("usage",), ("type",), ("response", "usage"), ("data", "*", ""), ("choices", "*", "usage")])
PLAIN = b'{"usage": {"prompt_tokens": 11, "completion_tokens": 7}}'
USAGE = {"usage": {"prompt_tokens": 11, "completion_tokens": 7}}

names = st.sampled_from(["usage", "type", "response", "data", "choices", "a", "*", ""])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text('ab"\\{}[]:,/*#\n\u00e9\u2028\U0001f600', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def in_pieces(text: bytes, size: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    scanner = JsonScanner(WANTED, found.append)
    for begin in range(0, len(text), size):
        scanner.feed(text[begin : begin + size])
    scanner.close()
    return found


def picked(value: Any, wanted: Any) -> Any:
    """What a scanner must give of a decoded value."""
    if wanted is None:
        return value
    if isinstance(value, dict):
        return {
            name: picked(each, wanted[name])
            for name, each in value.items()
            if name in wanted and kept(each, wanted[name])
        }
    return [picked(each, wanted["*"]) if kept(each, wanted["*"]) else None for each in value] if "*" in wanted else []


def kept(value: Any, wanted: Any) -> bool:
    return wanted is None or isinstance(value, dict | list)


@given(st.dictionaries(names, values, max_size=6), st.booleans(), st.integers(1, 9))
def test_of_valid_json_it_gives_what_a_strict_parser_gives(value: dict[str, Any], is_ascii: bool, size: int) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    assert in_pieces(text, size) == scan(text, WANTED) == [picked(value, WANTED)]


@given(st.lists(st.dictionaries(names, values, max_size=3), max_size=3))
def test_each_element_of_an_array_at_the_top_is_an_object_by_itself(elements: list[dict[str, Any]]) -> None:
    assert scan(json.dumps(elements).encode(), WANTED) == [picked(each, WANTED) for each in elements]


@given(st.binary(max_size=200) | st.text('{}[]",:\\/*#ab1. \n', max_size=80).map(str.encode), st.integers(1, 7))
def test_no_text_makes_it_raise_and_pieces_change_nothing(text: bytes, size: int) -> None:
    assert in_pieces(text, size) == scan(text, WANTED)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xef\xbb\xbf" + PLAIN, id="byte order mark"),
        pytest.param(b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + PLAIN, id="comment lines of a stream"),
        pytest.param(b': an "open quote and a {\n' + PLAIN, id="a comment line with marks in it"),
        pytest.param(b'// "usage": {"prompt_tokens": 1}\n# {\n/* [ " */' + PLAIN, id="comments before"),
        pytest.param(PLAIN.replace(b"{", b'{ /* } " */ "x": 1, // }\n', 1), id="comments within"),
        pytest.param(PLAIN.replace(b"{", b'{"t": "caf\\ud83d", ', 1), id="lone surrogate"),
        pytest.param(PLAIN.replace(b"{", b'{"t": "\xff\xfe", ', 1), id="wrong UTF-8"),
        pytest.param(PLAIN.replace(b"{", b'{"t": "a\tb\x00\n", ', 1), id="control characters in a string"),
        pytest.param(PLAIN.replace(b"{", b'{"t": "\\x\\q", ', 1), id="unknown escapes"),
        pytest.param(PLAIN.replace(b"{", b'{"t": [NaN, -Infinity, Infinity], ', 1), id="numbers that are none"),
        pytest.param(PLAIN.replace(b"{", b'{"t": , "u" "v", ', 1), id="missing value and colon"),
        pytest.param(PLAIN.replace(b"7}}", b"7,},}"), id="trailing commas"),
        pytest.param(PLAIN[:-1], id="last brace missing"),
        pytest.param(PLAIN[:-1] + b', "response": {"usage": {"a": 1}, "x": [', id="cut in another member"),
        pytest.param(PLAIN[:-1] + b', "choices": [{"message": {"content": "and th', id="cut in a string"),
        pytest.param(PLAIN + b"\n\nserver: bye", id="text behind"),
        pytest.param(PLAIN.replace(b'"usage"', b'"\\u0075sage"'), id="escaped name"),
    ],
)
def test_what_a_strict_parser_refuses_is_read(text: bytes) -> None:
    assert scan(text, WANTED)[0]["usage"] == in_pieces(text, 1)[0]["usage"] == USAGE["usage"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"content": PLAIN.decode()}).encode(),
        json.dumps({"content": '\\"}' + PLAIN.decode()}).encode(),
        json.dumps({"content": '/* "' + PLAIN.decode()}).encode(),
        json.dumps({"tools": [{"parameters": USAGE}], "data": [USAGE], "response": {"tools": USAGE}}).encode(),
        b'{"content": "' + json.dumps(PLAIN.decode())[1:-1].encode(),
    ],
)
def test_no_usage_inside_a_string_or_at_another_path_is_taken(text: bytes) -> None:
    for found in (scan(text, WANTED), in_pieces(text, 1)):
        assert all("usage" not in each and "usage" not in each.get("response", {}) for each in found)


@pytest.mark.parametrize("before", [b"He said: ", b'"', b'"a string" ', b"12 ", b"<html>", b"x\n", b"\x00", b"/ "])
def test_text_in_front_of_an_object_makes_it_no_json(before: bytes) -> None:
    assert scan(before + PLAIN, WANTED) == in_pieces(before + PLAIN, 1) == []
    assert scan(PLAIN + before + PLAIN, WANTED) == in_pieces(PLAIN + before + PLAIN, 1) == [USAGE]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_wanted_value_that_is_cut_is_not_taken(size: int) -> None:
    for cut in range(2, len(PLAIN) - len(b'{"usage": ')):
        assert in_pieces(b'{"type": "t", ' + PLAIN[1:-cut], size) in ([{"type": "t"}], [{"type": "t", "usage": None}])
    assert in_pieces(b'{"usage": 12', size) == [{}]
    assert in_pieces(b'{"choices": [{"usage": 1}, {"usage": {"a": [1, 2', size) == [{"choices": [{"usage": 1}, {}]}]


def test_the_last_of_two_equal_names_counts() -> None:
    assert scan(b'{"usage": {"a": 1}, "usage": {"a": 2}}', WANTED) == [{"usage": {"a": 2}}]


def test_elements_are_counted_without_being_kept() -> None:
    text = json.dumps({"data": [{"b64_json": "A" * 100_000}, {"url": "u"}, "text"]}).encode()
    assert scan(text, WANTED) == in_pieces(text, 1000) == [{"data": [{}, {}, None]}]


def test_a_long_string_has_no_value_but_ends_where_it_ends() -> None:
    long = "\\" * TOKEN_MAX + '"}' * TOKEN_MAX
    text = json.dumps({"type": long, "x": {"y": long}, **USAGE}).encode()
    assert scan(text, WANTED)[0]["usage"] == USAGE["usage"]
    for size in (1, 7, 4096):
        assert in_pieces(text, size)[0] == {"type": None, **USAGE}


@pytest.mark.parametrize("size", [1, 3, 5000])
def test_a_long_comment_ends_where_it_ends(size: int) -> None:
    comments = b"/*" + b'*"{' * TOKEN_MAX + b"*/" + b"//" + b'"' * 2 * TOKEN_MAX + b"\n"
    assert in_pieces(comments + PLAIN, size) == [USAGE]


def test_what_is_deep_or_much_is_left_out() -> None:
    deep = b'{"usage": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b', "type": "t"}'
    assert scan(deep, WANTED)[0]["type"] == "t"
    found, depth = scan(deep, WANTED)[0]["usage"], 0
    while found:
        found, depth = found.get("a"), depth + 1
    assert depth < DEPTH_MAX
    much = json.dumps({"usage": [0] * 3 * VALUES_MAX, "type": "t"}).encode()
    assert len(scan(much, WANTED)[0]["usage"]) <= VALUES_MAX


def test_a_shorter_path_wants_all_that_longer_ones_do() -> None:
    wanted = wanted_members([("a",), ("a", "b"), ("c", "d"), ()])
    assert scan(b'{"a": {"b": 1, "x": 2}, "c": {"d": 3, "e": 4}}', wanted) == [{"a": {"b": 1, "x": 2}, "c": {"d": 3}}]
