"""What a request used, in tokens, and how to read it from what an upstream reports.

The rules: the last report counts, an explicit zero is zero, what `total_tokens` has above the sum
of its parts is output. Names of the fields: OpenAI's and Anthropic's API references.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.core.endpoints import UsagePath
from gateway.core.upstream_json import JsonMembers, members_of

_MOST = 10**12
"""No answer has as many tokens: a greater count is a defect of its upstream, and is ignored."""


class UsageSource(StrEnum):
    REPORTED = "reported"
    ESTIMATED = "estimated"


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer. `cached_input` is a part of `input`, `reasoning` a part of `output`."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    source: UsageSource = UsageSource.REPORTED

    @property
    def total(self) -> int:
        return self.input + self.output


def read_usage(report: Mapping[str, Any]) -> Usage | None:
    """Usage from a `usage` object of any of the APIs served; None if it names no token count."""
    given_input = _count(report, "prompt_tokens", "input_tokens")
    given_output = _count(report, "completion_tokens", "output_tokens")
    if given_input is None and given_output is None:
        return None
    entered, output = given_input or 0, given_output or 0
    cached = _detail(report, "prompt_tokens_details", "input_tokens_details", name="cached_tokens")
    if "cache_read_input_tokens" in report or "cache_creation_input_tokens" in report:
        # Anthropic counts cached input beside input_tokens, OpenAI within it.
        cached = _count(report, "cache_read_input_tokens") or 0
        entered += cached + (_count(report, "cache_creation_input_tokens") or 0)
    surplus = max(0, (_count(report, "total_tokens") or 0) - entered - output)
    reasoning = _detail(report, "completion_tokens_details", "output_tokens_details", name="reasoning_tokens")
    output += surplus
    return Usage(
        input=entered, output=output, cached_input=min(cached, entered), reasoning=min(max(reasoning, surplus), output)
    )


def find_usage(chunk: JsonMembers, paths: tuple[UsagePath, ...]) -> msgspec.Raw | None:
    """The usage object at the first of the paths that leads to one."""
    for path in paths:
        inner: JsonMembers | None = chunk
        for name in path[:-1]:
            inner = members_of(inner.get(name)) if inner else None
        report = inner.get(path[-1]) if inner else None
        if report is not None and members_of(report):
            return report
    return None


def usage_in_tail(text: bytes) -> msgspec.Raw | None:
    """The last usage object in a piece of JSON text whose beginning is missing."""
    position = text.rfind(b'"usage"')
    while position >= 0:
        begin = text.find(b"{", position)
        if begin >= 0 and text[position + 7 : begin].strip() == b":":
            return _object_at(text, begin)
        position = text.rfind(b'"usage"', 0, position)
    return None


def _object_at(text: bytes, begin: int) -> msgspec.Raw | None:
    # A usage object has objects in it, but none deep: its end is one of the next closing braces.
    end = text.find(b"}", begin)
    for _ in range(16):
        if end < 0:
            return None
        candidate = text[begin : end + 1]
        if members_of(candidate) is not None:
            return msgspec.Raw(candidate)
        end = text.find(b"}", end + 1)
    return None


def _count(report: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = report.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST:
            return max(0, int(value))
    return None


def _detail(report: Mapping[str, Any], *groups: str, name: str) -> int:
    for group in groups:
        details = report.get(group)
        if isinstance(details, dict):
            return _count(details, name) or 0
    return 0
