"""The JSON Schema of a configuration, for editors and for the values files of other programs."""

from __future__ import annotations

from typing import Any

from gateway.settings.models import Settings

_NULL = {"type": "null"}
_REFERENCE = {"$ref": "#/$defs/Reference"}
_GROUPED = {"$ref": "#/$defs/GroupedDigits"}
_SCALARS = {"boolean", "integer", "number", "string"}
_NUMBERS = {"integer", "number"}

_DEFINITIONS = {
    "Reference": {
        "type": "string",
        "pattern": r"\$\{[^{}]+\}",
        "description": "Replaced from the environment or a file: ${NAME}, ${NAME:-default}, ${file:PATH}.",
    },
    "GroupedDigits": {
        "type": "string",
        "pattern": "^[0-9]+(_[0-9]+)+$",
        "description": "Which YAML 1.2 takes for text.",
    },
}


def json_schema() -> dict[str, Any]:
    """Draft 2020-12. Wherever a value is allowed, a reference such as `${NAME}` is allowed, too."""
    schema: dict[str, Any] = _tidied(Settings.model_json_schema())
    definitions = {**schema.pop("$defs"), **_DEFINITIONS}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _tidied(node: Any) -> Any:
    """Without titles, which repeat the names, and without null, which means what is left out."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    options = [option for option in node.get("anyOf", []) if option != _NULL]
    if len(options) == 1:
        only: dict[str, Any] = options[0]
        return _tidied(only | {name: node[name] for name in ("description", "default") if node.get(name)})
    kept = {name: _member(name, value) for name, value in node.items() if name != "title"}
    return _or_reference(kept) if node.get("type") in _SCALARS else kept


def _member(name: str, value: Any) -> Any:
    if name in {"properties", "$defs"}:
        return {inner: _tidied(schema) for inner, schema in value.items()}
    return value if name == "propertyNames" else _tidied(value)


def _or_reference(scalar: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: scalar.pop(name) for name in ("description", "default") if name in scalar}
    grouped = [_GROUPED] if scalar.get("type") in _NUMBERS else []
    return {**kept, "anyOf": [scalar, *grouped, _REFERENCE]}
