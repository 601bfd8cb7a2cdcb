"""What reading commands print: tables for people, JSON for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import click

Row = Sequence[str | int | float]

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, the same that the admin API gives.")

csv_option = click.option("--csv", "as_csv", is_flag=True, help="As CSV, for spreadsheets.")

_FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets compute (OWASP, CSV Injection)."""


def show_csv(headings: Sequence[str], rows: Iterable[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([as_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def as_text(name: str) -> str:
    """Clients choose some names: no spreadsheet may take one for a formula."""
    return f"'{name}" if name.startswith(_FORMULA_MARKS) else name


def show_json(report: Mapping[str, Any]) -> None:
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))


def table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    """One line a row below its headings. Numbers are right-aligned, with their digits grouped."""
    shown = [headings, *([figure(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip_longest(*shown, fillvalue="")]
    right = [any(isinstance(row[place], int | float) for row in rows) for place in range(len(headings))]
    return "\n".join(_line(cells, widths, right) for cells in shown)


def figure(cell: str | int | float) -> str:
    """Whole numbers as 1,234,567, others with what they have of six decimals. What clients chose may have characters
    that a terminal obeys: they are spelled out."""
    if isinstance(cell, str):
        return cell if cell.isprintable() else "".join(map(_printable, cell))
    text = f"{cell:,}" if isinstance(cell, int) else f"{cell:,.6f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    places = zip(cells, widths, right, strict=True)
    return "  ".join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in places).rstrip()
