"""Numbers that grow while requests pass: counters, gauges and histograms by label values.

Plain dictionaries for one thread, the event loop's: an increment costs a fraction of a microsecond.
As structs they also pass between processes, and those of several processes fold into one.
metrics.py names them; exposition.py writes them out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from operator import add
from typing import ClassVar, Literal

import msgspec

Labels = tuple[str, ...]

Fold = Literal["sum", "max", "min"]

_FOLDS: dict[Fold, Callable[[float, float], float]] = {"sum": add, "max": max, "min": min}


class Counter(msgspec.Struct, tag="counter"):
    """Only grows. Amounts are whole numbers, so that sums stay exact; `divisor` makes the unit shown."""

    kind: ClassVar[str] = "counter"

    name: str
    about: str
    labels: Labels = ()
    divisor: int = 1
    values: dict[Labels, int] = {}

    def add(self, labels: Labels, amount: int = 1) -> None:
        values = self.values
        values[labels] = values.get(labels, 0) + amount

    def absorb(self, other: Counter) -> None:
        for labels, amount in other.values.items():
            self.add(labels, amount)


class Gauge(msgspec.Struct, tag="gauge"):
    """Goes up and down. `fold` says what those of several processes are together."""

    kind: ClassVar[str] = "gauge"

    name: str
    about: str
    labels: Labels = ()
    fold: Fold = "sum"
    values: dict[Labels, float] = {}

    def __post_init__(self) -> None:
        if not self.labels and not self.values:
            self.values[()] = 0

    def set(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = value

    def inc(self) -> None:
        self.values[()] += 1

    def dec(self) -> None:
        self.values[()] -= 1

    def absorb(self, other: Gauge) -> None:
        fold = _FOLDS[self.fold]
        for labels, value in other.values.items():
            known = self.values.get(labels)
            self.values[labels] = value if known is None else fold(known, value)


class Cell(msgspec.Struct):
    """One histogram's observations for one set of label values; the last count is what is above every bound."""

    counts: list[int]
    total: float = 0.0


class Histogram(msgspec.Struct, tag="histogram"):
    """Counts observations by upper bounds, which are inclusive and ascending."""

    kind: ClassVar[str] = "histogram"

    name: str
    about: str
    labels: Labels
    bounds: tuple[float, ...]
    cells: dict[Labels, Cell] = {}

    def __post_init__(self) -> None:
        if not self.labels:
            self._cell(())

    def observe(self, labels: Labels, value: float) -> None:
        cell = self._cell(labels)
        cell.counts[bisect_left(self.bounds, value)] += 1
        cell.total += value

    def absorb(self, other: Histogram) -> None:
        for labels, more in other.cells.items():
            cell = self._cell(labels)
            cell.counts = list(map(add, cell.counts, more.counts))
            cell.total += more.total

    def _cell(self, labels: Labels) -> Cell:
        cell = self.cells.get(labels)
        if cell is None:
            cell = self.cells[labels] = Cell([0] * (len(self.bounds) + 1))
        return cell


Series = Counter | Gauge | Histogram
