"""Where each API reports usage, as data for usage_reading.py. usage_fields.py has the names within such a report.

A `UsageTable` describes one API of the gateway's endpoints: the places of a usage object in an answer
or in an event, the events that may carry it, and what is counted from the answer itself. A place is
believed only at its path and in its events: the echo of a request in `response.created`, or text in a
message, is never usage. `source` is the page that documents a place.
"""

from __future__ import annotations

import msgspec

from gateway.core.json_object import Path
from gateway.core.usage_fields import (
    ANTHROPIC_WORDS,
    AUDIO_WORDS,
    COHERE,
    COHERE_WORDS,
    GEMINI,
    GEMINI_EMBEDDINGS,
    GEMINI_WORDS,
    MISTRAL,
    MOONSHOT,
    OLLAMA,
    OLLAMA_WORDS,
    OPENAI_AUDIO,
    OPENAI_CHAT,
    OPENAI_IMAGES,
    OPENAI_RESPONSES,
    OPENAI_WORDS,
    Vocabulary,
)

OPENAI_RESPONSES_STREAM = "https://platform.openai.com/docs/api-reference/responses-streaming"
OPENAI_TOOL_USAGE = "https://github.com/openai/openai-python/blob/main/src/openai/types/responses/response.py"
OPENAI_EMBEDDINGS = "https://platform.openai.com/docs/api-reference/embeddings"
ANTHROPIC_STREAM = "https://docs.claude.com/en/docs/build-with-claude/streaming"
ANTHROPIC_SEARCH = "https://docs.claude.com/en/docs/agents-and-tools/tool-use/web-search-tool"
GEMINI_GROUNDING = "https://ai.google.dev/gemini-api/docs/google-search"
GROQ = "https://console.groq.com/docs/api-reference"
JINA = "https://api.jina.ai/redoc"
COHERE_CHAT = "https://docs.cohere.com/reference/chat"
SILICONFLOW = "https://docs.siliconflow.cn/en/api-reference/rerank/create-rerank"


class UsagePlace(msgspec.Struct, frozen=True):
    """One place of a usage object. `events` are the values of `type` with which it is believed: "" is an
    answer, or an event, without one; empty is any. `final` says that the output it tells is the last."""

    path: Path
    source: str
    words: Vocabulary = OPENAI_WORDS
    events: frozenset[str] = frozenset()
    final: bool = True
    needs_output: bool = False
    """Whether a report is final only where it has output: the first of a stream may have a total, which is that of
    the input."""
    of_choice: bool = False
    """Whether each choice has its own: the same input, and the output of that choice alone."""
    member: str = ""
    """The only name of the path; empty where it has none or several. Made of the path."""

    def __post_init__(self) -> None:
        if len(self.path) == 1:
            msgspec.structs.force_setattr(self, "member", self.path[0])


class CountedItems(msgspec.Struct, frozen=True):
    """Units counted from the answer itself: elements of an array, of a `kind` if one is given. Of a call with
    an `action` that has a type only those with one of `actions` count. With an `event` the path is that of the single
    element that such an event brings: these count until the report comes that ends the stream. Of `texts` those count
    that differ, and an empty one is none."""

    count: str
    path: Path
    source: str
    kind: str = ""
    actions: tuple[str, ...] = ()
    event: str = ""
    texts: bool = False


class ReportedUnits(msgspec.Struct, frozen=True):
    """Units whose number the answer reports outside of its usage object, where it has such an object. The number
    replaces what `CountedItems` have counted; so does a zero."""

    count: str
    path: Path
    source: str


class UsageTable(msgspec.Struct, frozen=True):
    """One API. The first of its places that has a believable count is read."""

    name: str
    places: tuple[UsagePlace, ...] = ()
    has_output: bool = True
    """Whether answers have output tokens; where not, `total_tokens` is input."""
    output_medium: str = ""
    """What output is made of where the usage object does not say: audio or image."""
    tier_paths: tuple[Path, ...] = (("service_tier",),)
    items: tuple[CountedItems, ...] = ()
    reported_units: tuple[ReportedUnits, ...] = ()
    image_events: frozenset[str] = frozenset()
    """Events each of which carries one finished image."""
    id_paths: tuple[Path, ...] = ()
    """Where an answer names the object that the upstream keeps of it."""
    duration_path: Path = ()
    """The sound's length in seconds, which is billed where no usage is reported: whole seconds, begun ones too."""
    believed: dict[str, tuple[UsagePlace, ...]] = {}
    """The places that are believed, by the event; `believed_anywhere` in an event that no place names, and
    `believed_in_answer` in an answer whose type no place names."""
    believed_anywhere: tuple[UsagePlace, ...] = ()
    believed_in_answer: tuple[UsagePlace, ...] = ()
    counts_units: bool = False
    """Whether there is anything to count in the answer itself. Made of the others, as are the three above."""
    unit_events: frozenset[str] = frozenset()
    """The events that bring one counted element each. Made of `items`."""

    def __post_init__(self) -> None:
        named = {event for place in self.places for event in place.events}
        believed = {
            event: tuple([place for place in self.places if not place.events or event in place.events])
            for event in named
        }
        anywhere = tuple([place for place in self.places if not place.events])
        made = {
            "believed": believed,
            "believed_anywhere": anywhere,
            "believed_in_answer": believed.get("", anywhere),
            "counts_units": bool(self.image_events or self.duration_path or self.reported_units)
            or any(not each.event for each in self.items),
            "unit_events": frozenset([each.event for each in self.items if each.event]),
        }
        for name, value in made.items():
            msgspec.structs.force_setattr(self, name, value)


def _events(*names: str) -> frozenset[str]:
    return frozenset(names)


_USAGE = UsagePlace(("usage",), OPENAI_CHAT)
_COHERE_UNITS = UsagePlace(("meta", "billed_units"), COHERE, COHERE_WORDS)

CHAT_USAGE = UsageTable(
    "chat completions",
    (
        _USAGE,
        UsagePlace(("x_groq", "usage"), GROQ),
        UsagePlace(("choices", "*", "usage"), MOONSHOT, of_choice=True),
        UsagePlace(("usage", "billed_units"), COHERE_CHAT, COHERE_WORDS),
        UsagePlace((), OLLAMA, OLLAMA_WORDS),
    ),
)
RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done")
"""The events one of which ends a stream of the Responses API. The last is OpenRouter's
(https://openrouter.ai/docs/api/reference/responses/basic-usage), and that of gateways which translate OpenAI's
Realtime API."""

_ENDED = frozenset(RESPONSE_ENDS)
RESPONSES_USAGE = UsageTable(
    "responses",
    (
        UsagePlace(("response", "usage"), OPENAI_RESPONSES_STREAM, events=_ENDED),
        UsagePlace(("usage",), OPENAI_RESPONSES, events=_ENDED | {""}),
    ),
    tier_paths=(("response", "service_tier"), ("service_tier",)),
    id_paths=(("response", "id"), ("id",)),
    items=tuple(
        CountedItems(count, path, OPENAI_RESPONSES, kind, actions, event)
        for path, event in ((("response", "output"), ""), (("output",), ""), (("item",), "response.output_item.done"))
        for count, kind, actions in (
            ("images", "image_generation_call", ()),
            ("searches", "web_search_call", ("search",)),
        )
    ),
    # What is billed: a call can be several searches, or none.
    reported_units=tuple(
        ReportedUnits("searches", (*path, "tool_usage", "web_search", "num_requests"), OPENAI_TOOL_USAGE)
        for path in (("response",), ())
    ),
)
MESSAGES_USAGE = UsageTable(
    "messages",
    (
        UsagePlace(
            ("usage",),
            ANTHROPIC_STREAM,
            ANTHROPIC_WORDS,
            events=_events("message_delta", "message_stop", "message", ""),
        ),
        UsagePlace(
            ("message", "usage"), ANTHROPIC_STREAM, ANTHROPIC_WORDS, events=_events("message_start"), final=False
        ),
    ),
    items=(
        CountedItems(
            "searches", ("content_block",), ANTHROPIC_SEARCH, "web_search_tool_result", event="content_block_start"
        ),
    ),
)
EMBEDDINGS_USAGE = UsageTable(
    "embeddings",
    (
        UsagePlace(("usage",), OPENAI_EMBEDDINGS),
        _COHERE_UNITS,
        UsagePlace((), OLLAMA, OLLAMA_WORDS),
    ),
    has_output=False,
)
RERANK_USAGE = UsageTable(
    "rerank",
    (
        UsagePlace(("usage",), JINA),
        _COHERE_UNITS,
        UsagePlace(("meta", "tokens"), SILICONFLOW, COHERE_WORDS),
        UsagePlace(("tokens",), SILICONFLOW, COHERE_WORDS),
    ),
    has_output=False,
)
MODERATIONS_USAGE = UsageTable("moderations", (UsagePlace(("usage",), MISTRAL),), has_output=False)
_IMAGES_MADE = _events("image_generation.completed", "image_edit.completed")
IMAGES_USAGE = UsageTable(
    "images",
    (UsagePlace(("usage",), OPENAI_IMAGES, events=_IMAGES_MADE | {""}),),
    output_medium="image",
    items=(CountedItems("images", ("data",), OPENAI_IMAGES), CountedItems("images", ("images",), SILICONFLOW)),
    image_events=_IMAGES_MADE,
)
TRANSCRIPTIONS_USAGE = UsageTable(
    "transcriptions",
    (
        UsagePlace(
            ("usage",), OPENAI_AUDIO, AUDIO_WORDS, events=_events("transcript.text.done", "transcription.done", "")
        ),
    ),
    duration_path=("duration",),
)
SPEECH_USAGE = UsageTable(
    "speech",
    (UsagePlace(("usage",), OPENAI_AUDIO, AUDIO_WORDS, events=_events("speech.audio.done", "")),),
    output_medium="audio",
)
GEMINI_USAGE = UsageTable(
    "generateContent",
    tuple(UsagePlace((name,), GEMINI, GEMINI_WORDS, needs_output=True) for name in ("usageMetadata", "usage_metadata")),
    tier_paths=(("serviceTier",),),
    items=(
        CountedItems(
            "searches", ("candidates", "*", "groundingMetadata", "webSearchQueries"), GEMINI_GROUNDING, texts=True
        ),
    ),
)
GEMINI_EMBEDDINGS_USAGE = UsageTable(
    "embedContent",
    tuple(UsagePlace((name,), GEMINI_EMBEDDINGS, GEMINI_WORDS) for name in ("usageMetadata", "usage_metadata")),
    has_output=False,
)
NO_USAGE = UsageTable("counting")
"""Endpoints that cost nothing: what they count is their result."""

CONVERSATIONS_USAGE = UsageTable("conversations", id_paths=(("id",),))
