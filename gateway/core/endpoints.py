"""The endpoints served, as one table: a row says how to read a request, where usage stands in its
answers, and which field caps its output. There is no handler per endpoint; there is a row.

Fields and their ranges: OpenAI's API reference, as narrowed by the field table in docs/api.md.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""Tokens, as far as model servers count: in 32 bits."""

UsagePath = tuple[str, ...]


class Fields(Protocol):
    """What every endpoint's request says about itself, whatever it calls it."""

    model: str

    @property
    def streams(self) -> bool: ...
    @property
    def asks_usage(self) -> bool:
        """Whether the client wants the usage chunk of a stream as the upstream sends it."""
        ...

    @property
    def output_cap(self) -> int | None:
        """Tokens that one choice may produce, as the client asked; None if it did not say. Of two caps
        the larger, since nobody knows which one the upstream obeys."""
        ...

    @property
    def choices(self) -> int: ...
    @property
    def end_user(self) -> str: ...


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatFields(msgspec.Struct):
    """The fields of a chat completion that the gateway reads; the others are passed on unread."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def asks_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def output_cap(self) -> int | None:
        caps = [cap for cap in (self.max_completion_tokens, self.max_tokens) if cap is not None]
        return max(caps, default=None)

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def end_user(self) -> str:
        return self.user or ""


class Endpoint(msgspec.Struct, frozen=True):
    """One row. `usage_at` lists where a usage object can stand, the first that is there counts."""

    name: str
    path: str
    upstream_path: str = ""
    fields: type[Fields] | None = None
    input_members: tuple[str, ...] = ()
    """Members of the body whose bytes are the model's input, for the estimate."""
    cap_members: tuple[str, ...] = ()
    """Members that cap the output; the first is set where a request has none of them."""
    usage_at: tuple[UsagePath, ...] = (("usage",), ("x_groq", "usage"))
    asks_with_stream_options: bool = True
    """Whether usage of a stream is asked for with `stream_options`, and merged for who did not ask."""


CHAT = Endpoint(
    name="chat.completions",
    path="/v1/chat/completions",
    upstream_path="/chat/completions",
    fields=ChatFields,
    input_members=("messages", "tools", "functions", "response_format"),
    cap_members=("max_completion_tokens", "max_tokens"),
)

MODELS = Endpoint(name="models", path="/v1/models")
LIMITS = Endpoint(name="limits", path="/v1/limits")
"""These are answered by the gateway itself; nothing is forwarded."""

UNKNOWN = Endpoint(name="", path="")
"""What stands in the log for a request to no endpoint."""

ENDPOINTS: dict[str, Endpoint] = {row.path: row for row in (CHAT,)}
