"""What providers charge, from the maintained catalogue of the package genai-prices (extra `prices`).

A price is a flat mapping from a field to USD. A field is named as in the configuration: `input`, `cached_input`,
`search` …; `above.200000.input` is `input` for a request whose input is longer than 200,000 tokens,
`tiers.priority.input` is `input` for an answer of that service tier. `nested` gives the shape of the configuration.

A route's upstream and its name of the model lead to a model of the catalogue. The upstream's base URL decides which
provider it is, since any server may speak a provider's API; if the catalogue does not have this URL, the preset
decides. An unknown or ambiguous model has no price: a wrong price is worse than none.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.settings.models import Settings
from gateway.settings.types import UNIT_PRICE_DECIMALS
from gateway.settings.value_readers import MONEY_DECIMALS

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

PriceFields = Mapping[str, Decimal]

UNITS: Mapping[str, tuple[str, int]] = {
    "input_mtok": ("input", 1),
    "output_mtok": ("output", 1),
    "cache_read_mtok": ("cached_input", 1),
    "cache_write_mtok": ("cache_write", 1),
    "cache_write_5m_mtok": ("cache_write", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "input_audio_mtok": ("audio_input", 1),
    "output_audio_mtok": ("audio_output", 1),
    "input_image_mtok": ("image_input", 1),
    "output_image_mtok": ("image_output", 1),
    "requests_kcount": ("request", 1_000),
    "web_searches_kcount": ("search", 1_000),
    "rerank_searches_kcount": ("search", 1_000),
    "audio_hours": ("second", 3_600),
    "input_audio_hours": ("second", 3_600),
    "input_mchars": ("million_characters", 1),
}
"""By the catalogue's keys: the configuration's field, and the number of its units that the catalogue's price is for."""

_BESIDE_PRICES = {"tokens", "regions"}
"""What a price has that is no price: where a step begins, and factors by region, which the catalogue does not have."""

FALLBACKS: Mapping[str, str] = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "input",
    "audio_input": "input",
    "image_input": "input",
    "audio_output": "output",
    "image_output": "output",
}
"""By a field that is left out: the one that is charged instead."""

_PROVIDERS = {"gemini": "google"}
"""Presets whose provider has another name in the catalogue."""

_NO_PROVIDER = {"vllm", "ollama", "llamacpp"}
"""Presets of self-hosted servers."""

_TIER_KEYS = {"service_tier", "speed"}

_SMALLEST_OF_MILLION = Decimal(1).scaleb(-MONEY_DECIMALS)
_SMALLEST_OF_UNIT = Decimal(1).scaleb(-UNIT_PRICE_DECIMALS)
"""Prices are rounded to what the configuration accepts: some of the catalogue are quotients with endless digits."""


class CatalogueMissing(Exception):
    """The extra `prices` is not installed."""


class CatalogueEntry(NamedTuple):
    """A model of the catalogue, such as `openai gpt-5.5`. `unsupported` are prices that the configuration has no field
    for."""

    name: str
    price: PriceFields
    unsupported: tuple[str, ...] = ()


class NotFound(NamedTuple):
    """Why a route has no model in the catalogue."""

    reason: str


class PriceCatalogue:
    """The prices at one moment, since some begin at a date."""

    def __init__(self, snapshot: DataSnapshot, version: str, now: datetime) -> None:
        self.title = f"genai-prices {version}"
        self._snapshot = snapshot
        self._now = now

    def look_up(self, settings: Settings, upstream: str, model: str) -> CatalogueEntry | NotFound:
        """The price of what this upstream calls `model`."""
        server = settings.upstreams[upstream]
        provider = self._provider(server.base_url, server.preset)
        if provider is None:
            return NotFound("no provider of the catalogue has the upstream's preset or base URL")
        try:
            _, found = self._snapshot.find_provider_model(model, provider, None, None)
        except LookupError:
            return NotFound(f"the catalogue has no such model of {provider.id}")
        if self._is_ambiguous(provider, model):
            return NotFound(f"several models of {provider.id} have this name, with different prices")
        if _changes_with_the_hour(found):
            return NotFound(f"{provider.id} charges by the time of day")
        return self.entry(provider, found)

    def _provider(self, base_url: str, preset: str | None) -> Provider | None:
        with suppress(LookupError):
            return self._snapshot.find_provider(None, None, base_url)
        if preset is None or preset in _NO_PROVIDER:
            return None
        with suppress(LookupError):
            return self._snapshot.find_provider(None, _PROVIDERS.get(preset, preset), None)
        return None

    def _is_ambiguous(self, provider: Provider, model: str) -> bool:
        matching = [entry.get_prices(self._now) for entry in provider.models if entry.is_match(model)]
        return any(price != matching[0] for price in matching[1:])

    def entry(self, provider: Provider, model: ModelInfo) -> CatalogueEntry:
        """The price of a model at the provider that serves it."""
        standard = _fields(model.get_prices(self._now))
        price = dict(standard.price)
        # Who serves another provider's models at its prices need not have its service tiers.
        own = any(model is each for each in provider.models)
        for tier, context in _tiers(model).items() if own else ():
            of_tier = _fields(model.get_prices(self._now, context)).price
            if of_tier == standard.price:
                continue
            # A tier has its own steps or none, so that it has to name those that it shares, too.
            for field, usd in of_tier.items():
                if "." in field or usd != standard.price.get(field):
                    price[f"tiers.{tier}.{field}"] = usd
        return CatalogueEntry(f"{provider.id} {model.id}", price, standard.unsupported)


def load_catalogue(now: datetime) -> PriceCatalogue:
    """The catalogue that is installed; nothing is fetched. Raises CatalogueMissing."""
    try:
        # The package is an extra, and its data are 1.5 MB that only these commands need.
        from genai_prices import __version__, data, data_snapshot
    except ImportError:
        # `pip` alone often is that of another Python.
        install = f"{shlex.quote(sys.executable)} -m pip install genai-prices"
        raise CatalogueMissing(f"The price catalogue is not installed. Run: {install}") from None
    return PriceCatalogue(data_snapshot.DataSnapshot(data.providers, from_auto_update=False), __version__, now)


def flat(price: Mapping[str, Any], prefix: str = "") -> dict[str, Decimal]:
    """The fields of a price in the configuration's shape, without those that are None."""
    fields: dict[str, Decimal] = {}
    for name, value in price.items():
        if name == "above":
            for step in value or ():
                fields |= flat(step, f"{prefix}above.{step['tokens']}.")
        elif name == "tiers":
            for tier, prices in (value or {}).items():
                fields |= flat(prices, f"{prefix}tiers.{tier}.")
        elif name not in _BESIDE_PRICES and value is not None:
            fields[prefix + name] = Decimal(value)
    return fields


def nested(fields: PriceFields) -> dict[str, Any]:
    """The price in the configuration's shape."""
    price: dict[str, Any] = {}
    steps: dict[int, dict[str, Decimal]] = {}
    tiers: dict[str, dict[str, Decimal]] = {}
    for name, usd in fields.items():
        kind, _, rest = name.partition(".")
        group, _, field = rest.partition(".")
        if kind == "above":
            steps.setdefault(int(group), {})[field] = usd
        elif kind == "tiers":
            tiers.setdefault(group, {})[field] = usd
        else:
            price[name] = usd
    return (
        price
        | ({"above": [{"tokens": start, **steps[start]} for start in sorted(steps)]} if steps else {})
        | ({"tiers": {tier: nested(inner) for tier, inner in tiers.items()}} if tiers else {})
    )


def charged(fields: PriceFields, field: str) -> Decimal | None:
    """What this field costs: its own price, or that of the field that it falls back to; None if neither has one."""
    group, _, name = field.rpartition(".")
    # A step or a tier changes what it names; the rest is as in the list that it belongs to.
    place = group
    while place and f"{place}.{name}" not in fields:
        place = place.rpartition(".")[0].rpartition(".")[0]
    found = fields.get(f"{place}.{name}" if place else name)
    own = FALLBACKS.get(name)
    if found is not None or own is None:
        return found
    return charged(fields, f"{group}.{own}" if group else own)


def _tiers(model: ModelInfo) -> dict[str, dict[str, str]]:
    """Service tiers with their own prices, and the catalogue's name of each. Anthropic's fast mode is one, as in what
    answers report."""
    found: dict[str, dict[str, str]] = {}
    for variant in model.price_variants or ():
        if len(variant.when) == 1 and (key := next(iter(variant.when))) in _TIER_KEYS:
            found.setdefault(variant.when[key], dict(variant.when))
    return found


def _changes_with_the_hour(model: ModelInfo) -> bool:
    return isinstance(model.prices, list) and any(hasattr(price.constraint, "start_time") for price in model.prices)


def _fields(price: ModelPrice) -> CatalogueEntry:
    """A price in the catalogue's shape: by key a Decimal, or a base with prices above some lengths of input."""
    fields: dict[str, Decimal] = {}
    steps: dict[str, dict[int, Decimal]] = {}
    unsupported = []
    for key, value in vars(price).items():
        if value is None:
            continue
        if key not in UNITS:
            unsupported.append(key)
            continue
        field, units = UNITS[key]
        if field not in fields:
            fields[field] = _per_unit(getattr(value, "base", value), units)
            steps[field] = {step.start: _per_unit(step.price, units) for step in getattr(value, "tiers", ())}
    for start in {start for of_field in steps.values() for start in of_field}:
        for field, of_field in steps.items():
            # One step prices a request: where this field has none here, its last one before holds.
            reached = [each for each in of_field if each <= start]
            if reached:
                fields[f"above.{start}.{field}"] = of_field[max(reached)]
    order = [field for field, _ in UNITS.values()]
    ordered = dict(sorted(fields.items(), key=lambda item: ("." in item[0], order.index(item[0].rpartition(".")[2]))))
    return CatalogueEntry("", ordered, tuple(unsupported))


def _per_unit(usd: Decimal, units: int) -> Decimal:
    smallest = _SMALLEST_OF_MILLION if units == 1 else _SMALLEST_OF_UNIT
    return (usd / units).quantize(smallest).normalize()
