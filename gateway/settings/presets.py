"""What is known of providers and servers: the settings of an upstream that `preset` fills in.

Each is only a default: whatever the file says of the upstream goes before it. Sources: the
providers' API references, as of late 2026.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "openai": {"base_url": "https://api.openai.com/v1", "output_cap": "max_completion_tokens"},
    # The resource's name is in the URL: https://NAME.openai.azure.com/openai/v1.
    "azure": {"auth": "api-key", "output_cap": "max_completion_tokens"},
    "anthropic": {
        "base_url": "https://api.anthropic.com/v1",
        "auth": "x-api-key",
        "headers": {"anthropic-version": "2023-06-01"},
    },
    "gemini": {"base_url": "https://generativelanguage.googleapis.com/v1beta/openai"},
    # Refuses members that it does not know; its last chunk carries the usage unasked.
    "mistral": {"base_url": "https://api.mistral.ai/v1", "stream_options": False},
    "groq": {"base_url": "https://api.groq.com/openai/v1", "output_cap": "max_completion_tokens"},
    "openrouter": {"base_url": "https://openrouter.ai/api/v1"},
    "vllm": {"base_url": "http://127.0.0.1:8000/v1"},
    "ollama": {"base_url": "http://127.0.0.1:11434/v1", "auth": "none"},
    "llamacpp": {"base_url": "http://127.0.0.1:8080/v1"},
}
