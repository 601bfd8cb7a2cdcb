from __future__ import annotations

from decimal import Decimal

import pytest
import yaml

from gateway.finance.price_catalogue import CatalogueEntry, NotFound, PriceCatalogue
from gateway.finance.price_comparison import PriceStatus, compare, prices_file, warnings
from gateway.settings.models import Settings
from tests.unit.finance.catalogues import catalogue, settings_with

Json = dict[str, object]


def model(price: Json | None = None, *, upstream: str = "main", name: str = "plain-1") -> Json:
    return {"routes": [{"upstream": upstream, "model": name}], "price": price}


def statuses(price: Json | None, name: str = "plain-1") -> dict[str, PriceStatus]:
    rows = compare(settings_with(chat=model(price, name=name)), catalogue())
    return {row.field: row.status for row in rows}


def test_a_price_within_one_percent_is_the_same() -> None:
    found = statuses({"input": 2.02, "output": 7.91, "cached_input": 0.5})
    assert (found["input"], found["output"]) == (PriceStatus.SAME, PriceStatus.DIFFERS)


def test_a_field_that_is_left_out_is_compared_by_what_is_charged_for_it() -> None:
    found = statuses({"input": 2, "output": 8})
    assert found["cached_input"] == PriceStatus.LEFT_OUT
    assert found["tiers.flex.input"] == PriceStatus.LEFT_OUT


def test_a_field_that_the_catalogue_leaves_out_falls_back_there_too() -> None:
    found = statuses({"input": 4, "output": 4, "cached_input": 1}, "falling-1")
    assert found == {"input": PriceStatus.SAME, "output": PriceStatus.SAME, "cached_input": PriceStatus.DIFFERS}


def test_a_price_that_the_catalogue_does_not_have_is_no_difference() -> None:
    assert statuses({"input": 1, "output": 1}, "heard-1") == {
        "second": PriceStatus.LEFT_OUT,
        "input": PriceStatus.NOT_IN_CATALOGUE,
        "output": PriceStatus.NOT_IN_CATALOGUE,
    }


def test_a_model_without_a_price_is_not_configured() -> None:
    assert set(statuses(None).values()) == {PriceStatus.NOT_CONFIGURED}


def test_a_row_tells_the_difference_in_percent_of_the_catalogue() -> None:
    row = compare(settings_with(chat=model({"input": 3, "output": 8, "cached_input": 0.5})), catalogue())[0]
    assert (row.model, row.upstream, row.route_model, row.entry) == ("chat", "main", "plain-1", "openai plain-1")
    assert (row.configured, row.catalogue, row.difference) == (Decimal(3), Decimal(2), Decimal(50))
    assert row.as_json()["difference_percent"] == 50.0


def test_routes_to_the_same_place_are_one_and_others_are_listed_each() -> None:
    routes = [{"upstream": "main"}, {"upstream": "main", "weight": 2}, {"upstream": "own"}]
    rows = compare(settings_with(heard_1={"routes": routes}), catalogue())
    assert [(row.upstream, row.status) for row in rows] == [
        ("main", PriceStatus.NOT_CONFIGURED),
        ("own", PriceStatus.UNKNOWN),
    ]


def test_only_a_price_that_is_written_down_is_warned_of() -> None:
    settings = settings_with(chat=model({"input": 3, "output": 8}), free=model())
    (found,) = warnings(settings, catalogue())
    assert found.path == ("models", "chat", "price", "input")
    assert found.message == (
        "is 50.0 % higher than the 2 USD of the price catalogue (openai plain-1, genai-prices 1.0);"
        " see `gateway prices diff`"
    )


@pytest.mark.parametrize("name", ["plain-1", "long-1", "falling-1"])
def test_the_prices_file_is_yaml_that_leaves_no_difference(name: str) -> None:
    settings = settings_with(**{"it's": model(name=name), "local": model(upstream="own")})
    text = prices_file(settings, catalogue())
    written = yaml.safe_load(text)
    assert list(written["models"]) == ["it's"]
    price = written["models"]["it's"]["price"]
    assert (
        price
        == {
            "plain-1": {
                "input": 2,
                "output": 8,
                "cached_input": 0.5,
                "tiers": {"flex": {"input": 1, "output": 4}},
            },
            "long-1": {
                "input": 3,
                "output": 15,
                "cache_write": 3.75,
                "cache_write_1h": 6,
                "search": 0.01,
                "above": [{"tokens": 200_000, "input": 6}],
            },
            "falling-1": {"input": 4, "output": 4},
        }[name]
    )
    assert "# own: plain-1: no provider of the catalogue" in text


class _AskedCatalogue(PriceCatalogue):
    """Counts how often it is asked for a model."""

    def __init__(self, copied: PriceCatalogue) -> None:
        vars(self).update(vars(copied))
        self.asked = 0

    def look_up(self, settings: Settings, upstream: str, model: str) -> CatalogueEntry | NotFound:
        self.asked += 1
        return super().look_up(settings, upstream, model)


def test_the_prices_file_looks_each_route_up_once() -> None:
    asked = _AskedCatalogue(catalogue())
    prices_file(settings_with(**{f"m{number}": model() for number in range(20)}), asked)
    assert asked.asked == 20


def test_prices_that_are_pasted_into_the_configuration_are_the_catalogues() -> None:
    models = {name: model(name=name) for name in ("plain-1", "long-1", "falling-1", "heard-1", "grown-1")}
    text = prices_file(settings_with(**models), catalogue())
    priced = {name: models[name] | written for name, written in yaml.safe_load(text)["models"].items()}
    settings = settings_with(**priced)
    rows = compare(settings, catalogue())
    assert {row.model for row in rows} == set(models)
    assert all(row.status is PriceStatus.SAME and row.written and row.configured == row.catalogue for row in rows)
    assert prices_file(settings, catalogue()) == text


def test_a_warning_names_the_setting_wherever_it_is_in_the_price() -> None:
    step = {"tokens": 200_000, "input": 99}
    price = {
        "input": 1,
        "output": 2,
        "above": [{"tokens": 9, "output": 2}, step],
        "tiers": {"priority": {"above": [step]}},
    }
    settings = settings_with(chat={"routes": [{"upstream": "main", "model": "grown-1", "price": price}]})
    path = ("models", "chat", "routes", 0, "price")
    assert [found.path for found in warnings(settings, catalogue()) if found.path[-1] == "input"] == [
        (*path, "above", 1, "input"),
        (*path, "tiers", "priority", "above", 0, "input"),
    ]


def test_a_routes_own_price_is_compared_and_not_the_models() -> None:
    own = {"input": 2, "output": 8, "cached_input": 0.5, "tiers": {"flex": {"input": 1, "output": 4}}}
    routes = [{"upstream": "main", "model": "plain-1", "price": own}]
    rows = compare(settings_with(chat={"routes": routes, "price": {"input": 999}}), catalogue())
    assert {row.status for row in rows} == {PriceStatus.SAME}


def test_a_route_with_another_price_is_a_comment_in_the_prices_file() -> None:
    routes = [{"upstream": "main", "model": "falling-1"}, {"upstream": "main", "model": "plain-1"}]
    text = prices_file(settings_with(chat={"routes": routes}), catalogue())
    assert yaml.safe_load(text) == {"models": {"chat": {"price": {"input": 4, "output": 4}}}}
    assert "# the price of this route: {input: 2, output: 8, cached_input: 0.5," in text
