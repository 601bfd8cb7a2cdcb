"""What usage costs: exact integers, rounded once.

Prices are whole pico-dollars (10^-12 USD): a token's price in USD per million tokens with six decimals, a
character's in USD per million with six, or a unit's in USD with twelve, is a whole number of them. Amounts
are summed in femto-dollars, since sound is priced by the second and counted by the millisecond, and rounded
half up to whole micro-dollars, once for each request.

One request has one price list: that of the answer's service tier if there is one, and of this the step that
its input reaches. A list may leave prices out. A step or a tier takes what it leaves out from the list that
it belongs to; a tier has its own steps or none. What is still left out falls back: cached input and cache
writes cost what input costs, sound and pictures what text costs, units nothing. A token counts once: as
cached or written, else as a medium, else as text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from operator import mul

import msgspec

from gateway.core.usage import Usage

FEMTO_PER_PICO = 1_000
FEMTO_PER_MICRO = 1_000_000_000
AS_TEXT = -1
"""A price that is left out, and falls back."""


class PriceTerms(msgspec.Struct, frozen=True):
    """A price list as it is written: what it leaves out is not there. `above` has the terms of a request whose
    input is longer than so many tokens, `tiers` those of a service tier."""

    prices: Mapping[str, int]
    above: Mapping[int, Mapping[str, int]] = {}
    tiers: Mapping[str, PriceTerms] = {}


class PriceLine(msgspec.Struct, frozen=True):
    """One line of a request's bill. `price` is pico-dollars for one `unit`, `amount` exact femto-dollars; sound
    is priced by the second, and its quantity is in milliseconds."""

    name: str
    quantity: int
    unit: str
    price: int
    amount: int


class PriceCeiling(msgspec.Struct, frozen=True):
    """The most that a request may cost: `fixed` micro-dollars, and `per_output` pico-dollars for each token of
    output, as a `Charge` has them."""

    fixed: int
    per_output: int


class PriceStep(msgspec.Struct, frozen=True):
    """The list of a request whose input is longer than `tokens`; the whole request has its prices."""

    tokens: int
    price: Price


class Price(msgspec.Struct, frozen=True):
    """One price list, complete, in pico-dollars for a token or a unit. `above` is sorted, longest first."""

    input: int
    output: int
    cached_input: int = AS_TEXT
    cache_write: int = AS_TEXT
    cache_write_1h: int = AS_TEXT
    audio_input: int = AS_TEXT
    image_input: int = AS_TEXT
    audio_output: int = AS_TEXT
    image_output: int = AS_TEXT
    request: int = 0
    image: int = 0
    search: int = 0
    character: int = 0
    second: int = 0
    above: tuple[PriceStep, ...] = ()
    tiers: Mapping[str, Price] = {}

    def __post_init__(self) -> None:
        for names, text in ((_INPUT_PARTS, self.input), (_OUTPUT_PARTS, self.output)):
            for name in names:
                if getattr(self, name) == AS_TEXT:
                    msgspec.structs.force_setattr(self, name, text)

    @classmethod
    def of(cls, terms: PriceTerms) -> Price:
        """The list that these terms make."""
        base = {"input": 0, "output": 0, **terms.prices}
        steps = [PriceStep(tokens, _complete({**base, **given})) for tokens, given in terms.above.items()]
        tiers = {
            name: cls.of(PriceTerms({**base, **tier.prices}, tier.above, tier.tiers))
            for name, tier in terms.tiers.items()
        }
        steps.sort(key=lambda step: -step.tokens)
        return msgspec.structs.replace(_complete(base), above=tuple(steps), tiers=tiers)

    def cost(self, usage: Usage) -> int:
        """Whole micro-dollars, rounded half up."""
        *others, milliseconds = _quantities(usage)
        price = self.list_for(usage)
        rates = msgspec.structs.astuple(price)
        femto: int = sum(map(mul, others, rates)) * FEMTO_PER_PICO + milliseconds * price.second
        return (femto + FEMTO_PER_MICRO // 2) // FEMTO_PER_MICRO

    def lines(self, usage: Usage) -> tuple[PriceLine, ...]:
        """What the cost consists of, without what was not used or has no price."""
        price = self.list_for(usage)
        lines = (_line(name, n, getattr(price, name)) for name, n in zip(PRICE_NAMES, _quantities(usage), strict=True))
        return tuple(line for line in lines if line.amount)

    def list_for(self, usage: Usage) -> Price:
        """The list by which this usage is priced."""
        price = self.tiers.get(usage.service_tier, self) if self.tiers else self
        return next((step.price for step in price.above if usage.input > step.tokens), price)

    def ceiling(
        self, expected: Usage, *, tiers: Collection[str] | None = None, parts: Collection[str] | None = None
    ) -> PriceCeiling:
        """The most that a request may cost with the input and the units of `expected`, whatever its output; with
        less of them it never costs more.

        `tiers` are those that it may be served at, beside none; `parts` the kinds of tokens that it may have
        beside text (`cache_write`, `audio_output` …). None is all.
        """
        lists = list(self._lists(expected.input, tiers))
        entered = max(_dearest(price, "input", _INPUT_PARTS, parts) for price in lists)
        output = max(_dearest(price, "output", _OUTPUT_PARTS, parts) for price in lists)
        quantities = dict(zip(PRICE_NAMES, _quantities(expected), strict=True))
        units = sum(
            max(_line(name, quantities[name], getattr(price, name)).amount for price in lists) for name in _UNITS
        )
        femto = expected.input * entered * FEMTO_PER_PICO + units
        return PriceCeiling(-(-femto // FEMTO_PER_MICRO), output)

    def _lists(self, input_tokens: int, tiers: Collection[str] | None) -> Iterator[Price]:
        served = [price for name, price in self.tiers.items() if tiers is None or name in tiers]
        for price in (self, *served):
            yield price
            yield from (step.price for step in price.above if input_tokens > step.tokens)


PRICE_NAMES = tuple(name for name in Price.__struct_fields__ if name not in {"above", "tiers"})
_INPUT_PARTS = ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input")
_OUTPUT_PARTS = ("audio_output", "image_output")
_UNITS = {"request": "request", "image": "image", "search": "search", "character": "character", "second": "ms"}


def _quantities(usage: Usage) -> tuple[int, ...]:
    """What is charged, in the order of the names of prices: each token once."""
    cached = min(usage.cached_input, usage.input)
    write = min(usage.cache_write, usage.input - cached)
    write_1h = min(usage.cache_write_1h, usage.input - cached - write)
    fresh = usage.input - cached - write - write_1h
    audio = min(usage.audio_input, fresh)
    image = min(usage.image_input, fresh - audio)
    audio_out = min(usage.audio_output, usage.output)
    image_out = min(usage.image_output, usage.output - audio_out)
    return (
        *(fresh - audio - image, usage.output - audio_out - image_out),
        *(cached, write, write_1h, audio, image, audio_out, image_out),
        *(1, usage.images, usage.searches, usage.characters, usage.audio_ms),
    )


def _line(name: str, quantity: int, price: int) -> PriceLine:
    # A millisecond costs in femto-dollars what a second costs in pico-dollars.
    amount = quantity * price * (1 if name == "second" else FEMTO_PER_PICO)
    return PriceLine(name, quantity, _UNITS.get(name, "token"), price, amount)


def _dearest(price: Price, text: str, media: tuple[str, ...], parts: Collection[str] | None) -> int:
    names = [text, *(name for name in media if parts is None or name in parts)]
    prices: list[int] = [getattr(price, name) for name in names]
    return max(prices)


def _complete(prices: Mapping[str, int]) -> Price:
    return msgspec.convert(prices, Price)
