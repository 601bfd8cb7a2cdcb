"""A small catalogue of made-up prices, in the real catalogue's own types."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal

from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from gateway.finance.price_catalogue import PriceCatalogue
from gateway.settings.loading import build
from gateway.settings.models import Settings

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def price(**fields: str | TieredPrices) -> ModelPrice:
    return ModelPrice(**{key: Decimal(usd) if isinstance(usd, str) else usd for key, usd in fields.items()})


def above(base: str, start: int, usd: str) -> TieredPrices:
    return TieredPrices(base=Decimal(base), tiers=[Tier(start=start, price=Decimal(usd))])


PLAIN = ModelInfo(
    id="plain-1",
    match=ClauseStartsWith("plain-1"),
    prices=price(input_mtok="2", output_mtok="8", cache_read_mtok="0.5"),
    price_variants=[
        PriceVariant({"service_tier": "flex"}, price(input_mtok="1", output_mtok="4")),
        PriceVariant({"processing": "batch"}, price(input_mtok="0.5")),
    ],
)
LONG = ModelInfo(
    id="long-1",
    match=ClauseEquals("long-1"),
    prices=price(
        input_mtok=above("3", 200_000, "6"),
        output_mtok="15",
        cache_write_mtok="3.75",
        cache_write_1h_mtok="6",
        web_searches_kcount="10",
        output_video_mtok="99",
    ),
)
GROWN = ModelInfo(
    id="grown-1",
    match=ClauseEquals("grown-1"),
    prices=price(
        input_mtok=TieredPrices(Decimal(1), [Tier(200_000, Decimal(2)), Tier(500_000, Decimal(3))]),
        output_mtok=above("2", 200_000, "4"),
        cache_write_mtok="0.08333333333333334",
    ),
    price_variants=[
        PriceVariant({"service_tier": "default"}, price()),
        PriceVariant({"service_tier": "priority"}, price(output_mtok="9")),
        PriceVariant({"speed": "fast"}, price(input_mtok="6")),
    ],
)
HEARD = ModelInfo(id="heard-1", match=ClauseEquals("heard-1"), prices=price(audio_hours="0.36"))
CHEAPER_LATER = ModelInfo(
    id="falling-1",
    match=ClauseEquals("falling-1"),
    prices=[
        ConditionalPrice(prices=price(input_mtok="5", output_mtok="5")),
        ConditionalPrice(StartDateConstraint(date(2026, 10, 1)), prices=price(input_mtok="4", output_mtok="4")),
        ConditionalPrice(StartDateConstraint(date(2027, 1, 1)), prices=price(input_mtok="3", output_mtok="3")),
    ],
)
BY_THE_HOUR = ModelInfo(
    id="nightly-1",
    match=ClauseEquals("nightly-1"),
    prices=[
        ConditionalPrice(prices=price(input_mtok="5")),
        ConditionalPrice(TimeOfDateConstraint(time(1), time(5)), prices=price(input_mtok="1")),
    ],
)
TWICE = [
    ModelInfo(id=name, match=ClauseStartsWith("twin"), prices=price(input_mtok=usd))
    for name, usd in [("twin-a", "1"), ("twin-b", "2")]
]


def catalogue() -> PriceCatalogue:
    openai = Provider(
        "openai",
        "OpenAI",
        r"https://api\.openai\.com",
        models=[PLAIN, LONG, GROWN, HEARD, CHEAPER_LATER, BY_THE_HOUR, *TWICE],
    )
    google = Provider("google", "Google", r"https://(.*\.)?googleapis\.com", models=[LONG])
    azure = Provider("azure", "Azure", r"https://.*\.openai\.azure\.com", fallback_model_providers=["openai"])
    return PriceCatalogue(DataSnapshot([openai, google, azure], from_auto_update=False), "1.0", NOW)


def settings_with(**models: object) -> Settings:
    """Upstreams `main` (OpenAI), `proxied` (OpenAI behind another URL), `own` (vLLM), `google` and `azure`."""
    upstreams = {
        "main": {"preset": "openai"},
        "proxied": {"preset": "openai", "base_url": "https://egress.example/v1"},
        "google": {"preset": "gemini"},
        "azure": {"preset": "azure", "base_url": "https://us.openai.azure.com/openai/v1"},
        "own": {"preset": "vllm"},
        "unnamed": {"base_url": "https://api.openai.com/v1"},
    }
    return build({"upstreams": upstreams, "models": {name.replace("_", "-"): model for name, model in models.items()}})
