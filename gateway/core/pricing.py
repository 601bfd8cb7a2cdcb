"""What tokens cost.

Money is whole numbers all the way: prices are pico-dollars a token, so that USD per million tokens with six
decimals is exact, and costs are micro-dollars.
"""

from __future__ import annotations

import msgspec

from gateway.core.usage import Usage


class Price(msgspec.Struct, frozen=True):
    """Pico-dollars a token (USD per million tokens times 10^6)."""

    input: int
    output: int
    cached_input: int

    def cost(self, usage: Usage) -> int:
        """Whole micro-dollars, rounded half up."""
        fresh = usage.input - usage.cached_input
        pico = fresh * self.input + usage.cached_input * self.cached_input + usage.output * self.output
        return (pico + 500_000) // 1_000_000
