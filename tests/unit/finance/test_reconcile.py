from __future__ import annotations

import sys
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.finance.reconcile import (
    ALL_MODELS,
    NO_MODEL,
    Reconciliation,
    group_of,
    ledger_query,
    model_groups,
    reconcile,
)
from gateway.finance.usage_export import ExportCell, UsageExport
from gateway.settings.loading import build
from gateway.settings.models import Settings

DAY, NEXT, LATER = date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 20)
FIGURES = ("requests", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "usd")


def settings_of(timezone: str = "UTC", **models: list[tuple[str, str]]) -> Settings:
    """`models`: the upstream and its name of the model, for each route."""
    routes = {
        name.replace("_", "-"): {"routes": [{"upstream": upstream, "model": model} for upstream, model in places]}
        for name, places in models.items()
    }
    upstreams = {name: {"base_url": f"https://{name}.example/v1"} for name in ("openai", "other")}
    return build({"upstreams": upstreams, "models": routes, "timezone": timezone})


CHAT = settings_of(chat=[("openai", "gpt-4o")])


def export_of(*cells: tuple[date, str, dict[str, Any]], complete: bool = True) -> UsageExport:
    export = UsageExport("OpenAI usage API", is_complete=complete)
    for day, model, figures in cells:
        export.days.add(day)
        cell = export.cells.setdefault((day, model), ExportCell())
        cell.add({name: Decimal(str(amount)) for name, amount in figures.items()}, Decimal(0))
    return export


def ledger_of(*rows: dict[str, Any], figures: tuple[str, ...] = FIGURES) -> dict[str, Any]:
    full = [dict.fromkeys((*figures, "estimated_tokens"), 0) | row for row in rows]
    return {"rows": full, "total": dict.fromkeys(figures, 0)}


def row(model: str = "chat", day: date = DAY, **figures: Any) -> dict[str, Any]:
    return {"day": day.isoformat(), "model": model, **figures}


def result(
    export: UsageExport, ledger: dict[str, Any], settings: Settings = CHAT, tolerance: str = "0.01"
) -> Reconciliation:
    return reconcile(settings, "openai", export, ledger, tolerance=Decimal(tolerance), today=LATER)


def test_equal_figures_are_within() -> None:
    told = result(export_of((DAY, "gpt-4o", {"requests": 3, "usd": 0.3})), ledger_of(row(requests=3, usd=0.3)))
    assert told.is_within
    (cell,) = told.cells
    assert (cell.day, cell.model, cell.provider_models, cell.reasons) == ("2026-11-01", "chat", ["gpt-4o"], [])


@pytest.mark.parametrize(("counted", "within"), [(101, True), (99, True), (102, False), (98, False)])
def test_the_tolerance_is_a_part_of_the_providers_figure(counted: int, within: bool) -> None:
    told = result(export_of((DAY, "gpt-4o", {"requests": 100})), ledger_of(row(requests=counted)))
    assert told.is_within is within


def test_a_difference_is_ledger_less_provider() -> None:
    told = result(export_of((DAY, "gpt-4o", {"requests": 4})), ledger_of(row(requests=3)))
    figure = told.cells[0].figures["requests"]
    assert (figure.difference, figure.percent) == (Decimal(-1), Decimal(-25))
    assert told.as_json()["total"]["requests"] == {
        "ledger": 3,
        "provider": 4,
        "difference": -1,
        "difference_percent": -25.0,
    }


def test_only_what_both_sides_have_is_compared() -> None:
    export = export_of((DAY, "gpt-4o", {"requests": 1, "cache_write_tokens": 9}))
    told = result(export, ledger_of(row(requests=1, usd=5), figures=("requests", "usd")))
    assert list(told.cells[0].figures) == ["requests"]


def test_usage_that_only_one_side_has_is_a_difference() -> None:
    export = export_of((DAY, "gpt-4o", {"requests": 1}), (DAY, "o1", {"requests": 2}))
    told = result(export, ledger_of(row(requests=1), row(day=NEXT, requests=7), row(day=LATER, requests=7)))
    assert {(cell.day, cell.model): cell.figures["requests"][:2] for cell in told.cells} == {
        ("2026-11-01", "chat"): (Decimal(1), Decimal(1)),
        ("2026-11-01", "o1"): (Decimal(0), Decimal(2)),
    }
    export.days.add(NEXT)
    told = result(export, ledger_of(row(requests=1), row(day=NEXT, requests=7)))
    assert told.cells[-1].figures["requests"] == (Decimal(7), Decimal(0), Decimal(0))
    assert not told.is_within


def test_a_day_that_the_file_leaves_out_between_others_had_no_usage() -> None:
    export = export_of((DAY, "gpt-4o", {"requests": 1}), (date(2026, 11, 3), "gpt-4o", {"requests": 1}))
    told = result(export, ledger_of(row(requests=1), row(day=NEXT, requests=7), row(day=date(2026, 11, 3), requests=1)))
    assert [[*map(int, cell.figures["requests"][:2])] for cell in told.cells] == [[1, 1], [7, 0], [1, 1]]


def test_an_export_without_models_is_compared_as_a_whole() -> None:
    settings = settings_of(chat=[("openai", "gpt-4o")], embed=[("openai", "e")], local=[("other", "l")])
    ledger = ledger_of(row(usd=1), row("embed", usd=2), row("local", usd=40))
    (cell,) = result(export_of((DAY, "", {"usd": 3})), ledger, settings).cells
    assert (cell.model, cell.figures["usd"][:2]) == (ALL_MODELS, (Decimal(3), Decimal(3)))


def test_costs_without_a_model_stay_apart() -> None:
    export = export_of((DAY, "gpt-4o", {"usd": 1}), (DAY, "", {"usd": 2}))
    told = result(export, ledger_of(row(usd=1)))
    assert [cell.model for cell in told.cells] == [NO_MODEL, "chat"]
    assert told.cells[0].reasons == [
        "costs that name no model: tools such as web search or code execution, storage, credits"
    ]


def test_models_that_share_a_route_are_one() -> None:
    settings = settings_of(a=[("openai", "x"), ("openai", "y")], b=[("openai", "y")], c=[("openai", "z")])
    assert [(group.title, set(group.route_models)) for group in model_groups(settings, "openai")] == [
        ("a, b", {"x", "y"}),
        ("c", {"z"}),
    ]


@pytest.mark.parametrize(
    ("routes", "named", "model"),
    [
        ({"a": "gpt-4o"}, "gpt-4o-2024-08-06", "a"),
        ({"a": "gpt-4o", "b": "gpt-4o-2024-08-06"}, "gpt-4o-2024-08-06", "b"),
        ({"a": "gpt-4o-2024-08-06"}, "gpt-4o-2024-11-20", None),
        ({"a": "gpt-4o"}, "gpt-4o-mini-2024-07-18", None),
        ({"a": "mistral-large-latest"}, "mistral-large-2411", "a"),
        ({"a": "claude-haiku-4-5-20251001"}, "Claude Haiku 4.5", "a"),
        ({"a": "claude-haiku-4-5-20251001", "b": "claude-haiku-4-5-20260101"}, "Claude Haiku 4.5", None),
        ({"a": "gpt-4.1"}, "GPT-4.1", "a"),
    ],
)
def test_a_snapshot_belongs_to_the_route_that_is_certain(routes: dict[str, str], named: str, model: str | None) -> None:
    settings = settings_of("UTC", **{name: [("openai", place)] for name, place in routes.items()})
    group = group_of(named, model_groups(settings, "openai"))
    assert (group and group.title) == model


def test_rounded_money_is_allowed_for() -> None:
    export = export_of((DAY, "gpt-4o", {"usd": 0.01}))
    assert not result(export, ledger_of(row(usd=0.014))).is_within
    export.cells[DAY, "gpt-4o"].rounding = Decimal("0.005")
    assert result(export, ledger_of(row(usd=0.014))).is_within


def test_the_ledgers_upstream_is_used_where_it_has_one() -> None:
    settings = settings_of(chat=[("openai", "gpt-4o"), ("other", "gpt-4o")])
    export = export_of((DAY, "gpt-4o", {"requests": 1}))
    ledger = ledger_of(row(requests=1, upstream="openai"), row(requests=5, upstream="other"))
    assert result(export, ledger, settings).is_within
    for unknown in (row(requests=6), row(requests=6, upstream="")):
        without = result(export, ledger_of(unknown), settings)
        assert without.cells[0].figures["requests"].ledger == 6
        assert any("routes to other upstreams" in reason for reason in without.cells[0].reasons)
    certain = result(export, ledger_of(row(requests=6, upstream="openai")), settings)
    assert not any("routes to other upstreams" in reason for reason in certain.cells[0].reasons)


def test_the_query_covers_the_days_of_the_file_and_asks_for_what_is_known() -> None:
    export = export_of((DAY, "gpt-4o", {}), (NEXT, "gpt-4o", {}))
    assert ledger_query(export, ("day", "team", "model")) == {
        "by": "day,model",
        "since": "2026-11-01",
        "until": "2026-11-03",
    }
    assert ledger_query(export, ("day", "model", "upstream"))["by"] == "day,model,upstream"


@pytest.mark.parametrize(
    ("provider", "ledger", "timezone", "reason"),
    [
        ({"requests": 9}, {"requests": 1}, "UTC", "traffic that bypasses the gateway"),
        ({"requests": 9}, {"requests": 1}, "UTC", "attempts that the gateway retried"),
        ({"requests": 1}, {"requests": 9}, "UTC", "an export of some projects, workspaces or keys only"),
        ({"requests": 1}, {"requests": 9}, "Europe/Berlin", "days of the ledger begin in Europe/Berlin"),
        ({"requests": 1, "usd": 1}, {"requests": 1, "usd": 2}, "UTC", "another price than the provider's"),
        ({"usd": 2}, {"usd": 1}, "UTC", "traffic that bypasses the gateway"),
        ({"output_tokens": 9}, {"output_tokens": 5, "estimated_tokens": 1234}, "UTC", "1,234 tokens of the ledger are"),
    ],
)
def test_a_difference_has_likely_reasons(
    provider: dict[str, Any], ledger: dict[str, Any], timezone: str, reason: str
) -> None:
    settings = settings_of(timezone, chat=[("openai", "gpt-4o")])
    (cell,) = result(export_of((DAY, "gpt-4o", provider)), ledger_of(row(**ledger)), settings).cells
    assert [each for each in cell.reasons if reason in each], cell.reasons


def test_snapshots_of_one_model_and_models_without_a_route_are_reasons() -> None:
    export = export_of(
        (DAY, "gpt-4o-2024-08-06", {"requests": 1}),
        (DAY, "gpt-4o-2024-11-20", {"requests": 1}),
        (DAY, "o1", {"requests": 1}),
    )
    chat, o1 = result(export, ledger_of(row(requests=1))).cells
    assert "gpt-4o-2024-08-06, gpt-4o-2024-11-20 are counted as one model" in chat.reasons
    assert o1.reasons[0] == "no route to openai leads to this model"


def test_a_day_that_is_not_over_is_a_reason() -> None:
    export = export_of((DAY, "gpt-4o", {"requests": 1}))
    told = reconcile(CHAT, "openai", export, ledger_of(), tolerance=Decimal(0), today=NEXT)
    assert any("was not over" in reason for reason in told.cells[0].reasons)


def test_a_file_with_further_pages_is_noted() -> None:
    (note,) = result(export_of((DAY, "gpt-4o", {"requests": 1}), complete=False), ledger_of()).notes
    assert "has_more" in note


def test_twice_as_many_days_take_twice_the_steps() -> None:
    models = [f"m{number}" for number in range(8)]
    settings = settings_of("UTC", **{model: [("openai", model)] for model in models})

    def steps(days: int) -> int:
        used = [(DAY + timedelta(days=day), model) for day in range(days) for model in models]
        export = export_of(*[(day, model, {"requests": 1}) for day, model in used[::2]])
        ledger = ledger_of(*[row(model, day, requests=1) for day, model in used])
        taken = 0

        def count(*_event: object) -> None:
            nonlocal taken
            taken += 1

        sys.setprofile(count)
        try:
            told = result(export, ledger, settings)
        finally:
            sys.setprofile(None)
        assert len(told.cells) == days * len(models)
        return taken

    assert steps(40) < 2.2 * steps(20)
