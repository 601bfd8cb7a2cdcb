"""The configuration of `gateway serve --demo` and `--upstream URL`: no file, a few limits to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.settings.loading import build
from gateway.settings.shape import Settings

DEMO_MODEL = "openai/gpt-oss-120b"

_KNOWN_MODELS: dict[str, dict[str, Any]] = {
    DEMO_MODEL: {
        "context_window": 131_072,
        "max_output_tokens": 32_768,
        "price": {"input": "0.15", "output": "0.60", "cached_input": "0.07"},
    }
}


def demo_settings(
    key: str, base_url: str, *, api_key: str = "", models: Sequence[str] = (DEMO_MODEL,), **changes: Any
) -> Settings:
    """One team `demo` with one key, `key`, in front of one upstream that serves `models`. `changes` are
    settings of the first level, as in a file. Raises SettingsInvalid."""
    limits: list[dict[str, Any]] = [
        {"requests": 120, "per": "minute"},
        {"tokens": 200_000, "per": "minute"},
        {"tokens": 5_000_000, "per": "day"},
        {"concurrent": 16},
    ]
    priced = [model for model in models if model in _KNOWN_MODELS]
    if priced:
        limits.append({"usd": 5, "per": "month", "models": priced})
    return build(
        {
            "listen": "127.0.0.1:8080",
            "upstreams": {"demo": {"base_url": base_url, "api_key": api_key or None}},
            "models": {model: {"routes": [{"upstream": "demo"}], **_KNOWN_MODELS.get(model, {})} for model in models},
            "teams": {"demo": {"limits": limits, "keys": [{"name": "demo", "key": key}]}},
            **changes,
        }
    )
