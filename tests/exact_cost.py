"""What usage costs by the contract's words, computed apart from the gateway: from the written terms, kind by kind of
token, in fractions of a dollar."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from gateway.core.pricing import PriceTerms
from gateway.core.usage import Usage

MILLION = 1_000_000
DOLLAR = 10**12
"""Of a unit, in pico-dollars. A dollar for a million tokens is a million pico-dollars for one."""


def exact_cost(terms: PriceTerms, usage: Usage) -> Fraction:
    """In micro-dollars, before it is rounded. All inferences of an answer are charged by these terms."""
    given = _given(terms, usage)

    def usd(name: str) -> Fraction:
        return Fraction(given.get(name, 0), DOLLAR)

    total = sum([_cost_of_tokens(terms, part) for part in usage.parts or (usage,)], Fraction(0))
    total += usd("request") + usage.images * usd("image") + usage.searches * usd("search")
    total += usage.characters * usd("character") + Fraction(usage.audio_ms, 1000) * usd("second")
    return total * MILLION


def _given(terms: PriceTerms, usage: Usage) -> Mapping[str, int]:
    """The terms that apply to this usage."""
    tier = terms.tiers.get(usage.service_tier)
    given: Mapping[str, int] = {**terms.prices, **tier.prices} if tier else terms.prices
    reached = [tokens for tokens in (tier or terms).above if tokens < usage.input]
    return {**given, **(tier or terms).above[max(reached)]} if reached else given


def _cost_of_tokens(terms: PriceTerms, usage: Usage) -> Fraction:
    given, total = _given(terms, usage), Fraction(0)
    sides = {
        "input": ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input"),
        "output": ("audio_output", "image_output"),
    }
    for text, parts in sides.items():
        left, price = getattr(usage, text), given.get(text, 0)
        for name in parts:
            taken = min(getattr(usage, name), left)
            left -= taken
            total += Fraction(taken * given.get(name, price), DOLLAR)
        total += Fraction(left * price, DOLLAR)
    return total * Fraction(terms.regions.get(usage.region, 1000), 1000)
