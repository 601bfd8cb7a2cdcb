"""The JSON Schema of a configuration, for editors and for other programs' values files."""

from __future__ import annotations

from typing import Any

from gateway.settings.shape import Settings


def json_schema() -> dict[str, Any]:
    return Settings.model_json_schema()
