"""Our arithmetic beside that of genai-prices, over every model of its catalogue.

What the catalogue says becomes a price as the configuration has it, as `gateway prices update` would write it; this
price is read and charged as the gateway does it, and genai-prices charges the same usage by its own data.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import yaml
from genai_prices.data import providers
from genai_prices.types import ModelInfo, Provider
from genai_prices.types import Usage as TheirUsage

from gateway.app.snapshot_builder import price_of
from gateway.core.pricing import Price
from gateway.core.usage import Usage
from gateway.finance.price_catalogue import UNITS, CatalogueEntry, load_catalogue, nested
from gateway.settings.price_settings import PriceSettings
from tests.unit.finance.catalogues import NOW

USAGES = (
    Usage(input=1, output=1),
    Usage(input=1_000, output=250),
    Usage(input=123_457, output=9_876, cached_input=100_000),
    Usage(input=200_001, output=9_876, cached_input=10_000, cache_write=20_000),
    Usage(input=250_000, output=10, cache_write=100_000, cache_write_1h=100_001),
    Usage(input=300_000, output=1_000, audio_input=30_000, audio_output=400, image_input=7, image_output=500),
    Usage(input=5_000_000, output=1_000_000, cached_input=4_999_999),
    Usage(input=10, output=10, searches=3),
    Usage(audio_ms=61_000),
    Usage(characters=12_345),
)
HALF_A_MICRO_DOLLAR = Decimal("0.0000005")

THEIR_TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached_input": "cache_read_tokens",
    "audio_input": "input_audio_tokens",
    "audio_output": "output_audio_tokens",
    "image_input": "input_image_tokens",
    "image_output": "output_image_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "characters": "input_characters",
    "searches": "web_searches",
}


class Priced(NamedTuple):
    """A model of the catalogue, what it costs here, and the service tier to compare, if any."""

    provider: Provider
    model: ModelInfo
    entry: CatalogueEntry
    price: Price
    tier: str
    context: dict[str, str] | None


def priced_models() -> Iterator[Priced]:
    catalogue = load_catalogue(NOW)
    for provider in providers:
        for model in provider.models:
            entry = catalogue.entry(provider, model)
            if not entry.price:
                continue
            price = price_of(PriceSettings.model_validate(nested(entry.price)))
            assert price is not None
            yield Priced(provider, model, entry, price, "", None)
            for variant in model.price_variants or ():
                for key, tier in variant.when.items():
                    if key in {"service_tier", "speed"}:
                        yield Priced(provider, model, entry, price, tier, {key: tier})


def theirs(priced: Priced, usage: Usage) -> Decimal:
    counted = {their: getattr(usage, our) for our, their in THEIR_TOKENS.items() if getattr(usage, our)}
    counted["cache_write_tokens"] = usage.cache_write + usage.cache_write_1h
    kinds = vars(priced.model.get_prices(NOW))
    if kinds.get("audio_hours") is not None or kinds.get("input_audio_hours") is not None:
        counted["audio_seconds" if kinds.get("audio_hours") is not None else "input_audio_seconds"] = (
            usage.audio_ms // 1000
        )
    cost = priced.model.calc_price(
        TheirUsage(**counted), priced.provider, genai_request_timestamp=NOW, price_context=priced.context
    )
    return Decimal(cost.total_price)


def tolerance(priced: Priced, usage: Usage) -> Decimal:
    """Half a micro-dollar, and what the catalogue's own endless digits are rounded by."""
    raw = vars(priced.model.get_prices(NOW))
    endless = any(
        (step * 10 ** (6 if UNITS[key][1] == 1 else 9) / UNITS[key][1]) % 1
        for key, value in raw.items()
        if value is not None and key in UNITS
        for step in (getattr(value, "base", value), *(each.price for each in getattr(value, "tiers", ())))
    )
    rounding = usage.total * Decimal("5e-13") + Decimal(usage.audio_ms) / 1000 * Decimal("5e-10")
    return HALF_A_MICRO_DOLLAR + (rounding if endless else 0)


def comparable(priced: Priced, usage: Usage) -> bool:
    """Where a model has no price for writes of an hour, genai-prices takes that of five minutes, and the
    configuration that of input."""
    return not usage.cache_write_1h or "cache_write_1h" in priced.entry.price


def test_both_compute_the_same_cost_to_half_a_micro_dollar() -> None:
    models = list(priced_models())
    compared = 0
    for priced in models:
        for usage in USAGES:
            if not comparable(priced, usage):
                continue
            used = Usage(
                **{name: getattr(usage, name) for name in usage.__struct_fields__} | {"service_tier": priced.tier}
            )
            ours = Decimal(priced.price.cost(used)) / 1_000_000
            difference = abs(ours - theirs(priced, usage))
            assert difference <= tolerance(priced, usage), (priced.provider.id, priced.model.id, priced.tier, usage)
            compared += 1
    assert compared > 20_000, "the catalogue has fewer models than expected"
    assert sum(bool(priced.price.above) for priced in models) > 50, "no model has prices for long inputs"
    assert sum(bool(priced.tier) for priced in models) > 80, "no model has service tiers"


def test_the_configuration_takes_every_price_of_the_catalogue_as_it_is_written() -> None:
    for priced in priced_models():
        written = {name: f"{usd:f}" for name, usd in priced.entry.price.items()}
        again = PriceSettings.model_validate(yaml.safe_load(yaml.safe_dump(nested(written))))  # type: ignore[arg-type]
        assert price_of(again) == priced.price
