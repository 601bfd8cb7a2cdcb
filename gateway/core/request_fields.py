"""What the gateway reads of each endpoint's request; every other member is passed on unread.

Fields and their ranges: the API references of OpenAI, Anthropic and Cohere (rerank), as narrowed by
the field table in docs/api.md.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.core.end_users import USER_CHARACTERS, account_in
from gateway.core.pricing import FAST
from gateway.core.stored_objects import ObjectKind, ObjectName
from gateway.core.usage import NOTHING_USED, Usage

TOKENS_MAX = 2**31 - 1
"""As far as model servers count: in 32 bits."""

Tokens = Annotated[int, Meta(ge=1, le=TOKENS_MAX)]
TokensOrNone = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Tier = Annotated[str, Meta(max_length=256)]
User = Annotated[str, Meta(max_length=USER_CHARACTERS)]
ObjectId = Annotated[str, Meta(max_length=256)]
Share = Annotated[float, Meta(ge=0, le=1)]
Heat = Annotated[float, Meta(ge=0, le=2)]
Choices = Annotated[int, Meta(ge=1, le=128)]


class Fields(msgspec.Struct, kw_only=True):
    """What every request may have. A subclass adds its own fields, and says how its output is capped."""

    thinking_budgets: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Where a request can name how many tokens the model may think; the cap on its output must be above that."""

    model: Text
    user: User | None = None
    safety_identifier: User | None = None
    stream: bool | None = None
    service_tier: Tier | None = None

    def streams(self) -> bool:
        return bool(self.stream)

    def asks_usage(self) -> bool:
        """Whether the client wants the usage chunk of a stream as the upstream sends it."""
        return False

    def output_cap(self) -> int | None:
        """Tokens that one choice may produce, as the client asked; None if it did not say."""
        return None

    def choices(self) -> int:
        return 1

    def end_user(self) -> str:
        return self.user or self.safety_identifier or ""

    def tier(self) -> str:
        """The service tier that it asks for, empty for none."""
        return (self.service_tier or "").lower()

    def units(self) -> Usage:
        """What it asks for and is billed by the piece."""
        return NOTHING_USED

    def continues(self) -> tuple[ObjectName, ...]:
        """What an upstream keeps and it goes on from."""
        return ()

    def is_kept(self) -> bool:
        """Whether the upstream may keep its answer, where the API has that."""
        return True


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Sampled(Fields, kw_only=True):
    """What chat and legacy completions share."""

    max_tokens: Tokens | None = None
    temperature: Heat | None = None
    top_p: Share | None = None
    n: Choices | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    stream_options: _StreamOptions | None = None
    n_predict: Annotated[int, Meta(le=TOKENS_MAX)] | None = None
    """llama.cpp obeys it rather than `max_tokens`; below zero it is no cap
    (https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md)."""

    def asks_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def output_cap(self) -> int | None:
        return self.max_tokens if self.n_predict is None else _beside(self.max_tokens, self.n_predict)

    def choices(self) -> int:
        return self.n or 1


def _beside(named: int | None, n_predict: int) -> int | None:
    """The cap that is named beside `n_predict`, or that where it is larger: it is not known which of the two the
    upstream obeys. Alone `n_predict` is no cap: only llama.cpp knows it."""
    if named is None:
        return None
    return None if n_predict < 0 else max(named, n_predict)


class _ChatMessage(msgspec.Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]


class ChatFields(_Sampled, kw_only=True):
    thinking_budgets = (
        # Anthropic's and LiteLLM's member, Qwen's (DashScope, SiliconFlow), OpenRouter's, and Google's.
        ("thinking", "budget_tokens"),
        ("thinking_budget",),
        ("reasoning", "max_tokens"),
        ("extra_body", "google", "thinking_config", "thinking_budget"),
    )

    messages: Annotated[list[_ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Tokens | None = None

    def output_cap(self) -> int | None:
        """Of two caps the larger, since it is not known which one the upstream obeys."""
        named, other = self.max_completion_tokens, self.max_tokens
        if named is None or (other is not None and other > named):
            named = other
        return named if self.n_predict is None else _beside(named, self.n_predict)


class CompletionFields(_Sampled, kw_only=True):
    """A request without output asks for the likelihood of its prompt (`echo` with `logprobs`). One without a prompt
    begins a text, or has it as embeddings (vLLM)."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)] | None = None
    max_tokens: TokensOrNone | None = None
    best_of: Choices | None = None

    def choices(self) -> int:
        """Choices over all prompts: a list is a list of prompts, unless it is one prompt in tokens."""
        prompt = self.prompt
        prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
        return max(self.n or 1, self.best_of or 1) * prompts


Items = str | Annotated[list[msgspec.Raw], Meta(min_length=1)] | dict[str, msgspec.Raw]
"""Text, tokens, or objects of text and images (Jina, vLLM, Cohere, Mistral), one or several."""


class EmbeddingFields(Fields, kw_only=True):
    """`messages` in place of `input` is vLLM's way to embed a conversation."""

    input: Items | UnsetType = UNSET
    messages: list[msgspec.Raw] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.input is UNSET and self.messages is UNSET:
            raise ValueError("Object missing required field `input`")


class _ConversationReference(msgspec.Struct):
    id: ObjectId


class _ContinuingFields(Fields, kw_only=True):
    previous_response_id: ObjectId | None = None
    conversation: ObjectId | _ConversationReference | None = None

    def continues(self) -> tuple[ObjectName, ...]:
        if self.previous_response_id is None and self.conversation is None:
            return ()
        named = self.conversation
        conversation = named.id if isinstance(named, _ConversationReference) else named
        names = ((ObjectKind.RESPONSE, self.previous_response_id), (ObjectKind.CONVERSATION, conversation))
        return tuple([ObjectName(kind, name) for kind, name in names if name is not None])


class CountedResponseFields(_ContinuingFields, kw_only=True):
    """Of a request of the Responses API that has no answer in the way of a response: it counts or compacts its
    input."""

    def streams(self) -> bool:
        return False


class ResponseFields(_ContinuingFields, kw_only=True):
    input: msgspec.Raw | UnsetType = UNSET
    max_output_tokens: Tokens | None = None
    temperature: Heat | None = None
    top_p: Share | None = None
    background: bool | None = None
    store: bool | None = None

    def __post_init__(self) -> None:
        if self.background:
            raise ValueError(
                "`background`: an answer that is made later cannot be metered, so it is not served here."
                " Leave it out, or send false"
            )

    def output_cap(self) -> int | None:
        return self.max_output_tokens

    def is_kept(self) -> bool:
        """Unless it says otherwise (https://platform.openai.com/docs/api-reference/responses/create)."""
        return self.store is not False


class _AnthropicMessage(msgspec.Struct, gc=False):
    role: Literal["user", "assistant", "system"]


class _Metadata(msgspec.Struct):
    user_id: User | None = None


class MessageFields(Fields, kw_only=True):
    thinking_budgets = (("thinking", "budget_tokens"),)

    messages: Annotated[list[_AnthropicMessage], Meta(min_length=1)]
    max_tokens: Tokens
    temperature: Share | None = None
    top_p: Share | None = None
    metadata: _Metadata | None = None
    speed: Tier | None = None

    def tier(self) -> str:
        return FAST if (self.speed or "").lower() == FAST else super().tier()

    def output_cap(self) -> int | None:
        return self.max_tokens

    def end_user(self) -> str:
        return account_in((self.metadata and self.metadata.user_id) or "") or super().end_user()


class CountedMessageFields(Fields, kw_only=True):
    messages: Annotated[list[_AnthropicMessage], Meta(min_length=1)]

    def streams(self) -> bool:
        return False


class ModerationFields(Fields, kw_only=True):
    input: Items


class RerankFields(Fields, kw_only=True):
    query: Items
    documents: Items

    def units(self) -> Usage:
        """A search has up to 100 documents (https://docs.cohere.com/docs/rerank-overview)."""
        documents = len(self.documents) if isinstance(self.documents, list) else 1
        return Usage(searches=-(-documents // 100))


class ScoreFields(Fields, kw_only=True):
    """Of its members the names differ between versions of vLLM: which of them are missing the upstream says
    (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#score-api)."""


class ImageFields(Fields, kw_only=True):
    prompt: Annotated[str, Meta(min_length=1)]
    n: Annotated[int, Meta(ge=1, le=10)] | None = None

    def units(self) -> Usage:
        return Usage(images=self.n or 1)


class FormFields(Fields, kw_only=True):
    """What is read of a form with files: a field that comes after a file may come too late to be required."""

    n: Annotated[int, Meta(ge=1, le=10)] | None = None

    def units(self) -> Usage:
        """Where nothing is drawn, an image has no price."""
        return Usage(images=self.n or 1)


class SpeechFields(Fields, kw_only=True):
    input: Annotated[str, Meta(min_length=1)]
    stream_format: str | None = None

    def streams(self) -> bool:
        return self.stream_format == "sse"

    def units(self) -> Usage:
        return Usage(characters=len(self.input))


class _GeminiConfig(msgspec.Struct):
    """`generationConfig`, of which each name comes in two spellings."""

    maxOutputTokens: TokensOrNone | None = None  # noqa: N815
    max_output_tokens: TokensOrNone | None = None
    candidateCount: Choices | None = None  # noqa: N815
    candidate_count: Choices | None = None


OTHER_GEMINI_CAPS = (
    ("generationConfig", "max_output_tokens"),
    ("generation_config", "maxOutputTokens"),
    ("generation_config", "max_output_tokens"),
)
"""The spellings of `generationConfig.maxOutputTokens` that a request may have in its place."""


class GeminiCountFields(Fields, kw_only=True):
    """The path names the model. A body that names it too must not name another."""

    model: str = ""

    def streams(self) -> bool:
        """It is the method that streams, whatever the body says."""
        return False


class GeminiEmbeddingFields(GeminiCountFields, kw_only=True):
    """One content, or several requests of one each."""


class GeminiFields(GeminiCountFields, kw_only=True):
    thinking_budgets = (
        ("generationConfig", "thinkingConfig", "thinkingBudget"),
        ("generationConfig", "thinking_config", "thinking_budget"),
        ("generation_config", "thinking_config", "thinking_budget"),
        ("generation_config", "thinkingConfig", "thinkingBudget"),
    )

    generationConfig: _GeminiConfig | None = None  # noqa: N815
    generation_config: _GeminiConfig | None = None
    serviceTier: Tier | None = None  # noqa: N815

    def output_cap(self) -> int | None:
        """Of several the largest, since it is not known which one the upstream obeys. Zero is the default."""
        caps = [cap for each in self._configs for cap in (each.maxOutputTokens, each.max_output_tokens) if cap]
        return max(caps, default=None)

    def choices(self) -> int:
        counts = [count for each in self._configs for count in (each.candidateCount, each.candidate_count) if count]
        return max(counts, default=1)

    def tier(self) -> str:
        return (self.serviceTier or "").lower() or super().tier()

    @property
    def _configs(self) -> list[_GeminiConfig]:
        return [each for each in (self.generationConfig, self.generation_config) if each is not None]


class GeminiStreamFields(GeminiFields, kw_only=True):
    def streams(self) -> bool:
        return True
