"""A picture of a dashboard, for the docs: its panels where Grafana puts them, with data that Prometheus gave.

Reads a JSON object on standard input (`dashboard`: Grafana's JSON; `series`: for each panel's id a list of
[name, [[second, value], ...]]) and writes a PNG. Needs matplotlib: `make pictures` has it.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec

Json = dict[str, Any]
Series = list[tuple[str, list[tuple[float, float]]]]

COLUMNS = 24
INCHES_A_LINE = 0.34
BACK, FRONT, TEXT, QUIET = "#111217", "#181b1f", "#d8d9da", "#8e8e8e"
ROOM_ABOVE = 1.1
CHARACTERS_A_COLUMN, CHARACTERS_BESIDE = 13, 12
"""Of a legend: those that fit into a column of the grid, and the width of a line's sample and figure."""

WHOLE_FROM = 1000
NOTHING = 1e-9
"""What is left where sums of rates that are equal are subtracted."""

COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a", "#96d98d", "#ffa6b0")


def draw(dashboard: Json, series: dict[str, Series], file: str) -> None:
    panels = dashboard["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(16, 0.6 + lines * INCHES_A_LINE), facecolor=BACK)
    figure.suptitle(dashboard["title"], color=TEXT, fontsize=15, x=0.01, y=0.995, ha="left", va="top")
    grid = GridSpec(lines * 4, COLUMNS * 4, figure, left=0.01, right=0.99, top=0.97, bottom=0.01, wspace=0, hspace=0)
    for panel in panels:
        place = panel["gridPos"]
        below = {"timeseries": 6, "row": 0}.get(panel["type"], 1)
        rows = slice(place["y"] * 4 + 3, (place["y"] + place["h"]) * 4 - below)
        columns = slice(place["x"] * 4 + 1, (place["x"] + place["w"]) * 4 - 1)
        axes = figure.add_subplot(grid[rows, columns])
        _PAINTERS[panel["type"]](axes, panel, series.get(str(panel["id"]), []))
    figure.savefig(file, dpi=80, facecolor=BACK)


def _row(axes: Axes, panel: Json, _series: Series) -> None:
    axes.axis("off")
    axes.text(0, 0.5, f"\N{BLACK DOWN-POINTING SMALL TRIANGLE} {panel['title']}", color=TEXT, fontsize=11, va="center")


def _stat(axes: Axes, panel: Json, series: Series) -> None:
    _frame(axes, panel)
    values = [value for _, points in series for _, value in points]
    axes.fill_between(range(len(values)), values, color=COLOURS[0], alpha=0.15)
    axes.set_ylim(bottom=0, top=(max(values, default=0) or 1) * 2.2)
    shown = _shown(values[-1], _unit(panel)) if values else "no data"
    colour = _colour(panel, values[-1] if values else 0.0)
    axes.text(0.5, 0.45, shown, color=colour, fontsize=19, ha="center", va="center", transform=axes.transAxes)


def _lines(axes: Axes, panel: Json, series: Series) -> None:
    _frame(axes, panel)
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    beneath: dict[float, float] = {}
    for number, (name, points) in enumerate(sorted(series)):
        colour = COLOURS[number % len(COLOURS)]
        seconds = [second for second, _ in points]
        low = [beneath.get(second, 0.0) if stacked else 0.0 for second in seconds]
        high = [bottom + value for bottom, (_, value) in zip(low, points, strict=True)]
        axes.plot(seconds, high, color=colour, linewidth=1, label=f"{name}  {_shown(points[-1][1], _unit(panel))}")
        if stacked:
            axes.fill_between(seconds, low, high, color=colour, alpha=0.3, linewidth=0)
            beneath |= dict(zip(seconds, high, strict=True))
    axes.set_ylim(bottom=0, top=ROOM_ABOVE * _highest(axes) or 1)
    axes.yaxis.set_major_formatter(lambda value, _: _shown(value, _unit(panel)))
    axes.tick_params(labelsize=6.5, labelbottom=False, colors=QUIET, length=0, pad=-2)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    axes.grid(color="#2c2f35", linewidth=0.5)
    if series:
        _legend(axes, panel["gridPos"]["w"], max(len(name) for name, _ in series))


def _legend(axes: Axes, width: int, longest_name: int) -> None:
    columns = min(6, max(1, width * CHARACTERS_A_COLUMN // (longest_name + CHARACTERS_BESIDE)))
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    axes.legend(fontsize=6, ncols=columns, frameon=False, labelcolor=TEXT, **place)


def _highest(axes: Axes) -> float:
    return max((float(max(line.get_ydata())) for line in axes.lines if len(line.get_ydata())), default=0.0)


def _bars(axes: Axes, panel: Json, series: Series) -> None:
    _frame(axes, panel)
    most = panel["fieldConfig"]["defaults"].get("max", 1)
    for number, (name, points) in enumerate(sorted(series)):
        value = points[-1][1]
        axes.barh(number, most, color="#2c2f35", height=0.5)
        axes.barh(number, min(value, most), color=_colour(panel, value), height=0.5)
        axes.text(0, number + 0.42, f"{name}  {_shown(value, _unit(panel))}", color=TEXT, fontsize=7, va="center")
    axes.set_xlim(0, most)
    axes.set_ylim(-0.6, max(len(series), 3))


def _table(axes: Axes, panel: Json, series: Series) -> None:
    _frame(axes, panel)
    rows = sorted(((name, points[-1][1]) for name, points in series), key=lambda row: -row[1])
    for number, (name, value) in enumerate(rows[:10]):
        height = 0.84 - number * 0.09
        axes.text(0.02, height, name, color=TEXT, fontsize=8, transform=axes.transAxes)
        axes.text(
            0.98, height, _shown(value, _unit(panel)), color=TEXT, fontsize=8, ha="right", transform=axes.transAxes
        )


def _frame(axes: Axes, panel: Json) -> None:
    axes.set_facecolor(FRONT)
    axes.set_title(panel["title"], color=TEXT, fontsize=8.5, loc="left", pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#2c2f35")
    if panel["type"] == "timeseries":
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))


def _unit(panel: Json) -> str:
    return str(panel["fieldConfig"]["defaults"]["unit"])


def _colour(panel: Json, value: float) -> str:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    named = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    return {"green": COLOURS[0], "orange": COLOURS[3], "red": COLOURS[4]}[named]


def _shown(value: float, unit: str) -> str:
    value = 0.0 if abs(value) < NOTHING else value
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 7200 else f"{value / 3600:.3g} h"
    if unit == "currencyUSD":
        return f"${value:.3g}"
    if unit == "dateTimeAsIso":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%H:%M:%S")
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    number = f"{value:,.0f}" if abs(value) >= WHOLE_FROM else f"{value:,.3g}"
    return number + {"reqps": " req/s", "cps": " /s"}.get(unit, "")


_PAINTERS = {"row": _row, "stat": _stat, "timeseries": _lines, "bargauge": _bars, "table": _table}

if __name__ == "__main__":
    given = json.load(sys.stdin)
    draw(given["dashboard"], given["series"], sys.argv[1])
