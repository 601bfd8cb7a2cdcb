"""Tables for people: columns in line, figures to the right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

Row = Sequence[str | int | float]


def table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    """One line a row below its headings. Numbers stand to the right, with their digits grouped."""
    shown = [headings, *([figure(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip_longest(*shown, fillvalue="")]
    right = [any(isinstance(row[place], int | float) for row in rows) for place in range(len(headings))]
    return "\n".join(_line(cells, widths, right) for cells in shown)


def figure(cell: str | int | float) -> str:
    """Whole numbers as 1,234,567, others with what they have of six decimals."""
    if isinstance(cell, str):
        return cell
    text = f"{cell:,}" if isinstance(cell, int) else f"{cell:,.6f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    places = zip(cells, widths, right, strict=True)
    return "  ".join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in places).rstrip()
