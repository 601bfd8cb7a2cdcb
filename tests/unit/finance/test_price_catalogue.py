from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.finance.price_catalogue import UNITS, CatalogueEntry, NotFound, charged, flat, load_catalogue, nested
from tests.unit.finance.catalogues import NOW, catalogue, settings_with


def entry(upstream: str, model: str) -> CatalogueEntry:
    found = catalogue().look_up(settings_with(), upstream, model)
    assert isinstance(found, CatalogueEntry), found
    return found


def usd(found: CatalogueEntry) -> dict[str, str]:
    return {field: f"{amount.normalize():f}" for field, amount in found.price.items()}


@pytest.mark.parametrize("upstream", ["main", "proxied", "unnamed"])
def test_a_provider_is_known_by_its_url_or_else_by_the_preset(upstream: str) -> None:
    assert entry(upstream, "plain-1").name == "openai plain-1"


def test_a_preset_may_have_another_name_in_the_catalogue() -> None:
    assert entry("google", "long-1").name == "google long-1"


def test_service_tiers_are_prices_of_their_own_and_batches_are_not() -> None:
    assert usd(entry("main", "plain-1")) == {
        "input": "2",
        "output": "8",
        "cached_input": "0.5",
        "tiers.flex.input": "1",
        "tiers.flex.output": "4",
    }


def test_who_serves_anothers_model_has_its_price_and_not_its_tiers() -> None:
    assert usd(entry("azure", "plain-1")) == {"input": "2", "output": "8", "cached_input": "0.5"}


def test_prices_of_long_inputs_of_units_and_what_cannot_be_said() -> None:
    found = entry("main", "long-1")
    assert usd(found) == {
        "input": "3",
        "output": "15",
        "cache_write": "3.75",
        "cache_write_1h": "6",
        "search": "0.01",
        "above.200000.input": "6",
    }
    assert found.unsupported == ("output_video_mtok",)
    assert usd(entry("main", "heard-1")) == {"second": "0.0001"}


def test_one_step_prices_a_request_so_that_it_names_all_that_grew_before_it() -> None:
    found = usd(entry("main", "grown-1"))
    steps = {field: amount for field, amount in found.items() if field.startswith("above")}
    assert steps == {
        "above.200000.input": "2",
        "above.200000.output": "4",
        "above.500000.input": "3",
        "above.500000.output": "4",
    }
    assert found["cache_write"] == "0.083333"


def test_a_tier_has_the_steps_that_it_shares_and_a_fast_mode_is_a_tier() -> None:
    found = usd(entry("main", "grown-1"))
    assert {field for field in found if field.startswith("tiers.default")} == set()
    assert {field: amount for field, amount in found.items() if field.startswith("tiers.priority")} == {
        "tiers.priority.output": "9",
        "tiers.priority.above.200000.input": "2",
        "tiers.priority.above.500000.input": "3",
    }
    assert {field: amount for field, amount in found.items() if field.startswith("tiers.fast")} == {
        "tiers.fast.input": "6",
        "tiers.fast.above.200000.output": "4",
    }


def test_the_price_is_that_of_today() -> None:
    assert usd(entry("main", "falling-1")) == {"input": "4", "output": "4"}


@pytest.mark.parametrize(
    ("upstream", "model", "reason"),
    [
        ("own", "plain-1", "no provider of the catalogue has the upstream's preset or base URL"),
        ("main", "other", "the catalogue has no such model of openai"),
        ("main", "twin-1", "several models of openai have this name, with different prices"),
        ("main", "nightly-1", "openai charges by the time of day"),
    ],
)
def test_what_is_not_certain_has_no_price(upstream: str, model: str, reason: str) -> None:
    assert catalogue().look_up(settings_with(), upstream, model) == NotFound(reason)


def test_a_price_has_the_shape_of_the_configuration_and_back() -> None:
    fields = {
        "input": Decimal(3),
        "above.200000.input": Decimal(6),
        "above.200000.output": Decimal(9),
        "above.1000000.input": Decimal(7),
        "tiers.priority.input": Decimal(5),
        "tiers.priority.above.200000.input": Decimal(8),
    }
    price = nested(fields)
    assert price == {
        "input": Decimal(3),
        "above": [
            {"tokens": 200_000, "input": Decimal(6), "output": Decimal(9)},
            {"tokens": 1_000_000, "input": Decimal(7)},
        ],
        "tiers": {"priority": {"input": Decimal(5), "above": [{"tokens": 200_000, "input": Decimal(8)}]}},
    }
    assert flat(price | {"output": None}) == fields


@pytest.mark.parametrize(
    ("field", "usd"),
    [
        ("cached_input", 3),
        ("audio_output", 9),
        ("cache_write", 4),
        ("search", None),
        ("above.100.input", 6),
        ("above.100.cached_input", 6),
        ("above.100.cache_write", 4),
        ("above.100.output", 9),
        ("tiers.flex.input", 3),
        ("tiers.fast.above.100.input", 8),
        ("tiers.fast.above.100.output", 20),
        ("tiers.fast.above.100.audio_output", 20),
        ("tiers.fast.above.100.cache_write", 4),
    ],
)
def test_what_is_left_out_falls_back(field: str, usd: int | None) -> None:
    fields = {"input": Decimal(3), "output": Decimal(9), "cache_write": Decimal(4), "above.100.input": Decimal(6)}
    fields |= {"tiers.fast.output": Decimal(20), "tiers.fast.above.100.input": Decimal(8)}
    assert charged(fields, field) == usd


def test_the_installed_catalogue_has_models_of_every_field_that_it_can_price() -> None:
    installed = load_catalogue(NOW)
    assert installed.title.startswith("genai-prices ")
    found = installed.look_up(settings_with(), "main", "gpt-4o-2024-08-06")
    assert isinstance(found, CatalogueEntry)
    assert (
        {"input", "output", "cached_input"}
        <= set(found.price)
        <= {f for f, _ in UNITS.values()} | {field for field in found.price if "." in field}
    )
