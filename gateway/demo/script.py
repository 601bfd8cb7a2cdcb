"""What the demo upstream does with a request: how much, how fast, how wrong, in which dialect.

One script is for the whole server; a request changes it for itself with an object `demo` in its JSON body, which any
gateway passes on. The command line has a flag for each field.

A request and a script together are a planned answer: its tokens and what they cost. Every API writes its answers from
that; the rules of counting are here and nowhere else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

MAX = 1_000_000
"""Of any count: a request must not make the demo upstream run out of memory."""

Count = Annotated[int, Meta(ge=0, le=MAX)]
Milliseconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

UsagePolicy = Literal["asked", "always", "never", "every", "last", "null", "early"]
Halt = Literal["", "hang", "close", "reset"]
HaltAt = Literal["on_connect", "before_headers", "after_headers", "between_events", "inside_event", "inside_framing"]
Newline = Literal["lf", "crlf", "cr"]
Pieces = Literal["event", "byte", "random", "whole"]
Framing = Literal["", "chunked", "length", "close"]
Afterwards = Literal["keep", "close", "vanish"]


BYTES_PER_TOKEN = 4
MAX_CHOICES = 128

TEXT = (
    "Hello! This is the demo upstream: it plays a language model, so that you can watch an answer stream "
    "through the gateway, word by word, without a key or a GPU. Every request is authenticated, limited and "
    "metered on its way. Grüße, 你好 🎉 goodbye!"
)
WORDS = tuple(word if index == 0 else f" {word}" for index, word in enumerate(TEXT.split()))


class DemoScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every field's meaning is its description, which is also its help on the command line."""

    chunks: Annotated[Count, Meta(description="TokenSums of an answer; each is an event of its own in a stream.")] = 45
    chunk_bytes: Annotated[Count, Meta(description="Pad the text of each token to so many bytes.")] = 0
    prompt_tokens: Annotated[Count | None, Meta(description="Report this instead of the count.")] = None
    completion_tokens: Annotated[Count | None, Meta(description="Report this instead of the count.")] = None
    total_tokens: Annotated[Count | None, Meta(description="Report this instead of the sum.")] = None
    cached_tokens: Annotated[Count, Meta(description="Report so many prompt tokens as cached.")] = 0
    reasoning_tokens: Annotated[Count, Meta(description="Report so many tokens of reasoning, beside the chunks.")] = 0
    usage: Annotated[
        UsagePolicy,
        Meta(
            description="Where a stream reports usage: a chunk of its own if asked or always, never, in every chunk, "
            "in the last chunk with choices, null in each chunk before its own, or early (before the last chunk)."
        ),
    ] = "asked"

    headers_delay_ms: Annotated[Milliseconds, Meta(description="Wait before the answer's head.")] = 0
    first_delay_ms: Annotated[Milliseconds, Meta(description="Wait between the head and the first event.")] = 0
    chunk_delay_ms: Annotated[Milliseconds, Meta(description="Wait between two tokens.")] = 0

    status: Annotated[int, Meta(ge=200, le=599, description="Answer with this status.")] = 200
    headers: Annotated[dict[str, str], Meta(description="Headers added to the answer, as JSON.")] = {}
    body: Annotated[
        str | None, Meta(description="The answer's body, verbatim; on the command line @FILE takes it from a file.")
    ] = None

    halt: Annotated[Halt, Meta(description="Stop before the end: hang, close, or reset the connection.")] = ""
    halt_at: Annotated[HaltAt, Meta(description="Where to stop.")] = "between_events"
    halt_after: Annotated[Count | None, Meta(description="Events before the stop; default: half of them.")] = None
    error_after: Annotated[Count | None, Meta(description="Events before an error event inside a 200 stream.")] = None

    newline: Annotated[Newline, Meta(description="How lines of a stream end.")] = "lf"
    bom: Annotated[bool, Meta(description="Begin a stream with a byte order mark.")] = False
    tight: Annotated[bool, Meta(description="Write no space after `data:`.")] = False
    comments: Annotated[bool, Meta(description="Write a comment before each event.")] = False
    multiline: Annotated[bool, Meta(description="Spread each event over several data lines.")] = False
    spaced: Annotated[bool, Meta(description='Write JSON with ", " and ": ", not-ASCII characters escaped.')] = False
    no_done: Annotated[bool, Meta(description="End a stream without [DONE].")] = False
    after_done: Annotated[str, Meta(description="Bytes of a stream after [DONE].")] = ""

    pieces: Annotated[
        Pieces, Meta(description="Cut the body by event, at each byte, inside each event at random, or not at all.")
    ] = "event"
    cuts: Annotated[tuple[Count, ...], Meta(description="Cut the body at these offsets instead, as JSON.")] = ()
    framing: Annotated[Framing, Meta(description="Default: chunked streams, whole answers with a length.")] = ""
    gzip: Annotated[bool, Meta(description="Compress the answer, whatever the request accepts.")] = False
    trailers: Annotated[bool, Meta(description="Send trailers after a chunked body.")] = False
    informational: Annotated[tuple[int, ...], Meta(description="1xx answers sent first, as JSON.")] = ()
    early_answer: Annotated[bool, Meta(description="Answer before the request's body has been read.")] = False
    afterwards: Annotated[
        Afterwards, Meta(description="Keep the connection after an answer, close it, or close it without saying so.")
    ] = "keep"

    mishap_share: Annotated[Share, Meta(description="Share of the requests that get a mishap.")] = 0
    mishaps: Annotated[
        tuple[dict[str, Any], ...], Meta(description="Changes of the script, one of which is a mishap, as JSON.")
    ] = ()

    def changed(self, changes: dict[str, Any]) -> DemoScript:
        """This script with other values. Raises msgspec.ValidationError for what is no field or no value of it."""
        return msgspec.convert({**msgspec.structs.asdict(self), **changes}, DemoScript)

    def rolled(self, dice: random.Random) -> DemoScript:
        """This script as one request meets it: perhaps with a mishap."""
        if not self.mishaps or dice.random() >= self.mishap_share:
            return self
        return self.changed(dice.choice(self.mishaps))

    def halts_at(self, *places: HaltAt) -> bool:
        return self.halt != "" and self.halt_at in places


class ScriptedRequest(msgspec.Struct):
    """What the demo upstream reads of a request, whichever API it belongs to."""

    model: str = ""
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    system: Any = None
    instructions: Any = None
    messages: Any = None
    prompt: Any = None
    input: Any = None
    query: Any = None
    documents: list[Any] | None = None
    dimensions: int | None = None
    encoding_format: str | None = None
    demo: dict[str, Any] | None = None


class TokenCounts(NamedTuple):
    """What an answer costs. `total` is their sum unless the script says otherwise."""

    prompt: int
    completion: int
    total: int
    cached: int
    reasoning: int

    @property
    def output(self) -> int:
        """What a bill shows: also what `total` has above the sum of its parts."""
        return max(self.completion, self.total - self.prompt)


class PlannedAnswer(NamedTuple):
    """`tokens` are the texts of one choice, `tool` the function that they are arguments of, if any."""

    number: int
    created: int
    request: ScriptedRequest
    script: DemoScript
    tokens: tuple[str, ...]
    capped: bool
    tool: str
    prompt_tokens: int

    @property
    def choices(self) -> int:
        return max(1, min(MAX_CHOICES, self.request.n or 1))

    @property
    def asks_usage(self) -> bool:
        options = self.request.stream_options
        return options is not None and options.get("include_usage") is True

    def counts(self, delivered: int | None = None) -> TokenCounts:
        """The usage to report once so many tokens are delivered; None: all of them."""
        script = self.script
        completion = len(self.tokens) * self.choices if delivered is None else delivered
        completion += script.reasoning_tokens
        if script.completion_tokens is not None:
            completion = script.completion_tokens
        total = self.prompt_tokens + completion if script.total_tokens is None else script.total_tokens
        return TokenCounts(self.prompt_tokens, completion, total, script.cached_tokens, script.reasoning_tokens)


def plan_answer(
    number: int, created: int, request: ScriptedRequest, script: DemoScript, speaks: bool = True
) -> PlannedAnswer:
    """`speaks` False: the answer has no tokens of its own."""
    if not speaks:
        script = msgspec.structs.replace(script, chunks=0)
    caps = [
        cap for cap in (request.max_tokens, request.max_completion_tokens, request.max_output_tokens) if cap is not None
    ]
    cap = min(caps, default=script.chunks)
    tool = called_tool(request)
    prompt = count_prompt(request) if script.prompt_tokens is None else script.prompt_tokens
    tokens = texts(min(cap, script.chunks), script.chunk_bytes, tool != "")
    return PlannedAnswer(number, created, request, script, tokens, cap < script.chunks, tool, prompt)


def count_prompt(request: ScriptedRequest) -> int:
    """One token for every four bytes of the text that the model reads, a broken four counts; at least one."""
    read = (
        request.system,
        request.instructions,
        request.messages,
        request.prompt,
        request.input,
        request.query,
        request.documents,
    )
    size = sum(len(text.encode()) for part in read for text in _strings(part))
    return max(1, -(-size // BYTES_PER_TOKEN))


def _strings(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for item in part:
            yield from _strings(item)
    elif isinstance(part, dict):
        for name in ("text", "content", "input"):
            yield from _strings(part.get(name))


def texts(count: int, chunk_bytes: int, arguments: bool) -> tuple[str, ...]:
    """The texts of so many tokens: words, or the pieces of a JSON object if they are a tool's arguments."""
    words = WORDS
    if chunk_bytes:
        words = tuple(word + "." * (chunk_bytes - len(word.encode())) for word in words)
    words = words[:count] if count <= len(words) else tuple(islice(cycle(words), count))
    if arguments and count > 1:
        words = ('{"text": "', *words[: count - 2], '"}')
    return words


def called_tool(request: ScriptedRequest) -> str:
    """The name of the first tool offered, unless the request forbids a call."""
    if not request.tools or request.tool_choice == "none":
        return ""
    tool = request.tools[0] if isinstance(request.tools[0], dict) else {}
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    return str(named.get("name") or "tool")


class DemoEvent(msgspec.Struct, frozen=True, gc=False):
    """`tokens` of output become the client's with it; `reports` says that it carries usage; `name` is its type."""

    payload: dict[str, Any]
    tokens: int = 0
    reports: bool = False
    name: str = ""
