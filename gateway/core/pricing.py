"""Computes what usage costs: exact integers, rounded once.

Prices are whole pico-dollars (10^-12 USD): a token's price in USD per million tokens with six decimals, a
character's in USD per million with six, or a unit's in USD with twelve, is a whole number of them. Amounts
are summed in femto-dollars, since sound is priced by the second and counted by the millisecond. The sum is rounded
half up to whole micro-dollars, once for each request.

A request has one price list: that of the answer's service tier if there is one, and in it the step that its input
reaches. A step or a tier takes a price that it leaves out from the list that it belongs to; a tier has its own steps or
none. What is then still missing falls back: cached input and cache writes cost what input costs, sound and pictures
what text costs, units nothing. A token counts once: as cached or written, else as a medium, else as text. The region
that the answer names multiplies the price of each token, whichever list it is from.

Of an answer that took several inferences each is priced by itself, and the sum is rounded: by the length of its own
input, and by the price of its own model where the upstream serves that at a known price.

What a request will cost is known only when it has been answered: by which route, at which tier, how much of its input
was written to a cache. So admission reserves by `ceiling`, the highest rate of all that can happen: a request that
stays within its estimated input, its reserved output and the units that it asks for never costs more. Searches of a
model and seconds of sound cannot be foreseen, and are not reserved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from operator import mul
from types import MappingProxyType

import msgspec

from gateway.core.usage import Usage

FEMTO_PER_PICO = 1_000
WHOLE_FACTOR = FEMTO_PER_PICO
"""A region's factor that changes nothing. Factors are whole thousandths, so that a token's price times its factor is a
whole number of femto-dollars."""
FEMTO_PER_MICRO = 1_000_000_000
PICO_PER_MICRO = 1_000_000
PICO_PER_USD = 10**12
AS_TEXT = -1
"""A price that is left out, and falls back."""
NO_PRICES: Mapping[str, Price] = MappingProxyType({})


class PriceTerms(msgspec.Struct, frozen=True):
    """A price list as it is written: what it leaves out is not there. `above` has the terms of a request whose
    input is longer than so many tokens, `tiers` those of a service tier."""

    prices: Mapping[str, int]
    above: Mapping[int, Mapping[str, int]] = {}
    tiers: Mapping[str, PriceTerms] = {}
    regions: Mapping[str, int] = {}


class PriceLine(msgspec.Struct, frozen=True):
    """One line of a request's bill. `price` is pico-dollars for one `unit`, `amount` exact femto-dollars; sound
    is priced by the second, and its quantity is in milliseconds. `factor` is that of the region, in thousandths.
    `model` is empty for the model that was asked for."""

    name: str
    quantity: int
    unit: str
    price: int
    amount: int
    factor: int = WHOLE_FACTOR
    model: str = ""


class CeilingRates(msgspec.Struct, frozen=True, cache_hash=True):
    """The most that requests with more than `above` tokens of input may cost, in pico-dollars for each unit."""

    above: int
    input: int
    output: int
    request: int
    image: int
    search: int
    character: int

    def without_tokens(self, units: Usage) -> int:
        """Whole micro-dollars, rounded up, for a request and the units of `units`."""
        pieces = units.images * self.image + units.searches * self.search + units.characters * self.character
        return -(-(self.request + pieces) // PICO_PER_MICRO)


class PriceStep(msgspec.Struct, frozen=True):
    """The list of a request whose input is longer than `tokens`; the whole request has its prices."""

    tokens: int
    price: Price


class Price(msgspec.Struct, frozen=True):
    """One price list, complete, in pico-dollars for a token or a unit. `above` is sorted, longest first. `regions` has
    factors in thousandths."""

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
    regions: Mapping[str, int] = {}

    def __post_init__(self) -> None:
        for names, text in ((_INPUT_PARTS, self.input), (_OUTPUT_PARTS, self.output)):
            for name in names:
                if getattr(self, name) == AS_TEXT:
                    msgspec.structs.force_setattr(self, name, text)

    def __hash__(self) -> int:
        # A mapping has no hash, and equal lists have equal prices for text.
        return hash((self.input, self.output))

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
        return msgspec.structs.replace(_complete(base), above=tuple(steps), tiers=tiers, regions=terms.regions)

    def cost(self, usage: Usage, others: Mapping[str, Price] = NO_PRICES) -> int:
        """Whole micro-dollars, rounded half up. `others` are the prices of the upstream's other models."""
        if usage.parts or (self.regions and usage.region):
            return _rounded(sum([line.amount for line in self.lines(usage, others)]))
        price = self.list_for(usage) if self.tiers or self.above else self
        if _is_usual(usage):
            text, cached = usage.input, usage.cached_input
            if cached:
                cached = min(cached, text)
            # `_rounded`, where the parts of a pico-dollar are none.
            pico = (text - cached) * price.input + usage.output * price.output + cached * price.cached_input
            return (pico + price.request + PICO_PER_MICRO // 2) // PICO_PER_MICRO
        # The rates are the first fields of a price, in the order of the quantities. The last is by the second.
        rates, quantities = msgspec.structs.astuple(price), _quantities(usage)
        return _rounded(sum(map(mul, quantities[:-1], rates)) * FEMTO_PER_PICO + quantities[-1] * price.second)

    def lines(self, usage: Usage, others: Mapping[str, Price] = NO_PRICES) -> tuple[PriceLine, ...]:
        """What the cost consists of, without what was not used or has no price."""
        lines: list[PriceLine] = []
        for part in usage.parts or (usage,):
            lines += others.get(part.model, self)._token_lines(part)
        price, units = self.list_for(usage), _quantities(usage)[_TOKEN_KINDS:]
        lines += [_line(name, n, getattr(price, name)) for name, n in zip(UNIT_NAMES, units, strict=True)]
        return tuple([line for line in lines if line.amount])

    def _token_lines(self, part: Usage) -> Iterator[PriceLine]:
        rates, factor = self.list_for(part), self.regions.get(part.region, WHOLE_FACTOR)
        for name, count in zip(_TOKEN_NAMES, _quantities(part), strict=False):
            rate = getattr(rates, name)
            yield PriceLine(name, count, "token", rate, count * rate * factor, factor, part.model)

    def charges(self, usage: Usage) -> bool:
        """Whether anything of this usage has a price, besides that there was a request."""
        return any(line.name != "request" for line in self.lines(usage))

    def list_for(self, usage: Usage) -> Price:
        """The list by which this usage is priced."""
        price = self.tiers.get(usage.service_tier, self) if self.tiers else self
        return next((step.price for step in price.above if usage.input > step.tokens), price)


def ceiling(prices: Collection[Price], asked_tier: str) -> tuple[CeilingRates, ...]:
    """The highest of these prices for a request that asks for this service tier, or for none: the rates of the longest
    input first, those of any last."""
    lists = list(prices)
    lists += [tier for price in prices for name, tier in price.tiers.items() if _may_serve(name, asked_tier)]
    steps = [step for price in lists for step in price.above]
    factor = max([WHOLE_FACTOR, *(each for price in prices for each in price.regions.values())])
    return tuple(
        _dearest(above, [*lists, *(step.price for step in steps if step.tokens <= above)], factor)
        for above in sorted({-1, *(step.tokens for step in steps)}, reverse=True)
    )


def rates_at(steps: tuple[CeilingRates, ...], input_tokens: int) -> CeilingRates:
    """The rates of a ceiling for a request with so much input."""
    for rates in steps:
        if input_tokens > rates.above:
            return rates
    return steps[-1]


def _may_serve(tier: str, asked: str) -> bool:
    """Whether a request that asks for one tier may be answered at another. What asks for none is served at the tier
    that its project has at the provider, except for the fast mode, which must be asked for."""
    if asked in _ANY_TIER:
        return tier != FAST
    return tier == asked or tier in _ORDINARY_TIERS


def _dearest(above: int, lists: Collection[Price], factor: int) -> CeilingRates:
    def most(*names: str) -> int:
        rates: list[int] = [getattr(price, name) for price in lists for name in names]
        return max(rates, default=0)

    entered = -(-most("input", *_INPUT_PARTS) * factor // WHOLE_FACTOR)
    output = -(-most("output", *_OUTPUT_PARTS) * factor // WHOLE_FACTOR)
    units = (most("request"), most("image"), most("search"), most("character"))
    return CeilingRates(above, entered, output, *units)


def _rounded(femto: int) -> int:
    """Whole micro-dollars, half up."""
    return (femto + FEMTO_PER_MICRO // 2) // FEMTO_PER_MICRO


FAST = "fast"
"""Anthropic's fast mode, which is asked for with `speed` and priced like a tier."""

DEARER_TIERS = frozenset({"priority", FAST})
"""Tiers that cost more than the default one wherever they are sold. Others cost less, or the same."""

SERVICE_TIERS = DEARER_TIERS | {"default", "standard", "on_demand", "flex", "batch", "performance", "scale", "reserved"}
"""What the APIs of OpenAI, Anthropic, Google, Groq and Amazon name in their answers."""

_ANY_TIER = frozenset({"", "auto"})
_ORDINARY_TIERS = frozenset({"default", "standard", "on_demand"})
PRICE_NAMES = tuple(name for name in Price.__struct_fields__ if name not in {"above", "tiers", "regions"})
_INPUT_PARTS = ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input")
_OUTPUT_PARTS = ("audio_output", "image_output")
_UNITS = {"request": "request", "image": "image", "search": "search", "character": "character", "second": "ms"}
UNIT_NAMES = tuple(name for name in PRICE_NAMES if name in _UNITS)
_TOKEN_NAMES = tuple(name for name in PRICE_NAMES if name not in _UNITS)
_TOKEN_KINDS = len(_TOKEN_NAMES)
_BY_MILLION = frozenset({*_TOKEN_NAMES, "character"})


def pico_per_written(name: str) -> int:
    """What the price of this name is multiplied by, in USD as the configuration writes it, to be in pico-dollars: that
    of tokens and of characters is for a million of them."""
    return PICO_PER_USD // 1_000_000 if name in _BY_MILLION else PICO_PER_USD


def _is_usual(usage: Usage) -> bool:
    """Whether it has no other quantity than text in and out and cached input, as that of most requests."""
    return not (
        usage.cache_write
        or usage.cache_write_1h
        or usage.audio_input
        or usage.image_input
        or usage.audio_output
        or usage.image_output
        or usage.images
        or usage.searches
        or usage.characters
        or usage.audio_ms
    )


def _quantities(usage: Usage) -> tuple[int, ...]:
    """What is charged, in the order of the names of prices: each token once."""
    text, text_out = usage.input, usage.output
    cached = write = write_1h = audio = image = audio_out = image_out = 0
    if usage.cached_input or usage.cache_write or usage.cache_write_1h:
        text -= (cached := min(usage.cached_input, text))
        text -= (write := min(usage.cache_write, text))
        text -= (write_1h := min(usage.cache_write_1h, text))
    if usage.audio_input or usage.image_input:
        text -= (audio := min(usage.audio_input, text))
        text -= (image := min(usage.image_input, text))
    if usage.audio_output or usage.image_output:
        text_out -= (audio_out := min(usage.audio_output, text_out))
        text_out -= (image_out := min(usage.image_output, text_out))
    return (
        text, text_out, cached, write, write_1h, audio, image, audio_out, image_out,
        1, usage.images, usage.searches, usage.characters, usage.audio_ms,
    )  # fmt: skip


def _line(name: str, quantity: int, price: int) -> PriceLine:
    # A millisecond costs in femto-dollars what a second costs in pico-dollars.
    amount = quantity * price * (1 if name == "second" else FEMTO_PER_PICO)
    return PriceLine(name, quantity, _UNITS[name], price, amount)


def _complete(prices: Mapping[str, int]) -> Price:
    return msgspec.convert(prices, Price)
