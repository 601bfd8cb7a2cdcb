"""What is known of providers and servers: the settings of an upstream that `preset` fills in.

Each is only a default: what the file says of the upstream overrides it. What these pages say was looked up in stored
copies in November 2026:

- anthropic: docs.anthropic.com/en/api/openai-sdk: chat, for tests and comparisons
- bedrock: docs.aws.amazon.com/bedrock/latest/userguide/inference-responses-api.html, inference-messages-api.html: base
  URL, responses, messages
- cohere: docs.cohere.com/docs/compatibility-api: base URL, chat, embeddings. That `stream_options` is refused is from
  strandsagents.com/docs/user-guide/concepts/model-providers/cohere
- deepseek: api-docs.deepseek.com/guides/anthropic_api: where Messages begin
- fireworks: docs.fireworks.ai/tools-sdks/anthropic-compatibility, docs.fireworks.ai/nexus/apis-and-sdks: chat,
  responses, messages
- groq: console.groq.com/docs/openai: base URL, responses, transcriptions and translations
- mistral: that unknown fields are refused, github.com/mistralai/platform-docs-public/issues/7; that its speech wants
  `voice_id` and that it has no translations, github.com/backdrop-contrib/ai_provider_mistral/wiki
- openrouter: that it transcribes sound from JSON, skills.sh/openrouterteam/skills/openrouter-stt
- together: docs.together.ai/docs/inference/openai-compatibility: base URL, chat, completions, images, speech,
  embeddings
- xai: docs.x.ai/api-reference: base URL, chat, responses, images; Messages are retired there and embeddings not listed

The rest is from memory and was not checked: `output_cap` of every provider; azure and foundry (among it that they have
no moderations and no image variations); gemini's, vertex's, voyage's and jina's endpoints; rerank and embeddings of the
others; Groq's speech; that Mistral's last chunk has the usage unasked.
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
_AZURE = (*_CHAT, *_RESPONSES, *_CONVERSATIONS, *_EMBEDDINGS, "images.generations", "images.edits", "audio.*")
_OPENAI = (*_CHAT, *_RESPONSES, *_CONVERSATIONS, *_EMBEDDINGS, "moderations", "images.*", "audio.*")

PRESETS: dict[str, dict[str, Any]] = {
    "openai": {
        "base_url": "https://api.openai.com/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": _OPENAI,
    },
    # The resource's name is in the URL: https://NAME.openai.azure.com/openai/v1.
    "azure": {"auth": "api-key", "output_cap": "max_completion_tokens", "endpoints": _AZURE},
    # Microsoft Foundry, which has Claude too: https://NAME.services.ai.azure.com/openai/v1.
    "foundry": {
        "auth": "api-key",
        "output_cap": "max_completion_tokens",
        "endpoints": (*_AZURE, *_MESSAGES),
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
    # The region is in the URL: https://bedrock-runtime.REGION.amazonaws.com/openai/v1. It has Claude, too.
    "bedrock": {
        "output_cap": "max_completion_tokens",
        "endpoints": ("chat.completions", *_KEPT_RESPONSES, "messages"),
        "base_paths": {"messages": "/anthropic/v1"},
    },
    "mistral": {
        "base_url": "https://api.mistral.ai/v1",
        "stream_options": False,
        "endpoints": ("chat.completions", *_EMBEDDINGS, "moderations", "audio.transcriptions"),
    },
    "groq": {
        "base_url": "https://api.groq.com/openai/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": ("chat.completions", "responses", "audio.*"),
    },
    "xai": {
        "base_url": "https://api.x.ai/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": (*_CHAT, *_KEPT_RESPONSES, "images.generations"),
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
        "base_url": "https://api.together.ai/v1",
        "endpoints": (*_CHAT, *_EMBEDDINGS, "rerank", "images.generations", "audio.*"),
    },
    # Its own API is beside the one that is compatible with OpenAI's.
    "cohere": {
        "base_url": "https://api.cohere.ai/compatibility/v1",
        "stream_options": False,
        "endpoints": ("chat.completions", *_EMBEDDINGS, *_RERANK),
        "base_paths": {"rerank": "/v1", "rerank.v2": "/v2"},
    },
    "voyage": {"base_url": "https://api.voyageai.com/v1", "endpoints": (*_EMBEDDINGS, "rerank")},
    "jina": {"base_url": "https://api.jina.ai/v1", "endpoints": (*_EMBEDDINGS, "rerank")},
    "openrouter": {
        "base_url": "https://openrouter.ai/api/v1",
        "endpoints": (*_CHAT, "responses", "messages", *_EMBEDDINGS, "rerank"),
    },
    # Servers of your own are asked for every endpoint: what they have depends on their version and model.
    "vllm": {"base_url": "http://127.0.0.1:8000/v1"},
    "sglang": {"base_url": "http://127.0.0.1:30000/v1"},
    "ollama": {"base_url": "http://127.0.0.1:11434/v1", "auth": "none"},
    "lmstudio": {"base_url": "http://127.0.0.1:1234/v1"},
    "llamacpp": {"base_url": "http://127.0.0.1:8080/v1"},
    "litellm": {"base_url": "http://127.0.0.1:4000/v1"},
}
