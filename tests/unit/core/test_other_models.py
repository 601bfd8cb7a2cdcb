from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.errors import BodyUnreadable, FieldInvalid
from gateway.core.json_spans import read_json_spans
from gateway.core.other_models import LOOKED_BYTES, NamedModel, named_models, with_models

SCHEMA = {"type": "object", "properties": {"model": {"type": "string", "default": "opus"}}, "required": ["model"]}


def found_in(body: dict[str, Any] | bytes) -> list[NamedModel]:
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(named_models(read_json_spans(written)))


def places_in(body: dict[str, Any] | bytes) -> set[tuple[str, str | None]]:
    return {(each.place, each.name) for each in found_in(body)}


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"tools": [{"type": "advisor_20260301", "model": "opus"}]}, {("tools[0].model", "opus")}),
        ({"tools": [{"type": "image_generation", "model": "gpt-image-1"}]}, {("tools[0].model", "gpt-image-1")}),
        ({"tools": [{}, {"type": "x", "MODEL": "opus"}]}, {("tools[1].MODEL", "opus")}),
        (
            {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "opus"}}]},
            {("tools[0].parameters.model", "opus")},
        ),
        (
            {"tools": [{"type": "openrouter:fusion", "parameters": {"analysis_models": ["a", "b"]}}]},
            {("tools[0].parameters.analysis_models[0]", "a"), ("tools[0].parameters.analysis_models[1]", "b")},
        ),
        ({"tools": [{"type": "openrouter:advisor"}]}, {("tools[0].type", None)}),
        (
            {"tools": [{"retrieval": {"ranking": {"llmRanker": {"modelName": "opus"}}}}]},
            {("tools[0].retrieval.ranking.llmRanker.modelName", "opus")},
        ),
        ({"plugins": [{"id": "fusion"}]}, {("plugins[0].id", None)}),
        (
            {"plugins": [{"id": "web"}, {"id": "auto", "allowed_models": ["a/*"]}]},
            {("plugins[1].allowed_models[0]", "a/*")},
        ),
        (
            {"compound_custom": {"models": {"answering_model": "opus"}, "tools": {}}},
            {("compound_custom.models.answering_model", "opus")},
        ),
        ({"providerOptions": {"gateway": {"models": ["opus"]}}}, {("providerOptions.gateway.models[0]", "opus")}),
        (
            {"generationConfig": {"routingConfig": {"manualMode": {"modelName": "opus"}}}},
            {("generationConfig.routingConfig.manualMode.modelName", "opus")},
        ),
        (
            {"data_sources": [{"parameters": {"embedding_dependency": {"deployment_name": "ada"}}}]},
            {("data_sources[0].parameters.embedding_dependency.deployment_name", "ada")},
        ),
        (b'{"plugins": [{"id": "x", "mo\\u0064el": "opus"}]}', {("plugins[0].model", "opus")}),
        (b'{"tools": [{"type": "x", "name": "\\ud83d", "model": "opus"}]}', {("tools[0].model", "opus")}),
    ],
)
def test_a_model_is_found_wherever_one_is_named(body: Any, places: set[tuple[str, str | None]]) -> None:
    assert places_in(body) == places


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]},
        {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]},
        {"tools": [{"name": "f", "input_schema": SCHEMA, "input_examples": [{"model": "opus"}]}]},
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "parameters": SCHEMA}]}]},
        {"tools": [{"type": "mcp", "server_url": "https://x", "headers": {"model": "opus"}}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]},
        {"tools": [{"type": "image_generation", "model": None}]},
        {"tools": "none"},
        {"tools": None},
        {"tools": ["f", 1, None]},
        {"messages": [{"role": "user", "content": "x", "model": "opus"}], "metadata": {"model": "opus"}},
        {"generationConfig": {"responseSchema": SCHEMA, "maxOutputTokens": 9}},
        {"plugins": [{"id": "web", "max_results": 3}]},
        {"plugins": [{"id": ["fusion"], "model": None}]},
        {"tools": {"type": "advisor_20260301", "model": "opus"}},
    ],
)
def test_what_names_no_model_of_the_upstream_passes(body: dict[str, Any]) -> None:
    assert found_in(body) == []


def test_a_tools_own_model_comes_with_the_tool() -> None:
    (found,) = found_in({"tools": [{"name": "f"}, {"type": "advisor_20260301", "model": "opus", "max_uses": 2}]})
    assert (found.position, found.tool) == (1, {"type": "advisor_20260301", "model": "opus", "max_uses": 2})


def test_a_tool_that_names_two_models_by_one_name_is_refused() -> None:
    with pytest.raises(BodyUnreadable):
        found_in(b'{"tools": [{"type": "advisor_20260301", "model": "opus", "model": "haiku"}]}')


def test_a_member_that_is_too_long_to_be_read_is_refused_where_it_may_name_a_model() -> None:
    long = "x" * LOOKED_BYTES
    with pytest.raises(FieldInvalid) as refused:
        found_in({"tools": [{"type": "web_search", "name": long}]})
    assert refused.value.param == "tools"
    assert found_in({"tools": [{"type": "function", "name": long}]}) == []


def test_the_place_of_a_model_stays_short_however_long_names_are() -> None:
    (found,) = found_in({"plugins": [{"x" * 100_000: {"y" * 200: {"z" * 200: {"model": "opus"}}}}]})
    assert len(found.place) <= 256


def test_other_models_are_written_into_the_tools_that_name_them_and_the_rest_stays() -> None:
    tools = b'[ {"name":"f"}, {"type": "advisor_20260301", "model": "opus", "name" : "a"}]'
    written = with_models(tools, {1: "claude-opus"})
    assert written == b'[{"name":"f"},{"type": "advisor_20260301", "model": "claude-opus", "name" : "a"}]'
