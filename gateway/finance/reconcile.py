"""Compares the ledger with a provider's usage export, by day and model, and says why they may differ.

A cell is a day and the models of the configuration whose routes to the upstream lead to one model of the provider.
The provider may name a snapshot (`gpt-5.5-2026-04-23`) where a route names the model (`gpt-5.5`), or the reverse: an
ending that is a date or `latest` is ignored if the match is then certain.

The export's days are in UTC, the ledger's in the configuration's time zone. Rows of the ledger without an upstream,
which older gateways wrote, count if their model has a route to the upstream, whichever upstream served them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.finance.usage_export import ExportCell, UsageExport
from gateway.settings.models import Settings

FIGURES = ("requests", "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "usd")
ALL_MODELS = "(all models)"
NO_MODEL = "(no model)"

_VERSION = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)$")
_ZERO = Decimal(0)
Row = Mapping[str, Any]


class ModelGroup(NamedTuple):
    """Models of the configuration that share routes, and the upstream's names of them."""

    models: frozenset[str]
    route_models: frozenset[str]

    @property
    def title(self) -> str:
        return ", ".join(sorted(self.models))

    def shares_with(self, other: ModelGroup) -> bool:
        return bool(self.models & other.models or self.route_models & other.route_models)


class FigureDifference(NamedTuple):
    """`percent` is of the provider's figure; None if that is 0."""

    ledger: Decimal
    provider: Decimal
    rounding: Decimal = _ZERO

    @property
    def difference(self) -> Decimal:
        return self.ledger - self.provider

    @property
    def percent(self) -> Decimal | None:
        return self.difference / self.provider * 100 if self.provider else None

    def plus(self, other: FigureDifference) -> FigureDifference:
        return FigureDifference(
            self.ledger + other.ledger, self.provider + other.provider, self.rounding + other.rounding
        )

    def is_within(self, tolerance: Decimal) -> bool:
        """`tolerance` is a part of the provider's figure."""
        return abs(self.difference) <= abs(self.provider) * tolerance + self.rounding


@dataclass
class ReconciledCell:
    """`provider_models` are the names that the export has for it; `is_routed`: a model of the configuration has a
    route there."""

    day: str
    model: str
    figures: dict[str, FigureDifference]
    provider_models: list[str]
    is_routed: bool = True
    reasons: list[str] = field(default_factory=list)

    def is_within(self, tolerance: Decimal) -> bool:
        return all(figure.is_within(tolerance) for figure in self.figures.values())


@dataclass
class Reconciliation:
    """`cells` are sorted by day and model; `tolerance` is a part, such as 0.01."""

    upstream: str
    export: str
    tolerance: Decimal
    cells: list[ReconciledCell]
    notes: list[str]

    @property
    def is_within(self) -> bool:
        return all(cell.is_within(self.tolerance) for cell in self.cells)

    @property
    def total(self) -> dict[str, FigureDifference]:
        sums: dict[str, FigureDifference] = {}
        for cell in self.cells:
            for name, figure in cell.figures.items():
                sums[name] = sums.get(name, FigureDifference(_ZERO, _ZERO)).plus(figure)
        return {name: sums[name] for name in FIGURES if name in sums}

    def as_json(self) -> dict[str, Any]:
        cells = [
            {
                "day": cell.day,
                "model": cell.model,
                "provider_models": cell.provider_models,
                "within": cell.is_within(self.tolerance),
                "figures": _figures_json(cell.figures),
                "reasons": cell.reasons,
            }
            for cell in self.cells
        ]
        return {
            "upstream": self.upstream,
            "export": self.export,
            "tolerance_percent": float(self.tolerance * 100),
            "within": self.is_within,
            "cells": cells,
            "total": _figures_json(self.total),
            "notes": self.notes,
        }


class _LedgerFigures:
    """The ledger's rows of one upstream, summed by day and group of models."""

    def __init__(self, report: Row, upstream: str, groups: Sequence[ModelGroup]) -> None:
        rows: list[Row] = report["rows"]
        self.knows_upstreams = all(row.get("upstream") for row in rows)
        self.figures = frozenset(FIGURES) & frozenset(report["total"])
        self._days: dict[str, dict[str, dict[str, Decimal]]] = {}
        titles = {model: group.title for group in groups for model in group.models}
        for row in rows:
            if row["model"] in titles and (row.get("upstream") or upstream) == upstream:
                for title in (titles[row["model"]], ALL_MODELS):
                    self._add(row["day"], title, row)

    def of(self, day: str, title: str) -> Mapping[str, Decimal]:
        return self._days.get(day, {}).get(title, {})

    def titles(self, day: str) -> list[str]:
        """The use of this day."""
        return [title for title in self._days.get(day, ()) if title != ALL_MODELS]

    def _add(self, day: str, title: str, row: Row) -> None:
        sums = self._days.setdefault(day, {}).setdefault(title, {})
        for name in (*self.figures, "estimated_tokens"):
            # Through text, so that 0.1 dollars are a tenth.
            sums[name] = sums.get(name, _ZERO) + Decimal(str(row.get(name, 0)))


def ledger_query(export: UsageExport, groups: Sequence[str]) -> dict[str, str]:
    """The query for the usage report; `groups` are those that it supports."""
    by = [name for name in ("day", "model", "upstream") if name in groups]
    until = max(export.days) + timedelta(days=1)
    return {"by": ",".join(by), "since": min(export.days).isoformat(), "until": until.isoformat()}


def reconcile(
    settings: Settings, upstream: str, export: UsageExport, report: Row, *, tolerance: Decimal, today: date
) -> Reconciliation:
    """`report` is the usage report of `ledger_query`, `today` the day in UTC."""
    groups = model_groups(settings, upstream)
    ledger = _LedgerFigures(report, upstream, groups)
    cells = list(_cells(export, ledger, groups) if export.names_models else _cells_of_all(export, ledger))
    shared = _shared_models(settings, upstream) if not ledger.knows_upstreams else frozenset()
    why = _Reasons(upstream, export, ledger, shared, str(settings.timezone), today)
    for cell in cells:
        if not cell.is_within(tolerance):
            cell.reasons = list(why.of(cell))
    return Reconciliation(upstream, export.title, tolerance, cells, list(why.of_file()))


def model_groups(settings: Settings, upstream: str) -> list[ModelGroup]:
    """Groups of models that belong together, because their routes to this upstream lead from or to the same name."""
    groups: list[ModelGroup] = []
    for name, model in settings.models.items():
        for route in model.routes:
            if route.upstream == upstream:
                joined = ModelGroup(frozenset([name]), frozenset([route.model or name]))
                for group in [each for each in groups if each.shares_with(joined)]:
                    groups.remove(group)
                    joined = ModelGroup(joined.models | group.models, joined.route_models | group.route_models)
                groups.append(joined)
    return groups


def group_of(name: str, groups: Iterable[ModelGroup]) -> ModelGroup | None:
    """The group that an export means by this name of a model; None if it is not certain."""
    asked, base = _canonical(name), _without_version(name)
    named = [(group, _canonical(route_model)) for group in groups for route_model in group.route_models]
    for matching in (
        [group for group, route in named if route == asked],
        [group for group, route in named if route in (base, f"{base}-latest")],
        [group for group, route in named if asked == base == _without_version(route)],
    ):
        if matching:
            return matching[0] if all(group == matching[0] for group in matching) else None
    return None


def _canonical(name: str) -> str:
    """`Claude Haiku 4.5` of a Console is `claude-haiku-4-5` of the API."""
    return re.sub(r"[ ._]", "-", name.strip().lower())


def _without_version(name: str) -> str:
    return _VERSION.sub("", _canonical(name))


def _cells(export: UsageExport, ledger: _LedgerFigures, groups: Sequence[ModelGroup]) -> Iterator[ReconciledCell]:
    """Each day is looked up, and each name is matched once: a year of a hundred models has 36,500 cells."""
    by_day: dict[date, dict[str, ExportCell]] = {}
    for (day, model), cell in sorted(export.cells.items()):
        by_day.setdefault(day, {})[model] = cell
    named = {model: group_of(model, groups) for model in {model for _, model in export.cells} if model}
    figures = export.figures
    for day in export.span:
        yield from _cells_of(day, by_day.get(day, {}), named, figures, ledger)


def _cells_of(
    day: date,
    used: Mapping[str, ExportCell],
    named: Mapping[str, ModelGroup | None],
    figures: frozenset[str],
    ledger: _LedgerFigures,
) -> Iterator[ReconciledCell]:
    """The cells of a day. `used` is what the export has of it, by the provider's names of models; `figures` are those
    of the whole export."""
    provider: dict[str, ExportCell] = {}
    names: dict[str, list[str]] = {}
    unrouted: set[str] = set()
    for model, cell in used.items():
        group = named.get(model)
        title = group.title if group else model or NO_MODEL
        if group is None:
            unrouted.add(title)
        provider.setdefault(title, ExportCell()).add(cell.figures, cell.rounding)
        names.setdefault(title, []).extend([model] if model else [])
    for title in sorted({*provider, *ledger.titles(day.isoformat())}):
        found = _cell(day, title, provider.get(title), figures, ledger)
        yield replace(found, provider_models=names.get(title, []), is_routed=title not in unrouted)


def _cells_of_all(export: UsageExport, ledger: _LedgerFigures) -> Iterator[ReconciledCell]:
    """The group for an export that names no models."""
    figures = export.figures
    for day in export.span:
        cell = export.cells.get((day, ""))
        if cell is not None or ledger.titles(day.isoformat()):
            yield _cell(day, ALL_MODELS, cell, figures, ledger)


def _cell(
    day: date, title: str, cell: ExportCell | None, figures: frozenset[str], ledger: _LedgerFigures
) -> ReconciledCell:
    provider = cell.figures if cell is not None else dict.fromkeys(figures, _ZERO)
    rounding = cell.rounding if cell is not None else _ZERO
    ours = ledger.of(day.isoformat(), title)
    compared = {
        name: FigureDifference(ours.get(name, _ZERO), provider[name], rounding if name == "usd" else _ZERO)
        for name in FIGURES
        if name in provider and name in ledger.figures
    }
    return ReconciledCell(day.isoformat(), title, compared, [])


def _shared_models(settings: Settings, upstream: str) -> frozenset[str]:
    """Titles of models that also have routes to other upstreams."""
    return frozenset(
        group.title
        for group in model_groups(settings, upstream)
        if any(route.upstream != upstream for name in group.models for route in settings.models[name].routes)
    )


class _Reasons:
    """Why a cell may differ, the likeliest first."""

    def __init__(
        self,
        upstream: str,
        export: UsageExport,
        ledger: _LedgerFigures,
        shared: frozenset[str],
        timezone: str,
        today: date,
    ) -> None:
        self._upstream = upstream
        self._export = export
        self._ledger = ledger
        self._shared = shared
        self._timezone = timezone
        self._today = today

    def of_file(self) -> Iterator[str]:
        if not self._export.is_complete:
            yield "The file is not complete: its last page says that there are more (`has_more`). Export all pages."

    def of(self, cell: ReconciledCell) -> Iterator[str]:
        if cell.model == NO_MODEL:
            yield "costs that name no model: tools such as web search or code execution, storage, credits"
            return
        yield from self._of_models(cell)
        yield from self._of_days(cell)
        counts = [figure.difference for name, figure in cell.figures.items() if name != "usd"]
        differences = counts or [figure.difference for figure in cell.figures.values()]
        if any(difference < 0 for difference in differences):
            yield "traffic that bypasses the gateway, or a provider's key that others use, too"
            yield "attempts that the gateway retried: the provider bills each, the ledger has one request"
        if any(difference > 0 for difference in differences):
            yield "an export of some projects, workspaces or keys only, or requests that the provider did not bill"
        if "usd" in cell.figures and not any(counts):
            yield "another price than the provider's: see `gateway prices diff`; or discounts, credits, tools, batches"

    def _of_models(self, cell: ReconciledCell) -> Iterator[str]:
        if not cell.is_routed:
            yield f"no route to {self._upstream} leads to this model"
        if len(cell.provider_models) > 1:
            yield f"{', '.join(cell.provider_models)} are counted as one model"
        if cell.model in self._shared:
            yield "the model has routes to other upstreams, too, and not all of the ledger's rows tell which one served"
        estimated = self._ledger.of(cell.day, cell.model).get("estimated_tokens", _ZERO)
        if estimated:
            yield f"{estimated:,} tokens of the ledger are estimated, since the upstream did not report them"

    def _of_days(self, cell: ReconciledCell) -> Iterator[str]:
        if self._timezone != "UTC":
            yield f"days of the ledger begin in {self._timezone}, those of the provider in UTC"
        if cell.day >= (self._today - timedelta(days=1)).isoformat():
            yield "the day was not over, or the provider's figures were not final, when the file was exported"


def _figures_json(figures: Mapping[str, FigureDifference]) -> dict[str, Any]:
    return {
        name: {
            "ledger": _number(figure.ledger),
            "provider": _number(figure.provider),
            "difference": _number(figure.difference),
            "difference_percent": None if figure.percent is None else float(round(figure.percent, 4)),
        }
        for name, figure in figures.items()
    }


def _number(amount: Decimal) -> int | float:
    return int(amount) if amount % 1 == 0 else float(amount)
