"""The endpoints, as one table. A row says how to read a request, where its answers report usage, which field caps the
output, and how an error looks. There is no handler for a single endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.core import request_fields, usage_tables
from gateway.core.json_object import Path
from gateway.core.json_spans import NamesRead
from gateway.core.request_fields import Fields
from gateway.core.stored_objects import ObjectKind
from gateway.core.usage_tables import UsageTable


class Dialect(StrEnum):
    """Whose shapes of errors and error events an endpoint speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


GEMINI_PREFIX = "models/"
"""What Gemini's API writes before a model's name, where a body has it."""


_NO_PARAMETERS: Mapping[str, str] = {}

OTHER_MODELS = frozenset(
    {"models", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "user_config", "safety_model"}
)
"""Members by which a request names models that the upstream is to ask when its own fails, or as well: OpenRouter's
(https://openrouter.ai/docs/guides/routing/model-fallbacks, also with Anthropic's name), LiteLLM's
(https://docs.litellm.ai/docs/proxy/reliability and https://docs.litellm.ai/docs/proxy/clientside_auth) and Together's
(https://docs.together.ai/reference/chat-completions-1)."""


OVERRIDES = "extra_body"
"""LiteLLM's proxy gives its members to the OpenAI client, which puts them in the place of those of the body
(https://docs.litellm.ai/docs/completion/provider_specific_params)."""


LLAMA_CAP: Path = ("n_predict",)
"""llama.cpp's cap. Other servers ignore it, so that it is never the only one where the output must be capped."""


class StreamFormat(StrEnum):
    """Whose events a stream of generated text consists of."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    GEMINI = "gemini"


class Endpoint(msgspec.Struct, frozen=True):
    """One row."""

    name: str
    path: str
    """Of Gemini's API it has the parameter `{model}`, which names the model in place of the body."""
    method: str = "POST"
    fields: type[Fields] | None = None
    input_members: tuple[str, ...] = ()
    """Members of the body that are the model's input, the main one first."""
    cap_paths: tuple[Path, ...] = ()
    """Members that cap the output, the first of which is set where a request has none of them."""
    model_paths: tuple[Path, ...] = ()
    """Members of a body whose path names the model, that name it once more."""
    has_output: bool | None = None
    """Whether answers have output that is reserved; None: where it can be capped."""
    least_output: int = 1
    """The smallest cap that the API takes (https://platform.openai.com/docs/api-reference/responses/create)."""
    estimated: bool = False
    """Whether usage that is not reported is estimated; elsewhere only reported tokens count."""
    usage: UsageTable = usage_tables.CHAT_USAGE
    """Where its answers report usage."""
    terminal_events: tuple[str, ...] = ()
    """The events, by type, that end a stream: what follows them is of no interest to a client. `[DONE]` ends any."""
    terminal_member: Path = ()
    """A member that only the last event has, where events have no type."""
    asks_with_stream_options: bool = False
    """Whether usage of a stream is asked for with `stream_options`, and merged for who did not ask."""
    dialect: Dialect = Dialect.OPENAI
    stream_format: StreamFormat | None = None
    """None where streams have no text of a model, or there are none."""
    takes_form: bool = False
    """Whether a request may be a form with files, which is relayed as it comes and never held whole."""

    is_often_missing: bool = False
    """Whether servers that have the rest of its API may lack it: their 404 is of any shape."""
    reports_advisors: bool = False
    """Whether its answers report by model what the models took that tools asked."""
    reports_images: bool = False
    """Whether its answers show the images that tools made."""
    is_free: bool = False
    """Whether it only counts: nothing is charged but the request."""
    about: ObjectKind | None = None
    """What its path names by an id, or has the upstream make: something that the upstream keeps, whose model it is."""
    creates: ObjectKind | None = None
    """What the upstream keeps of an answer."""
    names_read: NamesRead = NamesRead(())
    """Made of the fields."""
    names_model: bool = False
    """Whether its path names the model. Made of the path, as is `_below_version`."""
    _below_version: str = ""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "names_model", "{model}" in self.path)
        if self.path:
            msgspec.structs.force_setattr(self, "_below_version", self.path[len(self.version) :])
        if self.has_output is None:
            msgspec.structs.force_setattr(self, "has_output", bool(self.cap_paths))
        if self.fields is not None:
            names = [field.encode_name for field in msgspec.structs.fields(self.fields)]
            read = NamesRead((*names, *self.input_members, *(path[0] for path in self.cap_paths), *OTHER_MODELS))
            msgspec.structs.force_setattr(self, "names_read", read)

    @property
    def object_parameter(self) -> str:
        """The parameter of its path that names what it is about; empty where there is none yet."""
        name = f"{self.about}_id"
        return name if f"{{{name}}}" in self.path else ""

    @property
    def version(self) -> str:
        """The first segment of its path."""
        return "/" + self.path.split("/", 2)[1]

    def upstream_path(self, model: str, parameters: Mapping[str, str] = _NO_PARAMETERS) -> str:
        """The path at an upstream, below the version, for what the model is called there, and with what else the
        request's path names."""
        path = self._below_version
        if self.about is not None:
            for name, value in parameters.items():
                path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path.replace("{model}", quote(model, safe="/")) if self.names_model else path


_RESPONSES_INPUT = ("input", "instructions", "tools", "text")
_MESSAGES_INPUT = ("messages", "system", "tools")
_CHAT_INPUT = ("messages", "tools", "functions", "response_format")

CHAT = Endpoint(
    name="chat.completions",
    path="/v1/chat/completions",
    fields=request_fields.ChatFields,
    input_members=_CHAT_INPUT,
    cap_paths=(("max_completion_tokens",), LLAMA_CAP, ("max_tokens",)),
    estimated=True,
    asks_with_stream_options=True,
    stream_format=StreamFormat.CHAT,
)
COMPLETIONS = Endpoint(
    name="completions",
    path="/v1/completions",
    fields=request_fields.CompletionFields,
    input_members=("prompt", "suffix"),
    cap_paths=(("max_tokens",), LLAMA_CAP),
    estimated=True,
    asks_with_stream_options=True,
    stream_format=StreamFormat.COMPLETIONS,
)
RESPONSES = Endpoint(
    name="responses",
    path="/v1/responses",
    fields=request_fields.ResponseFields,
    input_members=_RESPONSES_INPUT,
    cap_paths=(("max_output_tokens",),),
    least_output=16,
    estimated=True,
    usage=usage_tables.RESPONSES_USAGE,
    terminal_events=usage_tables.RESPONSE_ENDS,
    dialect=Dialect.RESPONSES,
    stream_format=StreamFormat.RESPONSES,
    creates=ObjectKind.RESPONSE,
    reports_images=True,
)
MESSAGES = Endpoint(
    name="messages",
    path="/v1/messages",
    fields=request_fields.MessageFields,
    input_members=_MESSAGES_INPUT,
    cap_paths=(("max_tokens",),),
    estimated=True,
    usage=usage_tables.MESSAGES_USAGE,
    terminal_events=("message_stop",),
    reports_advisors=True,
    dialect=Dialect.ANTHROPIC,
    stream_format=StreamFormat.MESSAGES,
)
INPUT_TOKENS = Endpoint(
    name="responses.input_tokens",
    path="/v1/responses/input_tokens",
    fields=request_fields.CountedResponseFields,
    input_members=_RESPONSES_INPUT,
    usage=usage_tables.NO_USAGE,
    is_free=True,
    is_often_missing=True,
)
COMPACT = Endpoint(
    name="responses.compact",
    path="/v1/responses/compact",
    fields=request_fields.CountedResponseFields,
    input_members=_RESPONSES_INPUT,
    has_output=True,
    estimated=True,
    usage=usage_tables.RESPONSES_USAGE,
    stream_format=StreamFormat.RESPONSES,
    is_often_missing=True,
)
COUNT_TOKENS = Endpoint(
    name="messages.count_tokens",
    path="/v1/messages/count_tokens",
    fields=request_fields.CountedMessageFields,
    input_members=_MESSAGES_INPUT,
    usage=usage_tables.NO_USAGE,
    dialect=Dialect.ANTHROPIC,
    is_free=True,
    is_often_missing=True,
)
EMBEDDINGS = Endpoint(
    name="embeddings",
    path="/v1/embeddings",
    fields=request_fields.EmbeddingFields,
    input_members=("input",),
    estimated=True,
    usage=usage_tables.EMBEDDINGS_USAGE,
)
MODERATIONS = Endpoint(
    name="moderations",
    path="/v1/moderations",
    fields=request_fields.ModerationFields,
    input_members=("input",),
    usage=usage_tables.MODERATIONS_USAGE,
)
RERANK = Endpoint(
    name="rerank",
    path="/v1/rerank",
    fields=request_fields.RerankFields,
    input_members=("query", "documents"),
    usage=usage_tables.RERANK_USAGE,
)
RERANK_V2 = Endpoint(
    name="rerank.v2",
    path="/v2/rerank",
    fields=request_fields.RerankFields,
    input_members=("query", "documents"),
    usage=usage_tables.RERANK_USAGE,
)
SCORE = Endpoint(
    name="score",
    path="/v1/score",
    fields=request_fields.ScoreFields,
    input_members=("text_1", "text_2", "data_1", "data_2", "queries", "items", "documents"),
    usage=usage_tables.RERANK_USAGE,
)
IMAGES = Endpoint(
    name="images.generations",
    path="/v1/images/generations",
    fields=request_fields.ImageFields,
    input_members=("prompt",),
    usage=usage_tables.IMAGES_USAGE,
)
SPEECH = Endpoint(
    name="audio.speech",
    path="/v1/audio/speech",
    fields=request_fields.SpeechFields,
    input_members=("input",),
    usage=usage_tables.SPEECH_USAGE,
    terminal_events=("speech.audio.done",),
)


def _form(name: str, path: str, usage: UsageTable, *terminal_events: str) -> Endpoint:
    return Endpoint(
        name, path, fields=request_fields.FormFields, usage=usage, terminal_events=terminal_events, takes_form=True
    )


TRANSCRIPTIONS = _form(
    "audio.transcriptions", "/v1/audio/transcriptions", usage_tables.TRANSCRIPTIONS_USAGE, "transcript.text.done"
)
TRANSLATIONS = _form("audio.translations", "/v1/audio/translations", usage_tables.TRANSCRIPTIONS_USAGE)
IMAGE_EDITS = _form("images.edits", "/v1/images/edits", usage_tables.IMAGES_USAGE)
IMAGE_VARIATIONS = _form("images.variations", "/v1/images/variations", usage_tables.IMAGES_USAGE)


def _gemini(action: str, fields: type[Fields], *, usage: UsageTable, **more: Any) -> Endpoint:
    """Gemini's API (https://ai.google.dev/api). Its servers read every name in camel case and in snake case
    (https://protobuf.dev/programming-guides/json/)."""
    return Endpoint(
        name=f"gemini.{action}",
        path=f"/v1beta/models/{{model}}:{action}",
        fields=fields,
        usage=usage,
        dialect=Dialect.GEMINI,
        **more,
    )


def _generating(action: str, fields: type[Fields]) -> Endpoint:
    return _gemini(
        action,
        fields,
        usage=usage_tables.GEMINI_USAGE,
        input_members=("contents", "systemInstruction", "system_instruction", "tools"),
        cap_paths=(("generationConfig", "maxOutputTokens"), *request_fields.OTHER_GEMINI_CAPS),
        model_paths=(("model",),),
        estimated=True,
        terminal_member=("candidates", "*", "finishReason"),
        stream_format=StreamFormat.GEMINI,
    )


GENERATE_CONTENT = _generating("generateContent", request_fields.GeminiFields)
STREAM_GENERATE_CONTENT = _generating("streamGenerateContent", request_fields.GeminiStreamFields)
GEMINI_COUNT_TOKENS = _gemini(
    "countTokens",
    request_fields.GeminiCountFields,
    usage=usage_tables.NO_USAGE,
    model_paths=(("model",), ("generateContentRequest", "model"), ("generate_content_request", "model")),
    is_free=True,
    is_often_missing=True,
)
EMBED_CONTENT = _gemini(
    "embedContent",
    request_fields.GeminiEmbeddingFields,
    usage=usage_tables.GEMINI_EMBEDDINGS_USAGE,
    input_members=("content",),
    model_paths=(("model",),),
    estimated=True,
)
BATCH_EMBED_CONTENTS = _gemini(
    "batchEmbedContents",
    request_fields.GeminiEmbeddingFields,
    usage=usage_tables.GEMINI_EMBEDDINGS_USAGE,
    input_members=("requests",),
    model_paths=(("model",), ("requests", "*", "model")),
    estimated=True,
)


def _about(kind: ObjectKind, name: str, method: str, path: str, **more: Any) -> Endpoint:
    """A row about what an upstream keeps. Nothing of it is charged but the request: its answers were billed when they
    were made."""
    return Endpoint(
        f"{kind}s{name}", path, method=method, usage=usage_tables.NO_USAGE, about=kind, is_free=True, **more
    )


def _about_response(name: str, method: str, path: str = "") -> Endpoint:
    """A stream of it resumes one that was made (https://platform.openai.com/docs/api-reference/responses/get)."""
    return _about(
        ObjectKind.RESPONSE,
        name,
        method,
        f"/v1/responses/{{response_id}}{path}",
        dialect=Dialect.RESPONSES,
        terminal_events=RESPONSES.terminal_events,
    )


def _about_conversation(name: str, method: str, path: str = "") -> Endpoint:
    return _about(ObjectKind.CONVERSATION, name, method, f"/v1/conversations/{{conversation_id}}{path}")


RETRIEVE_RESPONSE = _about_response(".retrieve", "GET")
CREATE_CONVERSATION = Endpoint(
    "conversations",
    "/v1/conversations",
    usage=usage_tables.CONVERSATIONS_USAGE,
    about=ObjectKind.CONVERSATION,
    creates=ObjectKind.CONVERSATION,
    is_free=True,
    names_read=NamesRead(("model",)),
)
"""`?model=` says whose upstream is to make it."""

MODELS = Endpoint(name="models", path="/v1/models")
MODEL = Endpoint(name="models", path="/v1/models/{model}")
GEMINI_MODELS = Endpoint(name="models", path="/v1beta/models", dialect=Dialect.GEMINI)
GEMINI_MODEL = Endpoint(name="models", path="/v1beta/models/{model}", dialect=Dialect.GEMINI)
LIMITS = Endpoint(name="limits", path="/v1/limits")
USAGE = Endpoint(name="usage", path="/v1/usage")
ROOT = Endpoint(name="root", path="/")
OPENAPI = Endpoint(name="openapi", path="/openapi.json")
ME_SESSION = Endpoint(name="me", path="/me/session")
ME_KEY = Endpoint(name="me", path="/me/key")
ME_LIMITS = Endpoint(name="me", path="/me/limits")
ME_USAGE = Endpoint(name="me", path="/me/usage")
"""These are answered by the gateway itself; nothing is forwarded."""

UNKNOWN = Endpoint(name="", path="")
"""What the log shows for a request to no endpoint."""

_TEXT_ROWS = (CHAT, COMPLETIONS, RESPONSES, INPUT_TOKENS, COMPACT, MESSAGES, COUNT_TOKENS)
_OTHER_ROWS = (EMBEDDINGS, MODERATIONS, RERANK, RERANK_V2, SCORE, IMAGES, SPEECH)
_FORM_ROWS = (TRANSCRIPTIONS, TRANSLATIONS, IMAGE_EDITS, IMAGE_VARIATIONS)
_GEMINI_ROWS = (
    GENERATE_CONTENT,
    STREAM_GENERATE_CONTENT,
    GEMINI_COUNT_TOKENS,
    EMBED_CONTENT,
    BATCH_EMBED_CONTENTS,
)

ENDPOINTS: dict[str, Endpoint] = {row.path: row for row in (*_TEXT_ROWS, *_OTHER_ROWS, *_FORM_ROWS, *_GEMINI_ROWS)}
"""Those whose request names a model, by their path."""

OBJECT_ENDPOINTS = (
    RETRIEVE_RESPONSE,
    _about_response(".delete", "DELETE"),
    _about_response(".cancel", "POST", "/cancel"),
    _about_response(".input_items", "GET", "/input_items"),
    CREATE_CONVERSATION,
    _about_conversation(".retrieve", "GET"),
    _about_conversation(".update", "POST"),
    _about_conversation(".delete", "DELETE"),
    _about_conversation(".items", "GET", "/items"),
    _about_conversation(".items.create", "POST", "/items"),
    _about_conversation(".items.retrieve", "GET", "/items/{item_id}"),
    _about_conversation(".items.delete", "DELETE", "/items/{item_id}"),
)
"""Those about what an upstream keeps. Several have one path, and differ by their method."""

FORWARDED = (*ENDPOINTS.values(), *OBJECT_ENDPOINTS)
ENDPOINT_NAMES = tuple(row.name for row in FORWARDED)
"""Of those that are forwarded."""
