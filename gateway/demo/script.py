"""What the demo upstream does with a request: how much, how fast, with which faults, in which dialect.

The server has one script. A request overrides parts of it for itself with an object `demo` in its JSON body, which any
gateway passes on. The command line has a flag for each field.
"""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MAX = 1_000_000
"""The largest count: a request must not make the demo upstream run out of memory."""

Count = Annotated[int, Meta(ge=0, le=MAX)]
Milliseconds = Annotated[float, Meta(ge=0)]

UsagePolicy = Literal["asked", "always", "never", "every", "last", "null", "early"]
Halt = Literal["", "hang", "close", "reset"]
HaltAt = Literal["on_connect", "before_headers", "after_headers", "between_events", "inside_event", "inside_framing"]
Newline = Literal["lf", "crlf", "cr"]
Pieces = Literal["event", "byte", "random", "whole"]
Framing = Literal["", "chunked", "length", "close"]
Afterwards = Literal["keep", "close", "vanish"]


class DemoScript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field's description is also its help on the command line."""

    chunks: Annotated[Count, Meta(description="Tokens of an answer; each is an event of its own in a stream.")] = 45
    chunk_bytes: Annotated[Count, Meta(description="Pad the text of each token to so many bytes.")] = 0
    prompt_tokens: Annotated[Count | None, Meta(description="Report this instead of the count.")] = None
    completion_tokens: Annotated[Count | None, Meta(description="Report this instead of the count.")] = None
    total_tokens: Annotated[Count | None, Meta(description="Report this instead of the sum.")] = None
    cached_tokens: Annotated[Count, Meta(description="Report so many prompt tokens as cached.")] = 0
    reasoning_tokens: Annotated[Count, Meta(description="Report so many tokens of reasoning, beside the chunks.")] = 0
    no_tools: Annotated[
        bool, Meta(description="Answer in words if a request offers tools, unless it demands a call.")
    ] = False
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

    mishap_share: Annotated[float, Meta(ge=0, le=1, description="Share of the requests that get a mishap.")] = 0
    mishaps: Annotated[
        tuple[dict[str, Any], ...], Meta(description="Changes of the script, one of which is a mishap, as JSON.")
    ] = ()

    def changed(self, changes: dict[str, Any]) -> DemoScript:
        """This script with other values. Raises msgspec.ValidationError for an unknown field or an invalid value."""
        return msgspec.convert({**msgspec.structs.asdict(self), **changes}, DemoScript)

    def rolled(self, dice: random.Random) -> DemoScript:
        """This script for one request: `dice` decide whether a mishap happens to it."""
        if not self.mishaps or dice.random() >= self.mishap_share:
            return self
        return self.changed(dice.choice(self.mishaps))

    def halts_at(self, *places: HaltAt) -> bool:
        return self.halt != "" and self.halt_at in places
