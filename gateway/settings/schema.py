"""The JSON Schema of a configuration, for editors and for the values files of other programs."""

from __future__ import annotations

import re
from typing import Any

from gateway.settings.models import Settings

_NULL = {"type": "null"}
_REFERENCE = {"$ref": "#/$defs/Reference"}
_UNQUOTED = {"$ref": "#/$defs/UnquotedText"}
_GROUPED = {"integer": {"$ref": "#/$defs/GroupedDigits"}, "number": {"$ref": "#/$defs/GroupedNumber"}}
_SCALARS = {"boolean", "integer", "number", "string"}

_DEFINITIONS = {
    "Reference": {
        "type": "string",
        "pattern": r"\$\{[^{}]+\}",
        "description": "Replaced from the environment or a file: ${NAME}, ${NAME:-default}, ${file:PATH}.",
    },
    "UnquotedText": {
        "type": ["number", "boolean"],
        "description": "Text that looks like a number or a switch: it is read as it is written.",
    },
    "GroupedDigits": {
        "type": "string",
        "pattern": "^[0-9]+(_[0-9]+)+$",
        "description": "Which YAML 1.2 takes for text.",
    },
    "GroupedNumber": {
        "type": "string",
        "pattern": r"^[0-9]+(_[0-9]+)+(\.[0-9]+)?$",
        "description": "Which YAML 1.2 takes for text.",
    },
}


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. Wherever a value is allowed, a reference such as `${NAME}` is allowed, too. Wherever a setting can
    be left out, null is allowed and means the same."""
    schema: dict[str, Any] = _tidied(Settings.model_json_schema())
    definitions = {**schema.pop("$defs"), **_DEFINITIONS}
    definitions["TeamSettings"]["type"] = ["object", "null"]  # A team needs no setting: `teams: {search: }` is one.
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _tidied(node: Any) -> Any:
    """Without titles, which repeat the names. Null is allowed for each setting that can be left out, and nowhere else:
    pydantic says it of some of them alone."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    options = [option for option in node.get("anyOf", []) if option != _NULL]
    if len(options) == 1:
        only: dict[str, Any] = options[0]
        return _tidied(only | {name: node[name] for name in ("description", "default") if node.get(name)})
    kept = {name: _member(name, value) for name, value in node.items() if name != "title"}
    if "properties" in kept and "additionalProperties" in kept:
        left_out = kept["properties"].keys() - set(kept.get("required", ()))
        kept["properties"] |= {name: _or_nothing(kept["properties"][name]) for name in left_out}
    return _or_reference(kept) if node.get("type") in _SCALARS else kept


def _member(name: str, value: Any) -> Any:
    if name in {"properties", "$defs"}:
        return {inner: _tidied(schema) for inner, schema in value.items()}
    return value if name == "propertyNames" else _tidied(value)


def _or_reference(scalar: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: scalar.pop(name) for name in ("description", "default") if name in scalar}
    grouped = [_GROUPED[scalar["type"]]] if scalar.get("type") in _GROUPED else []
    unquoted = [_UNQUOTED] if _can_look_like_a_number(scalar) else []
    return {**kept, "anyOf": [scalar, *grouped, *unquoted, _REFERENCE]}


def _can_look_like_a_number(scalar: dict[str, Any]) -> bool:
    if scalar["type"] != "string" or not scalar.keys().isdisjoint({"enum", "const"}):
        return False
    return re.search(scalar.get("pattern", ""), "4711") is not None


def _or_nothing(setting: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in setting:
        return {**setting, "anyOf": [*setting["anyOf"], _NULL]}
    if "type" in setting:
        return {**setting, "type": [setting["type"], "null"]}
    kept = {name: value for name, value in setting.items() if name in {"description", "default"}}
    only = {name: value for name, value in setting.items() if name not in kept}
    return {**kept, "anyOf": [only, _NULL]}
