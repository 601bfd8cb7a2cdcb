"""The endpoints served, as one table: a row says how to read a request, where usage is in its
answers, which field caps its output, and how an error looks. There is no handler per endpoint;
there is a row.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from gateway.core import request_fields
from gateway.core.request_fields import Fields

UsagePath = tuple[str, ...]

_OPENAI_USAGE: tuple[UsagePath, ...] = (("usage",), ("x_groq", "usage"))


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
    """Members of the body whose bytes are the model's input, for the estimate."""
    cap_members: tuple[str, ...] = ()
    """Members that cap the output, the first of which is set where a request has none of them. An endpoint
    without has no output to be reserved."""
    least_output: int = 1
    """The smallest cap that the API takes (https://platform.openai.com/docs/api-reference/responses/create)."""
    estimated: bool = False
    """Whether usage that is not reported is estimated; elsewhere only reported tokens count."""
    usage_at: tuple[UsagePath, ...] = _OPENAI_USAGE
    """Where a usage object can be; the first that is there counts."""
    usage_in_parts: bool = False
    """Whether a stream's later reports complete the earlier ones, rather than replace them."""
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
    usage_at=(("response", "usage"), ("usage",)),
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
    usage_at=(("usage",), ("message", "usage")),
    usage_in_parts=True,
    dialect=Dialect.ANTHROPIC,
    stream_format=StreamFormat.MESSAGES,
)
EMBEDDINGS = Endpoint("embeddings", "/v1/embeddings", request_fields.EmbeddingFields, ("input",), estimated=True)
MODERATIONS = Endpoint("moderations", "/v1/moderations", request_fields.ModerationFields, ("input",))
RERANK = Endpoint("rerank", "/v1/rerank", request_fields.RerankFields, ("query", "documents"))
IMAGES = Endpoint("images.generations", "/v1/images/generations", request_fields.ImageFields, ("prompt",))
SPEECH = Endpoint("audio.speech", "/v1/audio/speech", request_fields.SpeechFields, ("input",))
TRANSCRIPTIONS = Endpoint(
    "audio.transcriptions", "/v1/audio/transcriptions", request_fields.FormFields, takes_form=True
)
TRANSLATIONS = Endpoint("audio.translations", "/v1/audio/translations", request_fields.FormFields, takes_form=True)
IMAGE_EDITS = Endpoint("images.edits", "/v1/images/edits", request_fields.FormFields, takes_form=True)
IMAGE_VARIATIONS = Endpoint("images.variations", "/v1/images/variations", request_fields.FormFields, takes_form=True)

MODELS = Endpoint(name="models", path="/v1/models")
MODEL = Endpoint(name="models", path="/v1/models/{model}")
LIMITS = Endpoint(name="limits", path="/v1/limits")
ROOT = Endpoint(name="root", path="/")
"""These are answered by the gateway itself; nothing is forwarded."""

UNKNOWN = Endpoint(name="", path="")
"""What the log shows for a request to no endpoint."""

_JSON_ROWS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS, MODERATIONS, RERANK, IMAGES, SPEECH)
_FORM_ROWS = (TRANSCRIPTIONS, TRANSLATIONS, IMAGE_EDITS, IMAGE_VARIATIONS)

ENDPOINTS: dict[str, Endpoint] = {row.path: row for row in (*_JSON_ROWS, *_FORM_ROWS)}
