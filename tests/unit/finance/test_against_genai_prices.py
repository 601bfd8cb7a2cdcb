"""Our arithmetic beside that of genai-prices, over every model of its catalogue that both can price."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Provider
from genai_prices.types import Usage as TheirUsage

from gateway.core.pricing import Price
from gateway.core.usage import Usage
from tests.unit.finance.catalogues import NOW

PICO_DOLLARS = 1_000_000
USAGES = (
    Usage(input=1, output=1),
    Usage(input=1_000, output=250),
    Usage(input=123_457, output=9_876, cached_input=100_000),
    Usage(input=5_000_000, output=1_000_000, cached_input=4_999_999),
)
KEYS = {"input_mtok", "output_mtok", "cache_read_mtok"}


def simple_models() -> Iterator[tuple[Provider, ModelInfo, ModelPrice]]:
    """Those that charge input and output by the token, and at most cached input apart."""
    for provider in providers:
        for model in provider.models:
            price = model.get_prices(NOW)
            by_key = {key: usd for key, usd in vars(price).items() if usd is not None}
            tokens = {key: usd for key, usd in by_key.items() if key in KEYS}
            others = {key for key in by_key if key not in KEYS and not key.endswith("_kcount")}
            exact = all(isinstance(usd, Decimal) and usd * PICO_DOLLARS % 1 == 0 for usd in tokens.values())
            if {"input_mtok", "output_mtok"} <= set(tokens) and not others and exact:
                yield provider, model, price


def ours(price: ModelPrice, usage: Usage) -> Decimal:
    cached = price.input_mtok if price.cache_read_mtok is None else price.cache_read_mtok
    pico = [int(usd * PICO_DOLLARS) for usd in (price.input_mtok, price.output_mtok, cached)]
    return Decimal(Price(*pico).cost(usage)) / 1_000_000


def theirs(provider: Provider, model: ModelInfo, usage: Usage) -> Decimal:
    counted = TheirUsage(input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached_input)
    tokens = model.calc_price(counted, provider, genai_request_timestamp=NOW)
    return tokens.input_price + tokens.output_price


def test_both_compute_the_same_cost_to_half_a_micro_dollar() -> None:
    priced = list(simple_models())
    assert len(priced) > 1_000, "the catalogue has fewer simple models than expected"
    for provider, model, price in priced:
        for usage in USAGES:
            difference = abs(ours(price, usage) - theirs(provider, model, usage))
            assert difference <= Decimal("0.0000005"), (provider.id, model.id, usage)
