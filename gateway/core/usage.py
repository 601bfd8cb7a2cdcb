"""What a request used, in tokens and money, and how to read it from what an upstream reports.

The rules: the last report counts, an explicit zero is zero, what `total_tokens` has above the sum
of its parts is output. Names of the fields: OpenAI's and Anthropic's API references.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

_MOST = 10**12
"""No answer has as many tokens: a greater count is a defect of who reports it, and is taken for none."""


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


class Price(msgspec.Struct, frozen=True):
    """What tokens cost, in pico-dollars a token (USD per million tokens times 10^6)."""

    input: int
    output: int
    cached_input: int

    def cost(self, usage: Usage) -> int:
        """Whole micro-dollars, rounded half up."""
        fresh = usage.input - usage.cached_input
        pico = fresh * self.input + usage.cached_input * self.cached_input + usage.output * self.output
        return (pico + 500_000) // 1_000_000


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
