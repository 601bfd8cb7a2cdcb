from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage import Usage, UsageSource
from gateway.core.usage_fields import (
    ANTHROPIC_WORDS,
    AUDIO_WORDS,
    COHERE_WORDS,
    GEMINI_WORDS,
    OLLAMA_WORDS,
    OPENAI_WORDS,
    Vocabulary,
)
from gateway.core.usage_report import read_report, read_usage

VOCABULARIES = [OPENAI_WORDS, AUDIO_WORDS, ANTHROPIC_WORDS, GEMINI_WORDS, COHERE_WORDS, OLLAMA_WORDS]

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
        ({"prompt_tokens": -1, "completion_tokens": 2, "total_tokens": 9}, Usage(7, 2)),
        ({"prompt_tokens": "12", "completion_tokens": "3.0", "total_tokens": "15"}, Usage(12, 3)),
        (
            # As a server writes that has one structure for two APIs.
            {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 9, "input_tokens": 7, "output_tokens": 2},
            Usage(7, 2),
        ),
        ({"input_tokens": 0, "output_tokens": 0, "prompt_tokens": 7, "completion_tokens": 2}, Usage(7, 2)),
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
    assert read_usage(report) == Usage(128, 13, cached_input=100, cache_write=7)


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"prompt_tokens": 40, "completion_tokens": 25, "total_tokens": 108}, Usage(83, 25, 43)),
        ({"prompt_tokens": 40, "completion_tokens": 25, "total_tokens": 115}, Usage(83, 32, 43, 7)),
        ({"prompt_tokens": 40, "completion_tokens": 25}, Usage(83, 25, 43, 7)),
        ({"prompt_tokens": 43, "completion_tokens": 25}, Usage(43, 25, 43, 7)),
        ({"prompt_tokens": 40, "completion_tokens": 25, "total_tokens": 65}, Usage(40, 25, 40, 7)),
    ],
)
def test_cached_input_that_is_more_than_the_input_is_beside_it(report: dict[str, Any], usage: Usage) -> None:
    """As xAI has it now and then (https://github.com/vercel/ai/pull/12485)."""
    reasoning = {"completion_tokens_details": {"reasoning_tokens": 7}} if usage.reasoning else {}
    assert read_usage({**report, "prompt_tokens_details": {"cached_tokens": 43}, **reasoning}) == usage


def test_cached_input_that_is_added_already_does_not_make_another_part_more_than_the_input() -> None:
    report = {
        "input_tokens": 5,
        "cache_read_input_tokens": 200,
        "prompt_tokens_details": {"cache_write_tokens": 10},
        "output_tokens": 7,
    }
    assert read_usage(report) == Usage(205, 7, cached_input=200, cache_write=5)


def test_parts_are_never_more_than_the_whole() -> None:
    report = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 9},
    }
    assert read_usage(report) == Usage(3, 2, cached_input=3, reasoning=2)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"total_tokens": 5},
        {"num_sources_used": 3},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "twelve", "completion_tokens": "0x3"},
        {"prompt_tokens": "12 ", "completion_tokens": "-3"},
        {"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -1},
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


def read_for_embeddings(report: dict[str, Any]) -> Usage | None:
    reading = read_report(report, OPENAI_WORDS, has_output=False)
    return reading.usage if reading else None


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        pytest.param(
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 1,
                "prompt_cache_hit_tokens": 900,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
            Usage(1_000, 1, cached_input=900),
            id="the same tokens under two names, one of which is not filled in",
        ),
        pytest.param(
            {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36, "completion_tokens": 20},
            Usage(100, 20, cached_input=64),
            id="input as hits and misses alone",
        ),
        pytest.param(
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_cache_hit_tokens": 100,
                "prompt_cache_miss_tokens": 0,
            },
            Usage(100, 20, cached_input=100),
            id="hits and misses beside their sum",
        ),
        pytest.param(
            {
                "prompt_tokens": 50,
                "completion_tokens": 1,
                "cached_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 10},
            },
            Usage(50, 1, cached_input=10),
            id="cached input counts once",
        ),
        pytest.param(
            {
                "prompt_tokens": 30,
                "completion_tokens": 1,
                "total_tokens": 31,
                "cache_read_input_tokens": 8,
                "cache_creation_input_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 8, "cache_creation_tokens": 20},
            },
            Usage(30, 1, cached_input=8, cache_write=20),
            id="LiteLLM counts Anthropic's caches inside",
        ),
        pytest.param(
            {
                "prompt_tokens": 2,
                "completion_tokens": 1,
                "total_tokens": 31,
                "cache_read_input_tokens": 8,
                "cache_creation_input_tokens": 20,
            },
            Usage(30, 1, cached_input=8, cache_write=20),
            id="a total that has the caches beside prompt_tokens",
        ),
        pytest.param(
            {"input_tokens": 30, "output_tokens": 1, "total_tokens": 31, "cache_read_input_tokens": 8},
            Usage(30, 1, cached_input=8),
            id="a total that has the cache inside input_tokens",
        ),
    ],
)
def test_cached_input_is_read_under_every_name(report: dict[str, Any], usage: Usage) -> None:
    assert read_usage(report) == usage


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"cache_creation_input_tokens": 556}, Usage(2_604, 9, cache_write=556)),
        (
            {
                "cache_creation_input_tokens": 556,
                "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
            },
            Usage(2_604, 9, cache_write=456, cache_write_1h=100),
        ),
        (
            {"cache_creation_input_tokens": 556, "cache_creation": {"ephemeral_1h_input_tokens": 556}},
            Usage(2_604, 9, cache_write_1h=556),
        ),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 56}},
            Usage(2_604, 9, cache_write=500, cache_write_1h=56),
        ),
        ({"cache_creation_input_tokens": None, "cache_creation": None}, Usage(2_048, 9)),
        ({"cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 0}}, Usage(2_048, 9)),
    ],
)
def test_cache_writes_are_told_apart_by_their_lifetime(report: dict[str, Any], usage: Usage) -> None:
    assert read_usage({"input_tokens": 2_048, "output_tokens": 9, **report}, ANTHROPIC_WORDS) == usage


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        pytest.param(
            {"cache_read_input_tokens": 100, "cached_tokens": 100},
            Usage(1_100, 9, cached_input=100),
            id="cached_tokens",
        ),
        pytest.param(
            {"prompt_tokens_details": {"cached_tokens": 100}, "cache_read_input_tokens": 100},
            Usage(1_100, 9, cached_input=100),
            id="details",
        ),
        pytest.param(
            {"cache_creation_input_tokens": 100, "prompt_tokens_details": {"cache_creation_tokens": 100}},
            Usage(1_100, 9, cache_write=100),
            id="writes in details",
        ),
        pytest.param(
            {"cache_creation_input_tokens": 100, "claude_cache_creation_5_m_tokens": 100},
            Usage(1_100, 9, cache_write=100),
            id="writes of five minutes",
        ),
        pytest.param(
            {"claude_cache_creation_5_m_tokens": 60, "claude_cache_creation_1_h_tokens": 40},
            Usage(1_100, 9, cache_write=60, cache_write_1h=40),
            id="writes by their lifetime alone",
        ),
        pytest.param(
            {"cache_read_input_tokens": 100, "cached_tokens": 100, "total_tokens": 1_009},
            Usage(1_000, 9, cached_input=100),
            id="a total that has them inside",
        ),
    ],
)
def test_cached_input_of_a_message_is_beside_its_input_whatever_else_it_is_called(
    report: dict[str, Any], usage: Usage
) -> None:
    whole = {"input_tokens": 1_000, "output_tokens": 9}
    assert read_usage({**whole, **report}, ANTHROPIC_WORDS) == usage
    assert read_usage({**dict(reversed(report.items())), **whole}, ANTHROPIC_WORDS) == usage


@pytest.mark.parametrize(
    ("entered", "prompt", "cached", "usage"),
    [
        pytest.param(1_000, 1_000, 400, Usage(1_000, 9, cached_input=400), id="all input twice"),
        pytest.param(600, 1_000, 400, Usage(1_000, 9, cached_input=400), id="what was not cached, and all"),
        pytest.param(0, 1_000, 1_000, Usage(1_000, 9, cached_input=1_000), id="all cached"),
        pytest.param(600, 0, 400, Usage(1_000, 9, cached_input=400), id="a name that is not in use"),
        pytest.param(100, 100, 400, Usage(500, 9, cached_input=400), id="more cached than the prompt"),
    ],
)
def test_the_prompt_of_a_message_has_its_cached_input(entered: int, prompt: int, cached: int, usage: Usage) -> None:
    report = {
        "input_tokens": entered,
        "prompt_tokens": prompt,
        "output_tokens": 9,
        "cache_read_input_tokens": cached,
        "cached_tokens": cached,
    }
    assert read_usage(report, ANTHROPIC_WORDS) == usage
    assert read_usage(dict(reversed(report.items())), ANTHROPIC_WORDS) == usage


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 201,
                "total_tokens": 585,
                "prompt_tokens_details": {"audio_tokens": 375},
            },
            Usage(384, 201, audio_input=375),
            id="Mistral's sound beside prompt_tokens",
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 201, "prompt_tokens_details": {"audio_tokens": 375}},
            Usage(384, 201, audio_input=375),
            id="without a total, what cannot be inside is beside",
        ),
        pytest.param(
            {"prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264, "prompt_audio_seconds": 203},
            Usage(2629, 635, audio_input=2625),
            id="Mistral's sound without its tokens",
        ),
        pytest.param(
            {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10, "prompt_audio_seconds": {}},
            Usage(4, 6),
            id="no sound",
        ),
        pytest.param(
            {
                "prompt_tokens": 384,
                "completion_tokens": 20,
                "total_tokens": 404,
                "prompt_tokens_details": {"audio_tokens": 375},
            },
            Usage(384, 20, audio_input=375),
            id="sound inside prompt_tokens",
        ),
        pytest.param(
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "total_tokens": 45,
                "prompt_tokens_details": {"audio_tokens": 15},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(24, 21, reasoning=20, audio_input=15),
            id="sound and reasoning both beside",
        ),
        pytest.param(
            {
                "prompt_tokens": 300,
                "completion_tokens": 90,
                "prompt_tokens_details": {"image_tokens": 256, "audio_tokens": 30},
                "completion_tokens_details": {"audio_tokens": 70, "image_tokens": 10},
            },
            Usage(300, 90, audio_input=30, image_input=256, audio_output=70, image_output=10),
            id="every medium",
        ),
    ],
)
def test_sound_and_pictures_are_told_apart(report: dict[str, Any], usage: Usage) -> None:
    assert read_usage(report) == usage


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        pytest.param(
            {"prompt_tokens": 21, "completion_tokens": 312, "total_tokens": 333, "reasoning_tokens": 290},
            Usage(21, 312, reasoning=290),
            id="SGLang: inside",
        ),
        pytest.param(
            {"prompt_tokens": 12, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 228}},
            Usage(12, 229, reasoning=228),
            id="more than the output: beside",
        ),
        pytest.param(
            {
                "prompt_tokens": 43,
                "completion_tokens": 10,
                "total_tokens": 53,
                "completion_tokens_details": {"reasoning_tokens": 11},
            },
            Usage(43, 10, reasoning=10),
            id="the total says that all is there",
        ),
        pytest.param(
            {
                "prompt_tokens": 33,
                "completion_tokens": 7_163,
                "total_tokens": 7_196,
                "citation_tokens": 19_028,
                "num_search_queries": 21,
                "reasoning_tokens": 73_305,
            },
            Usage(19_061, 80_468, reasoning=73_305, searches=21),
            id="Perplexity: beside, though the total leaves it out",
        ),
        pytest.param(
            {"input_tokens": 5, "output_tokens": 290, "output_tokens_details": {"thinking_tokens": 19}},
            Usage(5, 290, reasoning=19),
            id="Anthropic",
        ),
    ],
)
def test_reasoning_is_output_wherever_it_is_counted(report: dict[str, Any], usage: Usage) -> None:
    assert read_usage(report) == usage


def test_a_total_without_an_input_completes_it() -> None:
    assert read_usage({"completion_tokens": 7, "total_tokens": 10}) == Usage(3, 7)
    assert read_usage({"prompt_tokens": 3, "total_tokens": 10}) == Usage(3, 7, reasoning=7)
    assert read_usage({"prompt_tokens": 0, "completion_tokens": 180, "total_tokens": 180}) == Usage(0, 180)


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        ({"total_tokens": 79}, Usage(79)),
        ({"total_tokens": 0}, Usage(0)),
        ({"total_tokens": 64, "prompt_tokens": 64}, Usage(64)),
        ({"prompt_tokens": 10, "total_tokens": 14}, Usage(14)),
        ({"prompt_tokens": 8, "completion_tokens": 0, "total_tokens": 8}, Usage(8)),
        ({"search_units": 1, "total_tokens": 150}, Usage(150, searches=1)),
        ({"search_units": 1}, Usage(searches=1)),
        ({}, None),
        ({"cost": 0.1}, None),
    ],
)
def test_a_total_is_input_where_there_is_no_output(report: dict[str, Any], usage: Usage | None) -> None:
    assert read_for_embeddings(report) == usage


@pytest.mark.parametrize(
    ("report", "usage"),
    [
        (
            {"promptTokenCount": 8, "candidatesTokenCount": 6, "thoughtsTokenCount": 99, "totalTokenCount": 113},
            Usage(8, 105, reasoning=99),
        ),
        ({"promptTokenCount": 8, "candidatesTokenCount": 6, "thoughtsTokenCount": 99}, Usage(8, 105, reasoning=99)),
        (
            {
                "promptTokenCount": 15,
                "toolUsePromptTokenCount": 288,
                "candidatesTokenCount": 40,
                "totalTokenCount": 343,
            },
            Usage(303, 40),
        ),
        (
            {
                "promptTokenCount": 5,
                "totalTokenCount": 9,
                "trafficType": 1,
                "thoughtsTokenCount": 4,
                "promptTokensDetails": [{"modality": 2, "tokenCount": 5}],
            },
            Usage(5, 4, reasoning=4, image_input=5),
        ),
        (
            {
                "promptTokenCount": 300,
                "candidatesTokenCount": 1_300,
                "totalTokenCount": 1_600,
                "cachedContentTokenCount": 20,
                "serviceTier": "priority",
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 10},
                    {"modality": "IMAGE", "tokenCount": 258},
                    {"modality": "AUDIO", "tokenCount": 32},
                    {"modality": "AUDIO"},
                    None,
                    3,
                ],
                "candidatesTokensDetails": [
                    {"modality": "IMAGE", "tokenCount": 1_290},
                    {"modality": "AUDIO", "tokenCount": 4},
                ],
            },
            Usage(
                300,
                1_300,
                cached_input=20,
                audio_input=32,
                image_input=258,
                audio_output=4,
                image_output=1_290,
                service_tier="priority",
            ),
        ),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 1, "trafficType": "ON_DEMAND_PRIORITY"},
            Usage(5, 1, service_tier="priority"),
        ),
        ({"trafficType": "ON_DEMAND"}, None),
    ],
)
def test_gemini_counts_thoughts_and_tools_beside(report: dict[str, Any], usage: Usage | None) -> None:
    assert read_usage(report, GEMINI_WORDS) == usage


ITERATION = {"input_tokens": 162, "output_tokens": 11, "cache_read_input_tokens": 5, "type": "message"}


@pytest.mark.parametrize(
    ("iterations", "usage"),
    [
        ([], Usage(167, 11, cached_input=5)),
        ([ITERATION], Usage(167, 11, cached_input=5)),
        (
            [{"type": "compaction", "input_tokens": 99_195, "output_tokens": 81}, ITERATION],
            Usage(99_362, 92, cached_input=5),
        ),
        (
            [{"type": "compaction", "input_tokens": 9, "output_tokens": 1, "cache_creation_input_tokens": 7}] * 2,
            Usage(199, 13, cached_input=5, cache_write=14),
        ),
        (
            [{"type": "message", "input_tokens": 408, "output_tokens": 0}, {**ITERATION, "type": "fallback_message"}],
            Usage(167, 11, cached_input=5),
        ),
        (None, Usage(167, 11, cached_input=5)),
        ([None, 3, "x", {"type": []}, {"type": "compaction", "iterations": []}], Usage(167, 11, cached_input=5)),
    ],
)
def test_iterations_that_the_counts_leave_out_are_added(iterations: Any, usage: Usage) -> None:
    read = read_usage({**ITERATION, "iterations": iterations}, ANTHROPIC_WORDS)
    assert read is not None
    assert msgspec.structs.replace(read, parts=()) == usage


def test_each_iteration_is_a_part_with_its_own_model_and_the_region_of_the_answer() -> None:
    report = {
        "input_tokens": 412,
        "cache_read_input_tokens": 0,
        "output_tokens": 531,
        "inference_geo": "us",
        "service_tier": "priority",
        "output_tokens_details": {"thinking_tokens": 300},
        "server_tool_use": {"web_search_requests": 2},
        "iterations": [
            {"type": "message", "input_tokens": 412, "output_tokens": 89},
            {"type": "advisor_message", "model": "opus", "input_tokens": 823, "output_tokens": 1_612},
            {"type": "message", "input_tokens": 1_348, "cache_read_input_tokens": 412, "output_tokens": 442},
            {"type": "compaction", "input_tokens": 50, "output_tokens": 5},
        ],
    }
    assert read_usage(report, ANTHROPIC_WORDS) == Usage(
        412 + 823 + 1_348 + 412 + 50,
        531 + 1_612 + 5,
        cached_input=412,
        reasoning=300,
        searches=2,
        service_tier="priority",
        region="us",
        parts=(
            Usage(412, 89, service_tier="priority", region="us"),
            Usage(1_760, 442, cached_input=412, service_tier="priority", region="us"),
            Usage(823, 1_612, region="us", model="opus"),
            Usage(50, 5, service_tier="priority", region="us"),
        ),
    )


@pytest.mark.parametrize("model", [None, "", 3, "x" * 257, ["opus"]])
def test_an_iteration_without_a_name_of_a_model_is_of_the_one_that_was_asked_for(model: Any) -> None:
    advised = {"type": "advisor_message", "model": model, "input_tokens": 1, "output_tokens": 1}
    read = read_usage({**ITERATION, "iterations": [ITERATION, advised]}, ANTHROPIC_WORDS)
    assert read is not None
    assert [part.model for part in read.parts] == ["", ""]


def test_messages_that_have_less_than_the_counts_above_them_do_not_lower_them() -> None:
    few = {"type": "message", "input_tokens": 1, "output_tokens": 1}
    advised = {"type": "advisor_message", "model": "opus", "input_tokens": 7, "output_tokens": 1}
    read = read_usage({**ITERATION, "iterations": [few, advised, few]}, ANTHROPIC_WORDS)
    assert read is not None
    assert (read.input, read.output) == (167 + 7, 11 + 1)


@pytest.mark.parametrize(
    ("named", "region"),
    [("us", "us"), ("US", "us"), ("global", "global"), (None, ""), (3, ""), ("a b", ""), ({"us": 1}, "")],
)
def test_the_region_is_read_where_it_is_a_name(named: Any, region: str) -> None:
    assert read_usage({"input_tokens": 1, "output_tokens": 1, "inference_geo": named}) == Usage(1, 1, region=region)


@pytest.mark.parametrize(
    ("report", "tier"),
    [
        ({"service_tier": "priority"}, "priority"),
        ({"serviceTier": "PRIORITY"}, "priority"),
        ({"service_tier": "standard", "speed": "fast"}, "fast"),
        ({"service_tier": "standard", "speed": "Fast"}, "fast"),
        ({"service_tier": "standard", "speed": "standard"}, "standard"),
        ({"service_tier": None}, ""),
        ({"service_tier": 3}, ""),
        ({"service_tier": "a b\n"}, ""),
        ({"service_tier": "x" * 33}, ""),
        ({"trafficType": ["ON_DEMAND_FLEX"]}, ""),
    ],
)
def test_the_tier_is_read_where_it_is_a_name(report: dict[str, Any], tier: str) -> None:
    assert read_usage({"input_tokens": 1, "output_tokens": 1, **report}) == Usage(1, 1, service_tier=tier)


def test_money_and_speeds_are_no_counts() -> None:
    report = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "cost": 12.5,
        "cost_in_usd_ticks": 999,
        "prompt_tokens_per_second": 451.1,
        "completion_time": 0.5,
        "queue_time": 9,
        "draft_tokens": 77,
        "total_tokens_per_sec": 606.9,
        "context_details": {"input_tokens": 4_000},
        "completion_tokens_details": {"accepted_prediction_tokens": 100, "rejected_prediction_tokens": 60},
    }
    assert read_usage(report) == Usage(3, 2)


def test_a_report_of_the_input_alone_is_not_complete() -> None:
    for report, complete in [
        ({"input_tokens": 1}, False),
        ({"input_tokens": 1, "output_tokens": 0}, True),
        ({"input_tokens": 1, "output_tokens": -1}, False),
        ({"input_tokens": 1, "total_tokens": 1}, True),
        ({"input_tokens": 11, "total_tokens": 10}, False),
    ]:
        reading = read_report(report, OPENAI_WORDS)
        assert reading is not None
        assert (reading.complete, reading.tells_input) == (complete, True)


@pytest.mark.parametrize(
    ("report", "tells_input"),
    [
        ({"output_tokens": 1}, False),
        ({"output_tokens": 1, "input_tokens": None, "cache_read_input_tokens": 5}, False),
        ({"output_tokens": 1, "input_tokens": 0}, True),
        ({"output_tokens": 1, "total_tokens": 3}, True),
    ],
)
def test_a_report_of_the_output_alone_does_not_tell_the_input(report: dict[str, Any], tells_input: bool) -> None:
    reading = read_report(report, OPENAI_WORDS)
    assert reading is not None
    assert (reading.complete, reading.tells_input) == (True, tells_input)


members = st.sampled_from(
    sorted({name for words in VOCABULARIES for field in words.fields for name in field.path} | {"iterations", "type"})
)
anywhere = st.recursive(
    anything | st.sampled_from(["message", "compaction", "AUDIO"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=6),
    max_leaves=30,
)


@given(
    st.dictionaries(members, anywhere, max_size=8),
    st.sampled_from(VOCABULARIES),
    st.booleans(),
    st.sampled_from(["", "audio", "image"]),
)
def test_in_no_vocabulary_does_a_report_raise_or_give_what_cannot_be(
    report: dict[str, Any], words: Vocabulary, has_output: bool, medium: str
) -> None:
    reading = read_report(report, words, has_output=has_output, output_medium=medium)
    if reading is None:
        return
    usage = reading.usage
    for part in (usage, *usage.parts):
        figures = msgspec.structs.asdict(part) | {"parts": 0}
        assert all(isinstance(count, str) or (type(count) is int and count >= 0) for count in figures.values())
    assert usage.cached_input + usage.cache_write + usage.cache_write_1h <= usage.input
    assert usage.audio_input + usage.image_input <= usage.input
    assert usage.audio_output + usage.image_output <= usage.output
    assert usage.reasoning <= usage.output
