"""What is known of providers and servers: the settings of an upstream that `preset` fills in.

Each is only a default: what the file says of the upstream overrides it. Where each fact is said was looked up in
November 2026, in stored copies of pages and in the providers' own packages:

- openai: github.com/openai/openai-python: src/openai/resources for the endpoints; in completion_create_params.py that
  `max_tokens` is deprecated and refused by reasoning models
- azure: github.com/MicrosoftDocs/azure-ai-docs, articles/foundry/openai/latest.md: base URL, `api-key`, both caps as
  at OpenAI; github.com/Azure/azure-rest-api-specs, specification/ai/data-plane/OpenAI.v1: chat, responses, embeddings
  and images, and that there are no moderations; learn.microsoft.com/azure/ai-foundry/openai/reference-preview-latest:
  audio, in preview with the query `api-version=preview`; openai-python, lib/azure.py: completions;
  learn.microsoft.com/azure/foundry/openai/latest: conversations, where learn.microsoft.com/answers/a/12821516 got
  a 404 in June 2026
- foundry: the same articles, foundry-models/includes/concepts-claude-models-content.md: messages, count_tokens and
  their path; github.com/anthropics/anthropic-sdk-python, lib/foundry.py: that these take `x-api-key`;
  learn.microsoft.com/azure/foundry/reference/rest/create-conversation: conversations
- anthropic: docs.anthropic.com/en/api/openai-sdk: chat, for tests and comparisons
- gemini: ai.google.dev/gemini-api/docs/openai: chat, embeddings and images; ai.google.dev/api: the rest
- vertex: docs.cloud.google.com/vertex-ai/generative-ai/docs/migrate/openai/overview: base URL and chat
- bedrock: docs.aws.amazon.com/bedrock/latest/userguide/inference-responses-api.html, inference-messages-api.html: base
  URL, responses, messages; github.com/BerriAI/litellm, llms/bedrock/chat/chat_completions: that every model takes
  `max_completion_tokens` and some refuse `max_tokens`
- mistral: github.com/mistralai/platform-docs-public, public/openapi.yaml: endpoints and `max_tokens`;
  github.com/openai/openai-agents-python/issues/442: that `stream_options` is a 422; github.com/vercel/ai,
  packages/mistral: that the last chunk has the usage unasked. Its speech wants `voice_id` (the package mistralai)
- groq: github.com/groq/groq-python, api.md: chat, embeddings, audio; that `max_tokens` is deprecated;
  console.groq.com/docs/openai: base URL, responses
- xai: docs.x.ai/api-reference: base URL, chat, responses, images; Messages are retired there and embeddings not listed;
  github.com/vercel/ai, packages/xai: `max_completion_tokens`, image edits from JSON, speech and transcriptions on paths
  of its own; github.com/Portkey-AI/gateway, src/providers/x-ai: completions
- deepseek: api-docs.deepseek.com/guides/anthropic_api: where Messages begin; github.com/pydantic/pydantic-ai,
  tests/models/cassettes/test_deepseek_responses: /responses, without /v1; github.com/vercel/ai, packages/deepseek:
  `max_tokens`
- fireworks: docs.fireworks.ai/tools-sdks/anthropic-compatibility, docs.fireworks.ai/nexus/apis-and-sdks: chat,
  responses, messages; docs.fireworks.ai/inference-api-reference/rerank; the package fireworks-ai: completions, and that
  `max_completion_tokens` is an alias of `max_tokens` which must not be beside it; github.com/Portkey-AI/gateway,
  src/providers/fireworks-ai: embeddings
- together: github.com/togethercomputer/openapi, openapi.yaml: base URL, every endpoint, `max_tokens`
- cohere: github.com/cohere-ai/cohere-developer-experience, compatibility-api.mdx: base URL, chat, embeddings,
  transcriptions, `max_tokens`; cohere-openapi.yaml: rerank. That `stream_options` is refused is from
  strandsagents.com/docs/user-guide/concepts/model-providers/cohere
- voyage: the package voyageai: embeddings, rerank, and that a key beginning with `al-` is for https://ai.mongodb.com/v1
- jina: github.com/BerriAI/litellm, llms/jina_ai: embeddings, rerank
- openrouter: the package openrouter: chat, responses, embeddings, rerank, speech, transcriptions of an uploaded file,
  that `max_tokens` is deprecated, that it makes images on a path of its own; github.com/OpenRouterTeam/docs,
  openapi/openapi.yaml: messages; guides/features/router-metadata.mdx: completions
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
        "auth": "foundry",
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
        "endpoints": ("chat.completions", "responses", *_EMBEDDINGS, "audio.*"),
    },
    "xai": {
        "base_url": "https://api.x.ai/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": (*_CHAT, *_KEPT_RESPONSES, "images.generations"),
    },
    "deepseek": {
        "base_url": "https://api.deepseek.com/v1",
        "endpoints": ("chat.completions", "responses", "messages"),
        "base_paths": {"responses": "", "messages": "/anthropic/v1"},
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
        "endpoints": ("chat.completions", *_EMBEDDINGS, *_RERANK, "audio.transcriptions"),
        "base_paths": {"rerank": "/v1", "rerank.v2": "/v2"},
    },
    # Keys that begin with `al-` are for https://ai.mongodb.com/v1.
    "voyage": {"base_url": "https://api.voyageai.com/v1", "endpoints": (*_EMBEDDINGS, "rerank")},
    "jina": {"base_url": "https://api.jina.ai/v1", "endpoints": (*_EMBEDDINGS, "rerank")},
    "openrouter": {
        "base_url": "https://openrouter.ai/api/v1",
        "output_cap": "max_completion_tokens",
        "endpoints": (*_CHAT, "responses", "messages", *_EMBEDDINGS, "rerank", "audio.speech", "audio.transcriptions"),
    },
    # Servers of your own are asked for every endpoint: what they have depends on their version and model.
    "vllm": {"base_url": "http://127.0.0.1:8000/v1"},
    "sglang": {"base_url": "http://127.0.0.1:30000/v1"},
    "ollama": {"base_url": "http://127.0.0.1:11434/v1", "auth": "none"},
    "lmstudio": {"base_url": "http://127.0.0.1:1234/v1"},
    "llamacpp": {"base_url": "http://127.0.0.1:8080/v1"},
    "litellm": {"base_url": "http://127.0.0.1:4000/v1"},
}
