"""`gateway prices`: compares the configured prices with those of a maintained catalogue."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from gateway.cli.config_option import config_option
from gateway.cli.configuration import load_or_end
from gateway.cli.output import csv_option, own_json_option, refuse_both, show_csv_objects, show_json, table
from gateway.finance.price_catalogue import CatalogueMissing, load_catalogue
from gateway.finance.price_comparison import DIFFERENT, FILE_HEADER, PriceRow, compare, prices_file

_HEADINGS = ("model", "route", "catalogue", "price", "configured", "in catalogue", "difference %", "status")
_COLUMNS = (
    *("model", "upstream", "route_model", "entry", "field", "status"),
    *("configured", "catalogue", "difference_percent", "written", "reason"),
)


@click.command(epilog="Example: gateway prices diff -c config/gateway.yaml")
@click.argument("action", required=False, type=click.Choice(["diff", "update"]))
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@config_option
@csv_option
@own_json_option
def prices(config: str, action: str | None, file: str | None, as_csv: bool, as_json: bool) -> None:
    """Compare the configured prices with a catalogue.

    \b
    gateway prices                every price of every model
    gateway prices diff           those off by over 1 %; exit status 1 if any
    gateway prices update [FILE]  the catalogue's prices, as YAML to paste

    The catalogue is the package genai-prices: pip install genai-prices. A newer one comes with
    pip install -U genai-prices. A running gateway never reads it.
    """
    if file and action != "update":
        raise click.UsageError("FILE belongs to `gateway prices update`.")
    if (as_csv or as_json) and action == "update":
        raise click.UsageError("`gateway prices update` writes YAML.")
    refuse_both(as_csv=as_csv, as_json=as_json)
    settings = load_or_end(config).settings
    try:
        catalogue = load_catalogue(datetime.now(UTC))
    except CatalogueMissing as missing:
        raise click.ClickException(str(missing)) from None
    if action == "update":
        _write(prices_file(settings, catalogue), file)
        return
    rows = compare(settings, catalogue)
    if action == "diff":
        rows = [row for row in rows if row.status in DIFFERENT]
    if as_json:
        show_json({"catalogue": catalogue.title, "rows": [row.as_json() for row in rows]})
    elif as_csv:
        show_csv_objects(_COLUMNS, (row.as_json() for row in rows))
    else:
        click.echo(table(_HEADINGS, [_cells(row) for row in rows]) if rows else "No price differs by more than 1 %.")
    if action == "diff" and rows:
        sys.exit(1)


def _write(text: str, file: str | None) -> None:
    if file is None or file == "-":
        click.echo(text, nl=False)
        return
    path = Path(file)
    try:
        # What a person wrote by hand, such as the configuration, is never replaced.
        if path.exists() and not path.read_bytes().startswith(FILE_HEADER.encode()):
            raise click.ClickException(f"{file} is not a file of `gateway prices update`. Name another file.")
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror or error}.") from None


def _cells(row: PriceRow) -> Sequence[str | float]:
    figures = ["" if figure is None else float(figure) for figure in (row.configured, row.catalogue)]
    difference = "" if row.difference is None else float(round(row.difference, 1))
    status = f"{row.status}: {row.reason}" if row.reason else str(row.status)
    return [row.model, f"{row.upstream}: {row.route_model}", row.entry, row.field, *figures, difference, status]
