"""The measured figures are the same on each page that repeats them."""

from __future__ import annotations

import re

from tests.house.tree import ROOT


def test_the_readme_repeats_what_was_measured() -> None:
    memory = f"{_measured('memory, idle')[2]}; {_measured('memory for an open stream')[2]}"
    figures = {
        "added latency at one connection, p50": _measured("latency at 1 connection, p50")[4],
        "plain answers at 64 connections": _measured("plain answers at 64 connections")[2],
        "events relayed at 500 streams": _measured("events relayed at 500 streams")[2],
        "memory, idle; for each open stream": memory,
    }
    assert {name: _row("README.md", name)[1] for name in figures} == figures


def test_sizes_are_computed_from_what_was_measured() -> None:
    answer_ms = _number(_measured("CPU for a plain answer")[2]) / 1000
    costs = {
        "a plain answer": f"{answer_ms:.2f} ms of a core",
        "an event of a stream": f"{_measured('CPU for an event at 500 streams')[2]} of a core",
        "an open stream": _measured("memory for an open stream")[2],
        "an idle process": f"{_number(_measured('memory, idle')[2]):.0f} MiB",
        "a request in Redis, with four limits": f"{_in_redis(4)} µs of a core",
        "a request in Redis, with sixteen limits": f"{_in_redis(16)} µs of a core",
    }
    assert {unit: _row("docs/sizing.md", unit)[1] for unit in costs} == costs


def test_every_aim_that_the_measurement_misses_is_told_with_what_was_reached() -> None:
    missed = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").partition("## What is missed")[2]
    reached = [cells[4] or cells[2] for cells in _rows("docs/performance.md") if cells[-1] == "no"]
    assert reached
    assert [figure for figure in reached if f"| {figure.removesuffix(' /s')} |" not in missed] == []


def _in_redis(limits: int) -> int:
    """Microseconds of Redis for a request: its admission and its settlement, with one key."""
    row = next(cells for cells in _rows("docs/performance.md") if cells[:2] == [str(limits), "1"])
    return round(sum(_number(cell) for cell in row[4:6]))


def _measured(figure: str) -> list[str]:
    return _row("docs/performance.md", figure)


def _number(cell: str) -> float:
    found = re.match(r"[\d.,]+", cell)
    assert found is not None, cell
    return float(found[0].replace(",", ""))


def _row(page: str, first: str) -> list[str]:
    return next(cells for cells in _rows(page) if cells[0] == first)


def _rows(page: str) -> list[list[str]]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
