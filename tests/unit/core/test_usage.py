from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pricing import Price
from gateway.core.upstream_json import decoded, members_of
from gateway.core.usage import Usage, UsageSource, find_usage, read_usage, usage_in_tail
from tests.unit.core.recordings import needs_recordings, recordings

anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400)
counts = ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"]
cached = ["cache_read_input_tokens", "cache_creation_input_tokens"]
details = ["prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"]
reports = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(counts + cached, anything)
    | {
        name: anything | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), anything)
        for name in details
    },
)


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 45, "total_tokens": 57}, Usage(12, 45)),
        ({"prompt_tokens": 12, "completion_tokens": 45}, Usage(12, 45)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
        ({"completion_tokens": 7}, Usage(0, 7)),
        ({"input_tokens": 366, "output_tokens": 59, "total_tokens": 425}, Usage(366, 59)),
        ({"prompt_tokens": None, "input_tokens": 5, "output_tokens": 1}, Usage(5, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 2.0}, Usage(9, 2)),
        ({"prompt_tokens": -4, "completion_tokens": 2}, Usage(0, 2)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(10, 5, cached_input=4),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(10, 5, reasoning=3),
        ),
    ],
)
def test_a_report_is_read(report: dict[str, Any], usage: Usage) -> None:
    assert read_usage(report) == usage


def test_what_the_total_has_above_the_sum_is_output() -> None:
    # api.x.ai: reasoning is in total_tokens alone.
    report = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 354}
    report_with_details = {**report, "completion_tokens_details": {"reasoning_tokens": 340}}
    assert read_usage(report) == read_usage(report_with_details) == Usage(12, 342, reasoning=340)


def test_a_total_below_the_sum_takes_nothing_away() -> None:
    assert read_usage({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 3}) == Usage(12, 2)


def test_cached_input_beside_the_input_is_added_to_it() -> None:
    # Anthropic counts both caches beside input_tokens, and only what is read costs less.
    report = {
        "input_tokens": 21,
        "output_tokens": 13,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 7,
    }
    assert read_usage(report) == Usage(128, 13, cached_input=100)


def test_parts_are_never_more_than_the_whole() -> None:
    report = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    assert read_usage(report) == Usage(3, 2, cached_input=3, reasoning=2)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"total_tokens": 5},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "12", "completion_tokens": "3"},
        {"prompt_tokens": True, "completion_tokens": False},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
        {"prompt_tokens": 10**400, "completion_tokens": 10**13},
        {"prompt_tokens": [1], "completion_tokens": {"a": 1}},
        {"cost": 0.1},
    ],
)
def test_a_report_without_a_believable_count_is_none(report: dict[str, Any]) -> None:
    assert read_usage(report) is None


@given(reports)
def test_no_report_raises_or_gives_what_cannot_be(report: dict[str, Any]) -> None:
    usage = read_usage(report)
    if usage is not None:
        assert 0 <= usage.cached_input <= usage.input < 10**14
        assert 0 <= usage.reasoning <= usage.output < 10**14
        assert all(isinstance(count, int) for count in msgspec.structs.astuple(usage)[:4])
        assert usage.source is UsageSource.REPORTED


@needs_recordings
@pytest.mark.parametrize(("stream", "report"), recordings("chat", "legacy", "messages", "responses"))
def test_what_real_servers_report_adds_up(stream: bytes, report: dict[str, Any] | None) -> None:
    if report is None:
        return
    usage = read_usage(report)
    assert usage is not None
    assert usage.total == report.get("total_tokens", usage.total)
    assert usage.output >= (report.get("completion_tokens") or report.get("output_tokens") or 0)


PRICE = Price(input=150_000, output=600_000, cached_input=70_000)


def test_cost_is_by_the_token_and_cached_input_costs_less() -> None:
    assert PRICE.cost(Usage(1_000_000, 0)) == 150_000
    assert PRICE.cost(Usage(0, 1_000_000)) == 600_000
    assert PRICE.cost(Usage(1_000_000, 1_000_000, cached_input=1_000_000)) == 670_000
    assert PRICE.cost(Usage()) == 0


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_cost_is_rounded_half_up_to_whole_micro_dollars(entered: int, output: int, cached_input: int) -> None:
    cached_input = min(cached_input, entered)
    exact = (entered - cached_input) * 150_000 + output * 600_000 + cached_input * 70_000
    cost = PRICE.cost(Usage(entered, output, cached_input))
    assert isinstance(cost, int)
    assert -500_000 < cost * 1_000_000 - exact <= 500_000


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
