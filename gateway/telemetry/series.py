"""Numbers that grow while requests pass: counters, gauges and histograms by label values.

Plain dictionaries for one thread, the event loop's: an increment costs a fraction of a microsecond.
metrics.py names them; exposition.py writes them out.
"""

from __future__ import annotations

from bisect import bisect_left

Labels = tuple[str, ...]


class Counter:
    """Only grows. Amounts are whole numbers, so that sums stay exact; `divisor` makes the unit shown."""

    __slots__ = ("about", "divisor", "labels", "name", "values")
    kind = "counter"

    def __init__(self, name: str, about: str, labels: Labels = (), divisor: int = 1) -> None:
        self.name, self.about, self.labels, self.divisor = name, about, labels, divisor
        self.values: dict[Labels, int] = {}

    def add(self, labels: Labels, amount: int = 1) -> None:
        values = self.values
        values[labels] = values.get(labels, 0) + amount


class Gauge:
    """Goes up and down."""

    __slots__ = ("about", "labels", "name", "values")
    kind = "gauge"

    def __init__(self, name: str, about: str, labels: Labels = ()) -> None:
        self.name, self.about, self.labels = name, about, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def set(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = value

    def inc(self) -> None:
        self.values[()] += 1

    def dec(self) -> None:
        self.values[()] -= 1


class Cell:
    """One histogram's observations for one set of label values; the last count is what is above every bound."""

    __slots__ = ("counts", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.total = 0.0


class Histogram:
    """Counts observations by upper bounds, which are inclusive and ascending."""

    __slots__ = ("about", "bounds", "cells", "labels", "name")
    kind = "histogram"

    def __init__(self, name: str, about: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        self.name, self.about, self.labels, self.bounds = name, about, labels, bounds
        self.cells: dict[Labels, Cell] = {}

    def observe(self, labels: Labels, value: float) -> None:
        cell = self.cells.get(labels)
        if cell is None:
            cell = self.cells[labels] = Cell(len(self.bounds))
        cell.counts[bisect_left(self.bounds, value)] += 1
        cell.total += value
