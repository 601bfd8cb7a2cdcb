"""The names of the fields of a usage object, as data for usage_report.py.

A `Vocabulary` has those of one family of APIs. Providers of one API differ in names, and in whether a part is counted
inside the whole (`prompt_tokens` includes the cached ones) or next to it (Anthropic's `input_tokens` does not).
`source` is the page or file that documents a field. usage_tables.py says where such an object is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from gateway.core.json_object import Path

_CAPITAL = re.compile("[A-Z]")

OPENAI_CHAT = "https://platform.openai.com/docs/api-reference/chat/object"
OPENAI_RESPONSES = "https://platform.openai.com/docs/api-reference/responses/object"
OPENAI_IMAGES = "https://platform.openai.com/docs/api-reference/images/object"
OPENAI_AUDIO = "https://platform.openai.com/docs/api-reference/audio"
ANTHROPIC = "https://docs.claude.com/en/api/messages"
ANTHROPIC_CACHE = "https://docs.claude.com/en/docs/build-with-claude/prompt-caching"
GEMINI = "https://ai.google.dev/api/generate-content#UsageMetadata"
GEMINI_EMBEDDINGS = "https://ai.google.dev/api/embeddings"
DASHSCOPE_CACHE = "https://help.aliyun.com/zh/model-studio/context-cache"
DASHSCOPE_RESPONSES = "https://help.aliyun.com/zh/model-studio/qwen-api-via-openai-responses"
DASHSCOPE_SEARCH = "https://help.aliyun.com/zh/model-studio/web-search"
DASHSCOPE_SPEECH = "https://help.aliyun.com/zh/model-studio/qwen-tts-api"
DEEPSEEK = "https://api-docs.deepseek.com/api/create-chat-completion"
INCEPTION = "https://docs.inceptionlabs.ai/"
COHERE = "https://docs.cohere.com/reference/rerank"
COHERE_EMBED = "https://docs.cohere.com/reference/embed"
LITELLM = "https://docs.litellm.ai/docs/completion/prompt_caching"
MISTRAL = "https://docs.mistral.ai/api"
MOONSHOT = "https://platform.moonshot.ai/docs/api/chat"
NEW_API = "https://github.com/QuantumNous/new-api/blob/main/dto/openai_response.go"
NEW_API_MESSAGES = "https://github.com/QuantumNous/new-api/blob/main/dto/claude.go"
OLLAMA = "https://docs.ollama.com/api/usage"
OPENROUTER = "https://openrouter.ai/docs/use-cases/usage-accounting"
OPENROUTER_RERANK = "https://openrouter.ai/docs/api/api-reference/rerank"
PERPLEXITY = "https://docs.perplexity.ai/models/models/sonar-deep-research"
SGLANG = "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/entrypoints/openai/protocol.py"
VOLCENGINE = "https://www.volcengine.com/docs/82379/1541523"
VOLCENGINE_SEARCH = "https://www.volcengine.com/docs/82379/1756990"
XAI = "https://docs.x.ai/docs/api-reference"


class UsageField(msgspec.Struct, frozen=True):
    """One name of one count.

    Of several fields of `input`, `output` and `total` the first that is there counts, a zero only where all are;
    of other counts the greatest, since they name the same tokens. `added` ones are added to that.

    A part counts inside its whole, except for these: `beside` is the field of the whole that does
    not include it (`*`: none does), `beside_with` a member whose presence says so.
    """

    count: str
    path: Path
    source: str
    added: bool = False
    beside: str = ""
    beside_with: str = ""


WHOLES = frozenset({"input", "output", "total"})
IN_SECONDS = frozenset({"audio_seconds", "sound_seconds"})
LIFETIMES = frozenset({"cache_write", "cache_write_1h"})
_ZERO_COUNTS = WHOLES | {"audio_seconds", "characters", "searches", "image_output"}
"""Of these a zero is distinguished from nothing."""


class RankedField(msgspec.Struct, frozen=True):
    """A field with its rank in a vocabulary."""

    field: UsageField
    rank: int
    count: str
    keeps_zero: bool

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing else to know about a whole number that is the first of its count."""
        name = self.count
        return not self.field.added and name not in IN_SECONDS | LIFETIMES and name != "cache_writes"


class Branch(msgspec.Struct, frozen=True):
    """One name within a usage object: the fields that it is, and what is below it. `keeps_zero`: one of them does.
    `plain` is its field where that is all, and plain."""

    fields: tuple[RankedField, ...]
    below: dict[str, Branch]
    keeps_zero: bool
    plain: RankedField | None


def _tree(fields: Sequence[RankedField], depth: int = 0) -> dict[str, Branch]:
    """What is below `depth` names of their paths."""
    named: dict[str, list[RankedField]] = {}
    for ranked in fields:
        named.setdefault(ranked.field.path[depth], []).append(ranked)
    return {name: _branch(found, depth + 1) for name, found in named.items()}


def _branch(fields: Sequence[RankedField], depth: int) -> Branch:
    here = tuple([ranked for ranked in fields if len(ranked.field.path) == depth])
    below = _tree([ranked for ranked in fields if len(ranked.field.path) > depth], depth)
    is_plain = len(here) == 1 and not below and here[0].is_plain
    return Branch(here, below, any(ranked.keeps_zero for ranked in here), here[0] if is_plain else None)


class Vocabulary(msgspec.Struct, frozen=True):
    """The names of one family of APIs, in order of rank. `tree` has them by member, since a report has few of
    them; `synonyms` those of all input, and those of all output."""

    fields: tuple[UsageField, ...]
    tree: dict[str, Branch] = {}
    synonyms: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        ranked = [
            RankedField(field, rank, field.count, field.count in _ZERO_COUNTS) for rank, field in enumerate(self.fields)
        ]
        msgspec.structs.force_setattr(self, "tree", _tree(ranked))
        synonyms = [
            frozenset(field.path[0] for field in self.fields if field.count == whole and not field.added)
            for whole in ("input", "output")
        ]
        msgspec.structs.force_setattr(self, "synonyms", tuple(synonyms))

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self.fields)} fields>"


def _field(
    count: str, path: str, source: str, *, added: bool = False, beside: str = "", beside_with: str = ""
) -> UsageField:
    return UsageField(count, tuple(path.split(".")), source, added, beside, beside_with)


_CACHE_FIELDS = (
    _field("cached_input", "prompt_tokens_details.cached_tokens", OPENAI_CHAT),
    _field("cached_input", "input_tokens_details.cached_tokens", OPENAI_RESPONSES),
    _field("cached_input", "prompt_token_details.cached_tokens", MISTRAL),
    _field("cached_input", "input_token_details.cached_tokens", OPENAI_AUDIO),
    _field("cached_input", "prompt_cache_hit_tokens", DEEPSEEK, beside="prompt_cache_miss_tokens"),
    _field("cached_input", "cached_tokens", MOONSHOT),
    _field("cached_input", "num_cached_tokens", MISTRAL),
    _field("cached_input", "cached_input_tokens", INCEPTION),
    _field("cached_input", "cache_read_input_tokens", ANTHROPIC_CACHE, beside="input_tokens"),
    _field("cache_writes", "prompt_tokens_details.cache_write_tokens", OPENROUTER),
    _field("cache_writes", "input_tokens_details.cache_write_tokens", OPENAI_RESPONSES),
    _field("cache_writes", "prompt_tokens_details.cache_creation_input_tokens", DASHSCOPE_CACHE),
    _field("cache_writes", "prompt_tokens_details.cache_creation_tokens", LITELLM),
    _field("cache_writes", "prompt_tokens_details.cached_creation_tokens", NEW_API),
    _field("cache_writes", "cache_creation_input_tokens", ANTHROPIC_CACHE, beside="input_tokens"),
    _field("cache_write", "cache_creation.ephemeral_5m_input_tokens", ANTHROPIC_CACHE, beside="input_tokens"),
    _field("cache_write_1h", "cache_creation.ephemeral_1h_input_tokens", ANTHROPIC_CACHE, beside="input_tokens"),
    _field("cache_write", "prompt_tokens_details.cache_creation.ephemeral_5m_input_tokens", DASHSCOPE_CACHE),
    _field("cache_write_1h", "prompt_tokens_details.cache_creation.ephemeral_1h_input_tokens", DASHSCOPE_CACHE),
    _field("cache_write", "prompt_tokens_details.cache_creation_token_details.ephemeral_5m_input_tokens", LITELLM),
    _field("cache_write_1h", "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens", LITELLM),
    _field("cache_write", "claude_cache_creation_5_m_tokens", NEW_API),
    _field("cache_write_1h", "claude_cache_creation_1_h_tokens", NEW_API),
)
_MEDIA_FIELDS = tuple(
    _field(f"{medium}_{side}", f"{group}.{medium}_tokens", source)
    for side, group, source in (
        ("input", "prompt_tokens_details", OPENAI_CHAT),
        ("input", "input_tokens_details", OPENAI_IMAGES),
        ("input", "input_token_details", OPENAI_AUDIO),
        ("input", "prompt_token_details", MISTRAL),
        ("output", "completion_tokens_details", OPENAI_CHAT),
        ("output", "output_tokens_details", OPENAI_IMAGES),
        ("output", "output_token_details", OPENAI_AUDIO),
    )
    for medium in ("audio", "image")
)
_REASONING_FIELDS = (
    _field("reasoning", "completion_tokens_details.reasoning_tokens", OPENAI_CHAT),
    _field("reasoning", "output_tokens_details.reasoning_tokens", OPENAI_RESPONSES),
    _field("reasoning", "output_tokens_details.thinking_tokens", ANTHROPIC),
    # Perplexity's deep research counts it beside completion_tokens and leaves it out of total_tokens.
    _field("reasoning", "reasoning_tokens", SGLANG, beside_with="citation_tokens"),
)
_UNIT_FIELDS = (
    _field("searches", "server_tool_use.web_search_requests", ANTHROPIC),
    _field("searches", "server_tool_use_details.web_search_requests", OPENROUTER),
    _field("searches", "prompt_tokens_details.web_search_requests", LITELLM),
    _field("searches", "server_side_tool_usage_details.web_search_calls", XAI),
    _field("searches", "server_side_tool_usage_details.x_search_calls", XAI, added=True),
    _field("searches", "num_sources_used", XAI),
    _field("searches", "num_search_queries", PERPLEXITY),
    _field("searches", "search_units", OPENROUTER_RERANK),
    _field("searches", "x_tools.web_search.count", DASHSCOPE_RESPONSES),
    _field("searches", "plugins.search.count", DASHSCOPE_SEARCH),
    _field("searches", "tool_usage.web_search", VOLCENGINE_SEARCH),
    _field("images", "generated_images", VOLCENGINE),
)
_OPENAI_WHOLES = (
    _field("input", "prompt_tokens", OPENAI_CHAT),
    _field("input", "input_tokens", OPENAI_RESPONSES),
    _field("input", "prompt_cache_miss_tokens", DEEPSEEK),
    _field("input", "citation_tokens", PERPLEXITY, added=True),
    _field("output", "completion_tokens", OPENAI_CHAT),
    _field("output", "output_tokens", OPENAI_RESPONSES),
    _field("total", "total_tokens", OPENAI_CHAT),
    # Mistral counts sound beside prompt_tokens; where its tokens are not named, total_tokens has them.
    _field("sound_seconds", "prompt_audio_seconds", MISTRAL),
)
OPENAI_WORDS = Vocabulary(_OPENAI_WHOLES + _CACHE_FIELDS + _MEDIA_FIELDS + _REASONING_FIELDS + _UNIT_FIELDS)
"""OpenAI's names, and those of all who offer its APIs."""

AUDIO_WORDS = Vocabulary(
    (
        *OPENAI_WORDS.fields,
        _field("audio_seconds", "seconds", OPENAI_AUDIO),
        _field("audio_seconds", "prompt_audio_seconds", MISTRAL),
        _field("characters", "characters", DASHSCOPE_SPEECH),
    )
)
_CLAUDE_OF_NEW_API = (
    _field("cache_write", "claude_cache_creation_5_m_tokens", NEW_API_MESSAGES, beside="input_tokens"),
    _field("cache_write_1h", "claude_cache_creation_1_h_tokens", NEW_API_MESSAGES, beside="input_tokens"),
)
ANTHROPIC_WORDS = Vocabulary(
    (
        # Kimi adds it: all input, where its input_tokens is that, or what of it was not cached.
        _field("input", "prompt_tokens", MOONSHOT),
        _field("input", "input_tokens", ANTHROPIC),
        _field("output", "output_tokens", ANTHROPIC),
        *[field for field in _CACHE_FIELDS if field.source == ANTHROPIC_CACHE],
        *_CLAUDE_OF_NEW_API,
        *[field for field in OPENAI_WORDS.fields if field.source not in (ANTHROPIC_CACHE, NEW_API)],
    )
)
"""Anthropic's names, and those of others behind them. Where a part has several names, Anthropic's says where it is
counted: `input_tokens` has nothing of what was read from a cache or written to it, `prompt_tokens` has both."""
_GEMINI_FIELDS = (
    _field("input", "promptTokenCount", GEMINI),
    _field("input", "toolUsePromptTokenCount", GEMINI, added=True),
    _field("output", "candidatesTokenCount", GEMINI),
    _field("reasoning", "thoughtsTokenCount", GEMINI, beside="*"),
    _field("total", "totalTokenCount", GEMINI),
    _field("cached_input", "cachedContentTokenCount", GEMINI),
    _field("audio_input", "promptTokensDetails.AUDIO", GEMINI),
    _field("audio_input", "promptTokenDetails.AUDIO", GEMINI_EMBEDDINGS),
    _field("audio_input", "toolUsePromptTokensDetails.AUDIO", GEMINI, added=True),
    _field("image_input", "promptTokensDetails.IMAGE", GEMINI),
    _field("image_input", "promptTokenDetails.IMAGE", GEMINI_EMBEDDINGS),
    _field("image_input", "toolUsePromptTokensDetails.IMAGE", GEMINI, added=True),
    _field("audio_output", "candidatesTokensDetails.AUDIO", GEMINI),
    _field("image_output", "candidatesTokensDetails.IMAGE", GEMINI),
)


def _in_snake_case(field: UsageField) -> UsageField:
    path = tuple([name if name.isupper() else _CAPITAL.sub(r"_\g<0>", name).lower() for name in field.path])
    return msgspec.structs.replace(field, path=path)


GEMINI_WORDS = Vocabulary((*_GEMINI_FIELDS, *map(_in_snake_case, _GEMINI_FIELDS)))
"""In both spellings of protocol buffers: proxies that answer with Google's Python types write the names as those have
them (https://protobuf.dev/programming-guides/json/)."""

COHERE_WORDS = Vocabulary(
    (
        _field("input", "input_tokens", COHERE_EMBED),
        _field("image_input", "image_tokens", COHERE_EMBED, beside="*"),
        _field("output", "output_tokens", COHERE_EMBED),
        _field("total", "total_tokens", LITELLM),
        _field("searches", "search_units", COHERE),
    )
)
OLLAMA_WORDS = Vocabulary(
    (
        _field("input", "prompt_eval_count", OLLAMA),
        _field("output", "eval_count", OLLAMA),
    )
)

TOTALS = frozenset(
    field.path[-1]
    for words in (OPENAI_WORDS, GEMINI_WORDS, COHERE_WORDS)
    for field in words.fields
    if field.count == "total"
)
"""Members that are a sum of the others of their report."""

UNCACHED = "input_tokens"
"""The member of a report that leaves out what of the input was cached, where the vocabulary says so."""

MODALITIES: dict[str | int, str] = {2: "IMAGE", 4: "AUDIO"}
"""Vertex AI writes modalities as names or as the numbers of its enumeration
(https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/Modality)."""

TRAFFIC_TYPES = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}
"""Vertex AI's words for the tiers (https://cloud.google.com/vertex-ai/generative-ai/docs/flex-paygo)."""

FALLBACK_ITERATION = "fallback_message"
TOP_LEVEL_ITERATIONS = ("message", FALLBACK_ITERATION)
"""The kinds of Anthropic's `usage.iterations` that the counts above them include. Others (compaction, advisor) are
billed beside (https://docs.claude.com/en/docs/build-with-claude/compaction)."""
