"""The models that a key may use, in the shapes of OpenAI's, Anthropic's and Gemini's APIs.

A client that does not ask for pages gets the complete list.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.endpoints import ENDPOINTS, Dialect
from gateway.core.errors import FieldInvalid
from gateway.core.json_object import JsonObject
from gateway.core.parameters import number_of
from gateway.core.snapshot import Model
from gateway.core.time_format import rfc3339

_GEMINI_METHODS = {row.name: row.path.rpartition(":")[2] for row in ENDPOINTS.values() if row.dialect is Dialect.GEMINI}

_PAGE_MAX = 1_000


def openai_list(models: list[Model]) -> JsonObject:
    return {"object": "list", "data": [openai_model(model) for model in models]}


def openai_model(model: Model) -> JsonObject:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "gateway",
        **_sizes(model, "context_window", "max_output_tokens"),
    }


def anthropic_model(model: Model) -> JsonObject:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": rfc3339(model.created * 1000),
        **_sizes(model, "max_input_tokens", "max_tokens"),
        **_sizes(model, "context_window", "max_output_tokens"),
    }


def anthropic_list(models: list[Model], query: Mapping[str, str]) -> JsonObject:
    """A page of the list, by `limit`, `after_id` and `before_id`. Raises FieldInvalid."""
    names = [model.name for model in models]
    begin, end = 0, len(models)
    if after := query.get("after_id"):
        begin = _place(names, after, "after_id") + 1
    if before := query.get("before_id"):
        end = _place(names, before, "before_id")
    limit = number_of(query, "limit", most=_PAGE_MAX, default=len(models))
    cut = max(0, end - begin - limit)
    if before and not after:
        begin += cut
    else:
        end -= cut
    shown = models[begin:end]
    return {
        "data": [anthropic_model(model) for model in shown],
        "has_more": cut > 0,
        "first_id": shown[0].name if shown else None,
        "last_id": shown[-1].name if shown else None,
    }


def gemini_model(model: Model) -> JsonObject:
    """https://ai.google.dev/api/models#Model"""
    methods = [method for name, method in _GEMINI_METHODS.items() if model.serving(name)]
    return {
        "name": f"models/{model.name}",
        "baseModelId": model.name,
        "version": "001",
        "displayName": model.name,
        **_sizes(model, "inputTokenLimit", "outputTokenLimit"),
        "supportedGenerationMethods": methods,
    }


def gemini_list(models: list[Model], query: Mapping[str, str]) -> JsonObject:
    """A page of the list, by `pageSize` and `pageToken`, which is the name of the last one shown. Raises
    FieldInvalid."""
    names = [model.name for model in models]
    token = query.get("pageToken")
    begin = _place(names, token, "pageToken") + 1 if token else 0
    shown = models[begin : begin + number_of(query, "pageSize", most=_PAGE_MAX, default=len(models))]
    page: JsonObject = {"models": [gemini_model(model) for model in shown]}
    if shown and begin + len(shown) < len(models):
        page["nextPageToken"] = shown[-1].name
    return page


def _sizes(model: Model, *names: str) -> dict[str, int]:
    """The context window and the longest answer, under these names, where they are configured."""
    sizes = zip(names, (model.context_window, model.max_output_tokens), strict=True)
    return {name: size for name, size in sizes if size is not None}


def _place(names: list[str], name: str, parameter: str) -> int:
    if name not in names:
        raise FieldInvalid(f"{parameter!r} is not a model that this key may use.", param=parameter)
    return names.index(name)
