from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.upstream_json import (
    Nullable,
    decoded,
    ends_choice,
    error_message,
    find_usage,
    has_choice,
    members_of,
    present,
    usage_in_tail,
)

USAGE = {
    "prompt_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 1, "more": {"audio": 0}},
    "completion_tokens_details": {"reasoning_tokens": 2},
    "completion_tokens": 5,
}
PATHS = (("usage",), ("x_groq", "usage"))
BEFORE = ["", 'xt","usage":{"prompt_tokens":9}},{"a":"', '"usage":null,', '\\"usage\\": {}"},']
HALVES = ["", '"usage"', '"usage":', '"usage":null}', '"usage":{"a":', 'usage":{"a":1}', '"usage":1,{}']


def of(text: str) -> dict[str, Any]:
    members = members_of(text.encode())
    assert members is not None
    return members


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "before", ["", 'xt","usage":{"prompt_tokens":9}},{"a":"', '"usage":null,', '\\"usage\\": {}"},']
)
@pytest.mark.parametrize("after", ["}", '},"timings":{"a":1}}\n\n', ',"choices":[]}'])
def test_the_last_usage_of_a_tail_is_found_with_all_its_parts(before: str, after: str, indent: int | None) -> None:
    text = before + '"usage" : ' + json.dumps(USAGE, indent=indent) + after
    report = usage_in_tail(text.encode())
    assert report is not None
    assert decoded(report) == USAGE


@pytest.mark.parametrize(
    "text", ["", '"usage"', '"usage":', '"usage":null}', '"usage":{"a":', 'usage":{"a":1}', '"usage":1,{}']
)
def test_a_tail_without_a_whole_usage_has_none(text: str) -> None:
    assert usage_in_tail(text.encode()) is None


def test_a_tail_made_of_usages_is_searched_in_the_time_of_a_test() -> None:
    assert usage_in_tail(b'"usage":{' * 3_600) is None
    assert usage_in_tail(b'"usage"' * 4_600 + b"{") is None


@given(st.text(alphabet='"usage:{} \n,1', max_size=60))
def test_no_tail_raises(text: str) -> None:
    report = usage_in_tail(text.encode())
    assert report is None or isinstance(decoded(report), dict)


@pytest.mark.parametrize(
    ("chunk", "found"),
    [
        ({"usage": {"a": 1}}, {"a": 1}),
        ({"usage": None, "x_groq": {"usage": {"a": 2}}}, {"a": 2}),
        ({"usage": {"a": 1}, "x_groq": {"usage": {"a": 2}}}, {"a": 1}),
        ({"usage": {}, "x_groq": {"usage": {"a": 2}}}, {"a": 2}),
        ({"x_groq": {"usage": None}}, None),
        ({"x_groq": None}, None),
        ({"x_groq": "usage"}, None),
        ({"usage": []}, None),
        ({"usage": "5"}, None),
        ({"choices": [{"usage": {"a": 1}}]}, None),
        ({}, None),
    ],
)
def test_usage_is_found_at_the_first_path_that_leads_to_one(chunk: dict[str, Any], found: Any) -> None:
    report = find_usage(of(json.dumps(chunk)), PATHS)
    assert (decoded(report) if report is not None else None) == found


@pytest.mark.parametrize(
    ("text", "null"),
    [
        (b'{"a":1}', True),
        (b'{"usage":null}', True),
        (b'{"usage": null}', True),
        (b'{"usage":null}{"usage":null}', True),
        (b'{"usage":{}}', False),
        (b'{"usage":null}{"usage":{}}', False),
        (b'{"usage" :null}', False),
        (b'{"a":"\\"usage\\":1"}', True),
    ],
)
def test_a_member_without_a_value_is_told_from_one_with(text: bytes, null: bool) -> None:
    assert Nullable("usage").is_null(text) is null


@pytest.mark.parametrize(
    ("choices", "chosen", "ends"),
    [
        ("[]", False, False),
        ("null", False, False),
        ('[{"finish_reason":null}]', True, False),
        ('[{"finish_reason":""}]', True, False),
        ("[{}]", True, False),
        ('[{"finish_reason":"stop"}]', True, True),
        ('[{"finish_reason":null},{"finish_reason":"length"}]', True, True),
        ('["stop"]', True, False),
        ('{"finish_reason":"stop"}', True, False),
        ("5", True, False),
    ],
)
def test_choices_tell_whether_one_ends(choices: str, chosen: bool, ends: bool) -> None:
    chunk = of(f'{{"choices":{choices}}}')
    assert (has_choice(chunk), ends_choice(chunk)) == (chosen, ends)


def test_a_chunk_without_choices_has_none() -> None:
    assert (has_choice(of("{}")), ends_choice(of("{}"))) == (False, False)


def test_null_is_not_present() -> None:
    chunk = of('{"a":null,"b":0,"c":""}')
    assert [present(chunk, name) for name in "abcd"] == [False, True, True, False]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long"}}', "too long"),
        (b'{"message":"too long"}', "too long"),
        (b'{"error":"too long"}', "it gave no reason."),
        (b'{"error":{"message":5}}', "it gave no reason."),
        (b"<html>", "it gave no reason."),
        (b"", "it gave no reason."),
    ],
)
def test_an_error_body_says_what_it_can(body: bytes, message: str) -> None:
    assert error_message(body) == message


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_report_nothing(body: bytes) -> None:
    members = members_of(body)
    assert members is None or isinstance(members, dict)
    error_message(body)
    error_message(b'{"error":' + body + b"}")
