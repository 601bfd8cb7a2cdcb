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
    """In micro-dollars, before it is rounded."""
    tier = terms.tiers.get(usage.service_tier)
    given: Mapping[str, int] = {**terms.prices, **tier.prices} if tier else terms.prices
    reached = [tokens for tokens in (tier or terms).above if tokens < usage.input]
    if reached:
        given = {**given, **(tier or terms).above[max(reached)]}

    def usd(name: str, *fallbacks: str) -> Fraction:
        return Fraction(next((given[each] for each in (name, *fallbacks) if each in given), 0), DOLLAR)

    left = usage.input
    total = Fraction(0)
    for name in ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input"):
        taken = min(getattr(usage, name), left)
        left -= taken
        total += taken * usd(name, "input")
    total += left * usd("input")
    left = usage.output
    for name in ("audio_output", "image_output"):
        taken = min(getattr(usage, name), left)
        left -= taken
        total += taken * usd(name, "output")
    total += left * usd("output")
    total += usd("request") + usage.images * usd("image") + usage.searches * usd("search")
    total += usage.characters * usd("character") + Fraction(usage.audio_ms, 1000) * usd("second")
    return total * MILLION
