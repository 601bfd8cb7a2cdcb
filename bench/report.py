"""The figures as a table for people, as JSON for programs, and as a section of docs/performance.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.rounds import Results

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
QUIET = 0.05
"""A larger share of the gateway's core taken by others makes the figures doubtful."""

HEADS = ("figure", "direct", "gateway", "ratio", "added", "aim", "reached")


def machine() -> str:
    """What it ran on, in one line."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, uvloop {version('uvloop')}"
    )


def rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    return [
        (
            figure.name,
            _number(figure.direct, figure.unit),
            _number(figure.gateway, figure.unit),
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            _number(figure.added, figure.unit) if figure.unit == "ms" else "",
            _aim(figure),
            {True: "yes", False: "no", None: ""}[figure.reached],
        )
        for figure in figures
    ]


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if unit == "/s" else 2 if unit == "ms" else 1
    return f"{value:,.{digits}f} {unit}"


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    added = " added" if figure.aim.of == "added" else ""
    return f"{figure.aim.relation} {figure.aim.bound:,g} {figure.unit}{added}"


def table(figures: Sequence[Figure]) -> str:
    """In aligned columns, for a terminal."""
    lines = [HEADS, *rows(figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
    return "  ".join([line[0].ljust(len(first)), *rest]).rstrip()


def doubts(results: Results) -> str:
    """What speaks against these figures; empty if nothing does."""
    if results.disturbed <= QUIET:
        return ""
    return f"Other programs took up to {results.disturbed:.0%} of the gateway's core: repeat it on a quiet machine."


def as_json(results: Results, figures: Sequence[Figure]) -> dict[str, Any]:
    shown = [
        asdict(figure) | {"added": figure.added, "ratio": figure.ratio, "reached": figure.reached} for figure in figures
    ]
    return {"machine": machine(), "figures": shown, "measured": asdict(results)}


def markdown(results: Results, figures: Sequence[Figure], command: str) -> str:
    lines = [f"| {' | '.join(line)} |" for line in (HEADS, ("---",) * len(HEADS), *rows(figures))]
    facts = f"Made by `{command}` (rounds: {len(results.plain)}, medians) on: {machine()}."
    doubt = doubts(results)
    return "\n".join([BEGIN, *lines, "", facts, *([doubt] if doubt else []), END])


def write_into(page: Path, section: str, begin: str = BEGIN, end: str = END) -> None:
    """Put the section, which has both marks, in the place of the old one."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(before + section + after, encoding="utf-8")
