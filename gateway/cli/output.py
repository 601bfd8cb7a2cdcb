"""What reading commands print, tables for people and JSON for programs, and the options that several of them have."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import click

Row = Sequence[str | int | float]

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, the same that the admin API gives.")

own_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")
"""Of a command whose answer the admin API does not have."""

team_option = click.option("--team", metavar="TEAM", help="Only this team.")

csv_option = click.option("--csv", "as_csv", is_flag=True, help="As CSV, for spreadsheets.")

_GAP = "  "

WHOLE = 1_000_000
"""Columns of a table that is not to be shortened."""

_WHOLE_TEXT = 24
"""Characters of an id of a request, and of a time."""

_FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a cell begins with that spreadsheets compute (OWASP, CSV Injection); the last four are full-width signs."""


def refuse_both(*, as_csv: bool, as_json: bool) -> None:
    if as_csv and as_json:
        raise click.UsageError("--csv and --json cannot be combined.")


def show_listing(
    report: Mapping[str, Any], headings: Sequence[str], rows: Sequence[Row], *, as_csv: bool, as_json: bool, empty: str
) -> None:
    """A list as it was asked for; `empty` is what people read where there is nothing in it."""
    if as_json:
        show_json(report)
    elif as_csv:
        show_csv(headings, rows)
    else:
        click.echo(table(headings, rows) if rows else empty)


def show_csv(headings: Sequence[str], rows: Iterable[Row]) -> None:
    writer = csv.writer(_UnixLines())
    writer.writerow(headings)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)


def _csv_cell(cell: Any) -> Any:
    """A figure in digits alone: Python writes 0.000027 as 2.7e-05, which many readers of CSV take for text."""
    if isinstance(cell, str):
        return as_text(cell)
    return f"{Decimal(repr(cell)):f}" if isinstance(cell, float) else cell


class _UnixLines:
    """Writes the lines of `csv` to the standard output. A writer with these line ends would not quote a carriage
    return, which many readers take for one: what follows it would begin a cell."""

    def write(self, line: str) -> None:
        sys.stdout.write(line.removesuffix("\r\n") + "\n")


def show_csv_objects(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A column for each of these members."""
    show_csv(columns, ([row[name] for name in columns] for row in rows))


def as_text(name: str) -> str:
    """Clients choose some names: no spreadsheet may take one for a formula."""
    return f"'{name}" if name.startswith(_FORMULA_MARKS) else name


def show_json(report: Mapping[str, Any]) -> None:
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))


def table(headings: Sequence[str], rows: Sequence[Row], columns: int | None = None) -> str:
    """One line a row below its headings. Numbers are right-aligned, with their digits grouped. Where `columns` (left
    out: those of the terminal, if there is one) do not suffice, the longest texts are shortened."""
    shown = [headings, *([figure(cell) for cell in row] for row in rows)]
    right = [any(isinstance(row[place], int | float) for row in rows) for place in range(len(headings))]
    widths = [max(map(_width, column)) for column in zip_longest(*shown, fillvalue="")]
    room = columns or (shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    if room is not None:
        _narrow(widths, right, room)
    return "\n".join(_line(cells, widths, right) for cells in shown)


def _narrow(widths: list[int], right: Sequence[bool], room: int) -> None:
    """Numbers, and texts as long as an id or a time, stay whole."""
    texts = [place for place, is_right in enumerate(right) if not is_right]
    while texts and sum(widths) + len(_GAP) * (len(widths) - 1) > room:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= _WHOLE_TEXT:
            return
        widths[widest] -= 1


def _width(text: str) -> int:
    """Columns of a terminal (Unicode Standard Annex 11)."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def figure(cell: str | int | float) -> str:
    """Whole numbers as 1,234,567, others with what they have of six decimals. What clients chose may have characters
    that a terminal obeys: they are spelled out."""
    if isinstance(cell, str):
        return cell if cell.isprintable() else "".join(map(_printable, cell))
    text = f"{cell:,}" if isinstance(cell, int) else f"{cell:,.6f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def time_cell(written: str | None) -> str:
    """A time of the admin API (RFC 3339), or nothing, as people read it."""
    return (written or "").replace("T", " ")


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    places = zip(cells, widths, right, strict=True)
    return _GAP.join(_padded(cell, width, is_right=is_right) for cell, width, is_right in places).rstrip()


def _padded(cell: str, width: int, *, is_right: bool) -> str:
    cell = _shortened(cell, width) if _width(cell) > width else cell
    blanks = " " * (width - _width(cell))
    return blanks + cell if is_right else cell + blanks


def _shortened(text: str, width: int) -> str:
    room = width - 1
    for place, character in enumerate(text):
        room -= _character_width(character)
        if room < 0:
            return text[:place] + "…"
    return text
