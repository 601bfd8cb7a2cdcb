"""Measures the input of a request for the estimate: its text, and its attachments.

Every member of the body can become tokens, except for those that are known to be free (`FREE_MEMBERS`). Text is weighed
by its characters (text_weight.py). Attachments count as what they are, not as the text that spells them: an image in
base64, an image behind a URL and an uploaded image are each one image. A string is an attachment only at the places
where the APIs have them (`_is_attached`), and base64 only as a whole string: text that looks like base64 is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from gateway.core.json_spans import JsonSpans
from gateway.core.text_weight import is_wide, weight_of_json
from gateway.core.upstream_json import decoded

FREE_MEMBERS = frozenset(
    """
    model temperature top_p top_k min_p typical_p n best_of seed stop stop_sequences logit_bias logprobs top_logprobs
    presence_penalty frequency_penalty repetition_penalty max_tokens max_completion_tokens max_output_tokens min_tokens
    ignore_eos echo parallel_tool_calls max_tool_calls tool_choice function_call reasoning reasoning_effort verbosity
    thinking modalities truncation top_n encoding_format dimensions return_documents
    stream stream_options include background store service_tier user safety_identifier metadata client_metadata
    prompt_cache_key prompt_cache_retention cache_control context_management speed priority
    """.split()  # noqa: SIM905  # As a list it is three times as long.
)
"""Members that no provider makes tokens of."""

IMAGE_TOKENS = 1_000
"""OpenAI's vision guide has 85 to 1,445 tokens an image (https://platform.openai.com/docs/guides/images-vision)."""

REFERENCE_TOKENS = 1_000
"""For what only the upstream has: a file by its id or URL, an earlier answer, a stored prompt."""

_CONTENT_MEMBERS = frozenset(
    [
        "messages",
        "system",
        "input",
        "prompt",
        "query",
        "documents",
        "contents",
        "system_instruction",
    ]
)
"""Members where attachments can be. What a program passes to a tool, or says of one, is text for the model."""

_TOOL_TEXT = frozenset({"arguments", "args", "parameters", "input_schema"})
_REFERENCES = ("previous_response_id", "conversation", "prompt_id")
_BASE64 = re.compile(
    r"(?:data:(?P<media>[\w.+/-]*)(?:;[\w.=+-]*)*;base64,)?"
    r"(?:[A-Za-z0-9+/_-]{60,76}+\r?\n)*+[A-Za-z0-9+/_-]*+={0,2}\s{0,2}\Z",
    re.ASCII,
)
"""In one line, or in lines as MIME and PEM have them: words with blanks between them are text."""
_BASE64_MIN = 256
"""Characters of what is an attachment though it does not say what it is; a shorter one may be a word."""

_SCHEMES = ("http://", "https://", "gs://", "s3://")
_LINKED_NAMES = frozenset({"url", "image_url", "video_url", "audio_url", "document_url", "image"})
_URL_PARENTS = frozenset({"image_url", "video_url", "audio_url", "source", "outputs"})
"""`outputs`: what a code interpreter has drawn (https://platform.openai.com/docs/api-reference/responses/object)."""
_DATA_PARENTS = frozenset({"input_audio", "inline_data", "inlineData"})
_REFERENCE_NAMES = frozenset({"file_id", "file_url", "file_uri", "fileUri"})
_MEDIA_NAMES = frozenset({"image_url", "video_url", "audio_url", "document_url", "input_audio", "file_data", "image"})
_MEDIA_LISTS = frozenset({"images", "video"})
"""Lists of images: Ollama's, and the frames of a video at DashScope."""
_MARK_NAMES = sorted(
    {*_MEDIA_NAMES, *_REFERENCE_NAMES, *_URL_PARENTS, *_DATA_PARENTS, *_MEDIA_LISTS, "image_generation_call"}
)
_MARKS = re.compile(
    '"(?=[{}])(?:{})"'.format("".join(sorted({name[0] for name in _MARK_NAMES})), "|".join(_MARK_NAMES)).encode()
)
"""The names without one of which no attachment is found. The search goes over whole prompts, so it goes from quote to
quote, and looks at the byte behind each before it compares the names."""
_MEDIA_TYPES = ("media_type", "mime_type", "mimeType")
_IMAGE_NAMES = frozenset({"image_url", "image", "result"})
_LOOKED_MAX = 30_000
"""Objects and arrays of a value, and their members and elements, among which attachments are looked for. A conversation
has some thousands; what fits into a body of 32 MiB would keep the event loop for seconds. Braces within texts count."""


class InputSize(msgspec.Struct, frozen=True):
    """`text` in plain characters, `attached` in tokens. `is_wide`: most of the text is of a script as text_weight.py
    says."""

    text: int = 0
    attached: int = 0
    is_wide: bool = False


class _TextPlace(NamedTuple):
    """A value, and the name of the member that it is, or that the array is in which it is an element."""

    value: Any
    name: str


class _Attachment(msgspec.Struct, frozen=True):
    """`length` is what its spelling takes of the text, in characters."""

    length: int
    tokens: int


class WeighedMember(NamedTuple):
    """A member of a body that is not free. `may_refer`: its value can be the name of what the upstream has,
    `may_attach`: attachments can be in it."""

    name: str
    may_refer: bool
    may_attach: bool


def weighed_members(names: Iterable[str]) -> tuple[WeighedMember, ...]:
    """Those of the members with these names that can become tokens."""
    return tuple(
        [
            WeighedMember(name, name in _REFERENCES or name == "prompt", name in _CONTENT_MEMBERS)
            for name in names
            if name not in FREE_MEMBERS
        ]
    )


def input_size(members: JsonSpans, weighed: Iterable[WeighedMember]) -> InputSize:
    """The size of a request's input; `weighed` are those of its members that `weighed_members` gives."""
    text = attached = length = 0
    for name, may_refer, may_attach in weighed:
        value = members.value(name) or b""
        size = len(value)
        if may_refer and (name in _REFERENCES or value.startswith(b"{")):
            attached += REFERENCE_TOKENS if value != b"null" else 0
        text += weight_of_json(value)
        length += size
        # Asked first, since a search for names is slow where there are many.
        if may_attach and (size <= _LOOKED_MAX or _can_be_looked_at(value)) and _MARKS.search(value):
            for each in _attachments(decoded(value), name):
                text -= each.length
                length -= each.length
                attached += each.tokens
    return InputSize(text if text > 0 else 0, attached, text != length and is_wide(text, length))


def _can_be_looked_at(value: bytes) -> bool:
    return value.count(b"{") + value.count(b"[") <= _LOOKED_MAX


def _attachments(value: Any, name: str) -> Iterator[_Attachment]:
    """The attachments in a value, which is the member `name`; the last ones, where there is too much to look at."""
    left = _LOOKED_MAX
    waiting = [_TextPlace(value, name)]
    while waiting and left > 0:
        value, name = waiting.pop()
        if isinstance(value, list):
            looked = value[-left // 2 :]  # The rest is for what is in them.
            left -= len(looked)
            waiting += [_TextPlace(each, name) for each in looked if isinstance(each, dict | list)]
            if name in _MEDIA_LISTS:
                images = (_attachment("image", each, {}) for each in looked if isinstance(each, str))
                yield from (each for each in images if each is not None)
        elif isinstance(value, dict):
            members = list(islice(value.items(), left // 2 + 1))
            left -= len(members)
            for inner, each in members:
                if isinstance(each, str):
                    if _is_attached(inner, value, name) and (found := _attachment(inner, each, value)) is not None:
                        yield found
                elif isinstance(each, dict | list) and not _is_of_a_tool(inner, value):
                    waiting.append(_TextPlace(each, inner))


def _is_of_a_tool(name: str, holder: dict[str, Any]) -> bool:
    return name in _TOOL_TEXT or (name == "input" and str(holder.get("type")).endswith("tool_use"))


def _is_attached(name: str, holder: dict[str, Any], parent: str) -> bool:
    """Whether the string `name` of an object is a place of attachments. `parent` is the object's own name."""
    if name in _MEDIA_NAMES or name in _REFERENCE_NAMES:
        return True
    match name:
        case "url":
            return parent in _URL_PARENTS
        case "data":
            return parent in _DATA_PARENTS or (parent == "source" and holder.get("type") == "base64")
        case "result":
            return holder.get("type") == "image_generation_call"
        case _:
            return False


def _attachment(name: str, text: str, holder: dict[str, Any]) -> _Attachment | None:
    """What an attachment's text names; None where it is no more than text."""
    if name in _REFERENCE_NAMES or (name in _LINKED_NAMES and text.startswith(_SCHEMES)):
        return _Attachment(len(text), REFERENCE_TOKENS)
    found = _BASE64.match(text)
    if found is None or (len(text) < _BASE64_MIN and not found["media"]):
        return None
    media = found["media"] or next((holder[each] for each in _MEDIA_TYPES if isinstance(holder.get(each), str)), "")
    return _Attachment(len(text), _tokens_of(media, len(text) * 3 // 4, name))


def _tokens_of(media: str, size: int, name: str) -> int:
    """Tokens of so many bytes of a medium. Sound: ten tokens a second (OpenAI), at 64 kbit/s. Documents: a page of a
    PDF, which is some 50 KB, is about a thousand tokens as text and image (Anthropic: 1,500 to 3,000 with both)."""
    if media.startswith("text/") or media == "application/json":
        return size // 4
    if media.startswith("image/") or (not media and name in _IMAGE_NAMES):
        return IMAGE_TOKENS
    if media.startswith("audio/") or (not media and name in {"data", "input_audio"}):
        return max(100, size // 800)
    return max(IMAGE_TOKENS, size // 50)
