"""`gateway reconcile`: compares the ledger with a provider's usage export."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.cli.config_option import EXIT_INVALID, config_option
from gateway.cli.configuration import load_or_end
from gateway.cli.output import Row, csv_option, own_json_option, refuse_both, show_csv_objects, show_json, table
from gateway.cli.reports import report_or_end
from gateway.finance.export_formats import ExportBroken
from gateway.finance.reconcile import FigureDifference, ReconciledCell, Reconciliation, ledger_query
from gateway.finance.reconcile import reconcile as compare
from gateway.finance.usage_export import UsageExport, read_export
from gateway.settings.models import Settings
from gateway.store.ledger import GROUPS

_HEADINGS = ("day", "model", "figure", "ledger", "provider", "difference", "%")
_COLUMNS = (
    *("day", "model", "provider_models", "figure", "ledger", "provider", "difference", "difference_percent"),
    *("within", "reasons"),
)


def _finite(_context: click.Context, _parameter: click.Parameter, percent: float) -> float:
    """Not a number is within every range."""
    if math.isnan(percent):
        raise click.BadParameter("it must be a number of percent from 0 to 100.")
    return percent


@click.command(epilog="Example: gateway reconcile --upstream openai completions_usage.csv")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@config_option
@click.option("--upstream", required=True, metavar="NAME", help="Whose export it is, by its name in the configuration.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    metavar="PERCENT",
    callback=_finite,
    help="Differences up to this part of the provider's figure are within.",
)
@click.option("--all", "show_all", is_flag=True, help="Show what is within the tolerance, too.")
@csv_option
@own_json_option
def reconcile(
    file: str, config: str, upstream: str, tolerance: float, show_all: bool, as_csv: bool, as_json: bool
) -> None:
    """Compare the ledger with a provider's usage export.

    Both are compared by day and model. FILE is what OpenAI's or Anthropic's usage or cost API answers (JSON), or
    what their dashboards export (CSV); - is standard input. Exit status 0: everything is within the tolerance; 1:
    something is not; 2: the file or the configuration cannot be used.
    """
    refuse_both(as_csv=as_csv, as_json=as_json)
    settings = load_or_end(config).settings
    if upstream not in settings.upstreams:
        known = ", ".join(sorted(settings.upstreams))
        raise click.UsageError(f"There is no upstream {upstream!r} in {config}; there are {known}.")
    result = _reconciled(settings, upstream, _read(file), Decimal(str(tolerance)) / 100)
    if as_json:
        show_json(result.as_json())
    elif as_csv:
        show_csv_objects(_COLUMNS, _csv_rows(result))
    else:
        _show(result, show_all)
    sys.exit(0 if result.is_within else 1)


def _reconciled(settings: Settings, upstream: str, export: UsageExport, tolerance: Decimal) -> Reconciliation:
    report = report_or_end("usage", settings, ledger_query(export, GROUPS))
    today = datetime.now(UTC).date()
    return compare(settings, upstream, export, report, tolerance=tolerance, today=today)


def _read(file: str) -> UsageExport:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return read_export(content.decode("utf-8"))
    except ExportBroken as broken:
        _end(f"{file}: {broken}.")
    except UnicodeDecodeError:
        _end(f"{file}: it is not UTF-8 text.")
    except OSError as error:
        _end(f"{file} cannot be read: {error.strerror or error}.")


def _end(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(EXIT_INVALID)


def _show(result: Reconciliation, show_all: bool) -> None:
    differing = [cell for cell in result.cells if not cell.is_within(result.tolerance)]
    rows = [row for cell in (result.cells if show_all else differing) for row in _rows(cell, result, show_all)]
    total = [["total", "", name, *_cells(figure)] for name, figure in result.total.items()]
    click.echo(f"{result.export}, upstream {result.upstream}")
    click.echo(table(_HEADINGS, [*rows, *total]))
    for cell in differing:
        click.echo(f"\n{cell.day} {cell.model} may differ because of:")
        for reason in cell.reasons:
            click.echo(f"  - {reason}")
    for note in result.notes:
        click.echo(f"\n{note}")
    within = len(result.cells) - len(differing)
    click.echo(f"\n{within} of {len(result.cells)} days and models are within {float(result.tolerance * 100):g} %.")


def _rows(cell: ReconciledCell, result: Reconciliation, show_all: bool) -> Iterator[Row]:
    for name, figure in cell.figures.items():
        if show_all or not figure.is_within(result.tolerance):
            yield [cell.day, cell.model, name, *_cells(figure)]


def _cells(figure: FigureDifference) -> list[str | int | float]:
    percent = "" if figure.percent is None else float(round(figure.percent, 2))
    amounts = (figure.ledger, figure.provider, figure.difference)
    return [*(int(amount) if amount % 1 == 0 else float(amount) for amount in amounts), percent]


def _csv_rows(result: Reconciliation) -> Iterator[dict[str, Any]]:
    for cell in result.as_json()["cells"]:
        shared = {"day": cell["day"], "model": cell["model"], "within": cell["within"]}
        shared |= {name: "; ".join(cell[name]) for name in ("provider_models", "reasons")}
        for name, figure in cell["figures"].items():
            yield {**shared, "figure": name, **figure}
