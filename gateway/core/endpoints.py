"""The endpoints served, as one table: a row says how to read a request, where usage is in its
answers, which field caps its output, and how an error looks. There is no handler per endpoint;
there is a row.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.core import request_fields, usage_tables
from gateway.core.request_fields import Fields
from gateway.core.usage_tables import UsageTable


class Dialect(StrEnum):
    """Whose shapes of errors and error events an endpoint speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class StreamFormat(StrEnum):
    """Whose events a stream of generated text consists of."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Endpoint(msgspec.Struct, frozen=True):
    """One row."""

    name: str
    path: str
    fields: type[Fields] | None = None
    input_members: tuple[str, ...] = ()
    """Members of the body that are the model's input, the main one first."""
    cap_members: tuple[str, ...] = ()
    """Members that cap the output, the first of which is set where a request has none of them. An endpoint
    without has no output to be reserved."""
    least_output: int = 1
    """The smallest cap that the API takes (https://platform.openai.com/docs/api-reference/responses/create)."""
    estimated: bool = False
    """Whether usage that is not reported is estimated; elsewhere only reported tokens count."""
    usage: UsageTable = usage_tables.CHAT_USAGE
    """Where its answers report usage."""
    terminal_events: tuple[str, ...] = ()
    """The events, by type, that end a stream: what follows them is of no interest to a client. `[DONE]` ends any."""
    asks_with_stream_options: bool = False
    """Whether usage of a stream is asked for with `stream_options`, and merged for who did not ask."""
    dialect: Dialect = Dialect.OPENAI
    stream_format: StreamFormat | None = None
    """None where streams have no text of a model, or there are none."""
    takes_form: bool = False
    """Whether a request may be a form with files, which is relayed as it comes and never held whole."""

    @property
    def upstream_path(self) -> str:
        """The path under an upstream's base URL, which ends where ours has /v1."""
        return self.path.removeprefix("/v1")


_CHAT_INPUT = ("messages", "tools", "functions", "response_format")

CHAT = Endpoint(
    name="chat.completions",
    path="/v1/chat/completions",
    fields=request_fields.ChatFields,
    input_members=_CHAT_INPUT,
    cap_members=("max_completion_tokens", "max_tokens"),
    estimated=True,
    asks_with_stream_options=True,
    stream_format=StreamFormat.CHAT,
)
COMPLETIONS = Endpoint(
    name="completions",
    path="/v1/completions",
    fields=request_fields.CompletionFields,
    input_members=("prompt", "suffix"),
    cap_members=("max_tokens",),
    estimated=True,
    asks_with_stream_options=True,
    stream_format=StreamFormat.COMPLETIONS,
)
RESPONSES = Endpoint(
    name="responses",
    path="/v1/responses",
    fields=request_fields.ResponseFields,
    input_members=("input", "instructions", "tools", "text"),
    cap_members=("max_output_tokens",),
    least_output=16,
    estimated=True,
    usage=usage_tables.RESPONSES_USAGE,
    terminal_events=("response.completed", "response.incomplete", "response.failed"),
    dialect=Dialect.RESPONSES,
    stream_format=StreamFormat.RESPONSES,
)
MESSAGES = Endpoint(
    name="messages",
    path="/v1/messages",
    fields=request_fields.MessageFields,
    input_members=("messages", "system", "tools"),
    cap_members=("max_tokens",),
    estimated=True,
    usage=usage_tables.MESSAGES_USAGE,
    terminal_events=("message_stop",),
    dialect=Dialect.ANTHROPIC,
    stream_format=StreamFormat.MESSAGES,
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
        name, path, request_fields.FormFields, usage=usage, terminal_events=terminal_events, takes_form=True
    )


TRANSCRIPTIONS = _form(
    "audio.transcriptions", "/v1/audio/transcriptions", usage_tables.TRANSCRIPTIONS_USAGE, "transcript.text.done"
)
TRANSLATIONS = _form("audio.translations", "/v1/audio/translations", usage_tables.TRANSCRIPTIONS_USAGE)
IMAGE_EDITS = _form("images.edits", "/v1/images/edits", usage_tables.IMAGES_USAGE)
IMAGE_VARIATIONS = _form("images.variations", "/v1/images/variations", usage_tables.IMAGES_USAGE)

MODELS = Endpoint(name="models", path="/v1/models")
MODEL = Endpoint(name="models", path="/v1/models/{model}")
LIMITS = Endpoint(name="limits", path="/v1/limits")
ROOT = Endpoint(name="root", path="/")
OPENAPI = Endpoint(name="openapi", path="/openapi.json")
"""These are answered by the gateway itself; nothing is forwarded."""

UNKNOWN = Endpoint(name="", path="")
"""What the log shows for a request to no endpoint."""

_JSON_ROWS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, MODERATIONS, RERANK, IMAGES, SPEECH)
_FORM_ROWS = (TRANSCRIPTIONS, TRANSLATIONS, IMAGE_EDITS, IMAGE_VARIATIONS)

ENDPOINTS: dict[str, Endpoint] = {row.path: row for row in (*_JSON_ROWS, *_FORM_ROWS)}
