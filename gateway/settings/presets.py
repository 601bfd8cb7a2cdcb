"""What is known of providers and servers: the settings of an upstream that `preset` fills in.

Each is only a default: what the file says of the upstream overrules it. Sources: the
providers' API references, as of late 2026.
"""

from __future__ import annotations

from typing import Any

_CHAT = ("chat.completions", "completions")
_RESPONSES = ("responses", "responses.*")
_KEPT_RESPONSES = ("responses", "responses.retrieve", "responses.delete")
_CONVERSATIONS = ("conversations", "conversations.*")
_MESSAGES = ("messages", "messages.count_tokens")
_EMBEDDINGS = ("embeddings",)
_RERANK = ("rerank", "rerank.v2")
_OPENAI = (*_CHAT, *_RESPONSES, *_CONVERSATIONS, *_EMBEDDINGS, "moderations", "images.*", "audio.*")

PRESETS: dict[str, dict[str, Any]] = {
    "openai": {
        "base_url": "https://api.openai.com/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": _OPENAI,
    },
    # The resource's name is in the URL: https://NAME.openai.azure.com/openai/v1.
    "azure": {"auth": "api-key", "output_cap": "max_completion_tokens", "endpoints": _OPENAI},
    # Microsoft Foundry, which has Claude too: https://NAME.services.ai.azure.com/openai/v1.
    "foundry": {
        "auth": "api-key",
        "output_cap": "max_completion_tokens",
        "endpoints": (*_OPENAI, *_MESSAGES),
        "base_paths": {"messages*": "/anthropic/v1"},
    },
    "anthropic": {
        "base_url": "https://api.anthropic.com/v1",
        "auth": "x-api-key",
        "headers": {"anthropic-version": "2023-06-01"},
        "endpoints": (*_MESSAGES, "chat.completions"),
    },
    "gemini": {
        "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
        "auth": "google",
        "endpoints": ("chat.completions", *_EMBEDDINGS, "images.generations", "gemini.*"),
    },
    # The project and the location are in the URL:
    # https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION/endpoints/openapi.
    "vertex": {"endpoints": ("chat.completions", "gemini.*")},
    # The region is in the URL: https://bedrock-runtime.REGION.amazonaws.com/openai/v1.
    "bedrock": {"output_cap": "max_completion_tokens", "endpoints": ("chat.completions", *_RESPONSES)},
    # Refuses members that it does not know; its last chunk carries the usage unasked.
    "mistral": {
        "base_url": "https://api.mistral.ai/v1",
        "stream_options": False,
        "endpoints": ("chat.completions", *_EMBEDDINGS, "moderations", "audio.*"),
    },
    "groq": {
        "base_url": "https://api.groq.com/openai/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": ("chat.completions", "responses", "audio.*"),
    },
    "xai": {
        "base_url": "https://api.x.ai/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": (*_CHAT, *_KEPT_RESPONSES, "messages", *_EMBEDDINGS, "images.generations"),
    },
    "deepseek": {
        "base_url": "https://api.deepseek.com/v1",
        "endpoints": ("chat.completions", "messages"),
        "base_paths": {"messages": "/anthropic/v1"},
    },
    "fireworks": {
        "base_url": "https://api.fireworks.ai/inference/v1",
        "endpoints": (*_CHAT, *_KEPT_RESPONSES, "messages", *_EMBEDDINGS, "rerank"),
    },
    "together": {
        "base_url": "https://api.together.xyz/v1",
        "endpoints": (*_CHAT, *_EMBEDDINGS, "rerank", "images.*", "audio.*"),
    },
    # Its own API is beside the one that is compatible with OpenAI's.
    "cohere": {
        "base_url": "https://api.cohere.ai/compatibility/v1",
        "endpoints": ("chat.completions", *_EMBEDDINGS, *_RERANK),
        "base_paths": {"rerank": "/v1", "rerank.v2": "/v2"},
    },
    "voyage": {"base_url": "https://api.voyageai.com/v1", "endpoints": (*_EMBEDDINGS, "rerank")},
    "jina": {"base_url": "https://api.jina.ai/v1", "endpoints": (*_EMBEDDINGS, "rerank")},
    "openrouter": {
        "base_url": "https://openrouter.ai/api/v1",
        "endpoints": (*_CHAT, "responses", "messages", *_EMBEDDINGS, "rerank", "audio.transcriptions"),
    },
    # Servers that one runs oneself say themselves what they have: it depends on their version and model.
    "vllm": {"base_url": "http://127.0.0.1:8000/v1"},
    "sglang": {"base_url": "http://127.0.0.1:30000/v1"},
    "ollama": {"base_url": "http://127.0.0.1:11434/v1", "auth": "none"},
    "lmstudio": {"base_url": "http://127.0.0.1:1234/v1"},
    "llamacpp": {"base_url": "http://127.0.0.1:8080/v1"},
    "litellm": {"base_url": "http://127.0.0.1:4000/v1"},
}
