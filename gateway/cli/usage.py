"""`gateway usage`: who used how much of what, from the ledger."""

from __future__ import annotations

import csv
import sys
from typing import Any

import click

from gateway.cli.configuration import config_option
from gateway.cli.output import Row, json_option, show_json, table
from gateway.cli.reports import report_or_end

_HEADINGS = {
    "requests": "requests",
    "input_tokens": "input",
    "cached_input_tokens": "cached",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
    "estimated_tokens": "estimated",
    "usd": "USD",
}
"""The figures of a row by their names in JSON, and what people read."""


@click.command(epilog="Example: gateway usage --since 2026-11-01 --by day,model --team search")
@config_option
@click.option("--team", metavar="TEAM", help="Of this team alone.")
@click.option("--key", metavar="ID", help="Of this key alone.")
@click.option("--model", metavar="MODEL", help="Of this model alone.")
@click.option("--since", metavar="DAY", help="From this day on, such as 2026-11-01.")
@click.option("--until", metavar="DAY", help="Up to this day, which is left out.")
@click.option("--by", default="team,model", show_default=True, help="A row for each: any of day, team, key, model.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, for spreadsheets.")
@json_option
def usage(config: str, as_csv: bool, as_json: bool, **query: str | None) -> None:
    """Show tokens, requests and cost from the ledger.

    Cached tokens are a part of the input, reasoning of the output; estimated are those of both that no
    model server reported. Days begin in the configuration's time zone.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude one another.")
    report = report_or_end("usage", config, query)
    groups = [name for name in (query["by"] or "").split(",") if name]
    if as_json:
        show_json(report)
    elif as_csv:
        _show_csv(report, groups)
    else:
        _show_table(report, groups)


def _show_csv(report: dict[str, Any], groups: list[str]) -> None:
    writer = csv.DictWriter(sys.stdout, [*groups, *_HEADINGS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(report["rows"])


def _show_table(report: dict[str, Any], groups: list[str]) -> None:
    if not report["rows"]:
        click.echo("Nothing was used.")
        return
    rows = [_row(row, groups) for row in report["rows"]] if groups else []
    total = ["total", *[""] * (len(groups) - 1), *_figures(report["total"])] if groups else _figures(report["total"])
    click.echo(table([*groups, *_HEADINGS.values()], [*rows, total]))


def _row(row: dict[str, Any], groups: list[str]) -> Row:
    return [*(row[name] for name in groups), *_figures(row)]


def _figures(row: dict[str, Any]) -> list[int | float]:
    return [row[name] for name in _HEADINGS]
