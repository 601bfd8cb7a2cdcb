"""Ending a stream before its model does: when a quota with `when_spent: stop` is spent in its midst.

The client gets what it would get of an answer that ran into its `max_tokens`: a last chunk with
`finish_reason: "length"`, the usage, and `[DONE]`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.sse import data_of, event_of
from gateway.core.upstream_json import members_of
from gateway.core.usage import Usage, UsageSource


class OutputBudget(msgspec.Struct, frozen=True):
    """Tokens of output that a stream may have, over all its choices, and the estimate of its input."""

    output: int
    input: int
    choices: int = 1

    def usage(self, delivered: int) -> Usage:
        return Usage(input=self.input, output=delivered, source=UsageSource.ESTIMATED)


def carries_token(event: bytes) -> bool:
    """Whether a content event carries text: servers send an event a token, and one without to open a choice."""
    return b'"content":""' not in event and b'"content": ""' not in event


def ending(event: bytes, choices: int, usage: Usage, *, merge: bool) -> bytes:
    """The events that end the stream which `event` belongs to."""
    model: dict[str, Any] = {**(members_of(data_of(event)) or {})}
    told = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total}
    finish = [{"index": index, "delta": {}, "finish_reason": "length"} for index in range(choices)]
    last = {**model, "choices": finish}
    chunks = [{**last, "usage": told}] if merge else [last, {**model, "choices": [], "usage": told}]
    return b"".join(event_of(msgspec.json.encode(chunk)) for chunk in chunks) + event_of(b"[DONE]")
