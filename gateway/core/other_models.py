"""Finds the models that a request names beside the one that it asks for.

A provider runs a second model where a request says so: the adviser of a tool, the painter of a tool, a panel and its
judge, the fallbacks of a router. A key may be allowed only some models, and each model has its price, so that every
such name has to be known before the request is sent. parse_request.py judges the names that are found here.

Members that hold nothing but models have to be empty (`OTHER_MODELS` in endpoints.py). Those in `PLACES` name models
among other settings. In these, a model is whatever is called one: a text, or an array of texts, under a name such as
`model`, `analysis_models` or `modelName`, at any depth. So the next tool of the next provider is read as well. A JSON
Schema and its examples are left out: their names are those of the client's own arguments.

Of `tools` only those are looked into that the provider runs itself, which their `type` says. Agents send hundreds of
tools of their own with each request: these are passed by in one step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from gateway.core.errors import FieldInvalid
from gateway.core.json_spans import JsonSpans, folded, read_json_spans

TOOLS = "tools"
_PLACES = (
    TOOLS,
    "plugins",  # https://openrouter.ai/docs/guides/features/plugins/fusion
    "compound_custom",  # https://console.groq.com/docs/compound
    "data_sources",  # https://learn.microsoft.com/azure/ai-services/openai/references/on-your-data
    "providerOptions",  # https://vercel.com/docs/ai-gateway/models-and-providers/model-fallbacks
    "provider_options",
    # https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GenerationConfig#RoutingConfig
    "generationConfig",
    "generation_config",
)
"""Members that can name models among other settings, and who documents them."""

PLACES = frozenset(_PLACES)
SETTINGS = PLACES - {TOOLS, "generationConfig", "generation_config"}
"""Of these, those that no endpoint reads for another reason."""

LOOKED_BYTES = 512 * 1024
"""A longer member is refused where it would have to be looked into: it would delay other requests."""

_PLACE_MAX = 256
"""Characters of a place that an error names."""

_OWN_TOOLS: frozenset[str | None] = frozenset({None, "", "function", "custom"})
"""Types of tools that the client runs itself."""

_SKIPPED = frozenset(
    {
        *("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"),
        *("default", "const", "enum", "required", "example", "examples", "input_examples", "headers"),
    }
)
"""Members whose names are the client's, or that have no names."""

_MODEL_NAME = re.compile(r"(?:\A|[a-z_])(?:models?|deployment)_?(?:names?|ids?)?\Z")
"""What members are called that name a model, in lower case."""

_ASKING_TOOLS = re.compile(r"(?:openrouter|orq):(?:advisor|fusion|subagent|image_generation)\Z")
"""Tools that ask models of the router's choice where they name none (https://openrouter.ai/docs/guides/features/server-tools
and https://docs.orq.ai/docs/ai-gateway/features/server-tools/advisor)."""

_ASKING_PLUGIN = "fusion"


class NamedModel(NamedTuple):
    """A model that is named at `place`; `name` is None where models are asked that the request does not name. `tool` is
    the tool that names it as its own `model`, at `position` of the request's tools; None for any other place."""

    place: str
    name: str | None
    tool: dict[str, Any] | None = None
    position: int = 0


class _Tool(msgspec.Struct, gc=False):
    """What tells whether a tool has to be looked into. `retrieval` is Vertex AI's, whose ranking is a model's."""

    type: str | None = None
    model: msgspec.Raw | UnsetType = UNSET
    retrieval: msgspec.Raw | UnsetType = UNSET


_TOOLS = msgspec.json.Decoder(list[_Tool])
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


def named_models(members: JsonSpans) -> Iterator[NamedModel]:
    """The models that these members name. Raises BodyUnreadable for a tool that names a member twice, and FieldInvalid
    for a member that is too long to be looked into."""
    for place in _PLACES:
        value = members.readable_value(place)
        if not value or not value.startswith((b"{", b"[")):
            continue
        if place == TOOLS:
            yield from _in_tools(value)
        elif _may_name(value):
            yield from _in_value(_looked_into(value, place), place)


def with_models(tools: bytes, names: dict[int, str]) -> bytes:
    """The tools with other models, by the position of the tool."""
    written = [bytes(raw) for raw in _RAWS.decode(tools)]
    for position, name in names.items():
        written[position] = read_json_spans(written[position]).changed({"model": msgspec.json.encode(name)})
    return b"[%b]" % b",".join(written)


def _in_tools(value: bytes) -> Iterator[NamedModel]:
    if not value.startswith(b"["):
        return
    for position, raw in _hosted_tools(value):
        tool, place = _looked_into(raw, TOOLS), f"{TOOLS}[{position}]"
        if not isinstance(tool, dict):
            continue
        named = list(_in_value(tool, place))
        if named:
            read_json_spans(raw)
        elif isinstance(kind := tool.get("type"), str) and _ASKING_TOOLS.match(kind.lower()):
            yield NamedModel(f"{place}.type", None)
        for each in named:
            is_own = each.place == f"{place}.model"
            yield NamedModel(each.place, each.name, tool, position) if is_own else each


def _hosted_tools(value: bytes) -> Iterator[tuple[int, bytes]]:
    """The tools that are looked into, with their positions: all of them where one has another shape than a tool has."""
    try:
        hosted = [_is_hosted(tool) for tool in _TOOLS.decode(value)]
    except msgspec.ValidationError:
        hosted = None
    if hosted is None or any(hosted):
        for position, raw in enumerate(_RAWS.decode(value)):
            if hosted is None or hosted[position]:
                yield position, bytes(raw)


def _is_hosted(tool: _Tool) -> bool:
    return tool.type not in _OWN_TOOLS or tool.model is not UNSET or tool.retrieval is not UNSET


def _may_name(value: bytes) -> bool:
    lowered = value.lower()
    return any(part in lowered for part in (b"model", b"deployment", b"fusion", b"\\u"))


def _looked_into(value: bytes, place: str) -> Any:
    if len(value) > LOOKED_BYTES:
        raise FieldInvalid(
            f"{place!r} may name models, and is longer than the {LOOKED_BYTES:,} bytes that are read of it. Send less.",
            param=place,
        )
    return msgspec.json.decode(value)


def _in_value(value: Any, place: str) -> Iterator[NamedModel]:
    """Without recursion, since a value may be nested as deeply as a parser takes."""
    waiting = [(value, place)]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, list):
            waiting += [(each, f"{place}[{at}]") for at, each in enumerate(value) if isinstance(each, dict | list)]
        elif isinstance(value, dict):
            if place.startswith("plugins") and value.get("id") == _ASKING_PLUGIN:
                yield NamedModel(f"{place}.id", None)
            for name, inner in value.items():
                inner_place = f"{place}.{name}"[:_PLACE_MAX] if len(name) <= _PLACE_MAX else place
                if _MODEL_NAME.search(folded(name)):
                    yield from _texts(inner, inner_place)
                if isinstance(inner, dict | list) and name not in _SKIPPED:
                    waiting.append((inner, inner_place))


def _texts(value: Any, place: str) -> Iterator[NamedModel]:
    if isinstance(value, str):
        yield NamedModel(place, value)
    elif isinstance(value, list):
        yield from (NamedModel(f"{place}[{at}]", each) for at, each in enumerate(value) if isinstance(each, str))
