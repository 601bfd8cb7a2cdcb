"""The Helm chart's values.schema.json: kinds and names from values.yaml, `config` from the gateway's own schema.

`python -m deploy.values_schema` writes it. An unknown value is an error, as an unknown setting is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from gateway.settings.schema import json_schema

CHART = Path(__file__).parents[1] / "helm" / "inducta-gateway"
SHIPPED = CHART / "values.schema.json"

Json = dict[str, Any]

# What Kubernetes itself defines, and maps whose names are the user's own.
FREE = {
    "secret", "resources", "updateStrategy", "podAnnotations", "podLabels", "nodeSelector", "affinity", "annotations",
    "labels", "journalVolume", "tmpVolume", "podSecurityContext", "securityContext", "commonLabels", "startupProbe",
    "livenessProbe", "readinessProbe",
}  # fmt: skip
COUNT_OR_SHARE: Json = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+%$"}]}
OVERRULED: dict[str, Json] = {
    "maxUnavailable": COUNT_OR_SHARE,
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
    "externalTrafficPolicy": {"enum": ["", "Cluster", "Local"]},
}
NOT_TEXT: Json = {
    "const": "text in quotes, since Helm changes numbers: 0471 becomes 313",
    "description": "Helm's refusal of an unquoted number or switch shows this text.",
}
"""In place of what the gateway's own file takes as it is written: Helm reads the number before the gateway sees it, so
that the leading zeros of a cost center, the last zero of a version and the separators of a date can be lost."""
_SCALARS: dict[type, Json] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    str: {"type": "string"},
}


def values_schema() -> Json:
    config = json_schema()
    definitions = {**config.pop("$defs"), "UnquotedText": NOT_TEXT}
    dialect = config.pop("$schema")
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    properties = {name: _of(name, value) for name, value in values.items()}
    # An operator who brings a file need not name upstreams and models twice.
    needed = {"required": config.pop("required")}
    return {
        "$schema": dialect,
        "type": "object",
        "additionalProperties": False,
        "required": ["config"],
        "properties": {**properties, "config": config, "global": {"type": "object"}},
        "if": {"properties": {"existingConfigMap": {"const": ""}}},
        "then": {"properties": {"config": needed}},
        "$defs": definitions,
    }


def _of(name: str, value: Any) -> Json:
    if name in OVERRULED:
        return OVERRULED[name]
    if isinstance(value, list):
        return {"type": "array"}
    if not isinstance(value, dict):
        return _SCALARS[type(value)]
    if name in FREE:
        return {"type": "object"}
    properties = {inner: _of(inner, given) for inner, given in value.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def text() -> str:
    return json.dumps(values_schema(), indent=1) + "\n"


if __name__ == "__main__":
    SHIPPED.write_text(text(), encoding="utf-8")
