"""Counters, gauges and histograms by label values.

Plain dictionaries for one thread, the event loop's: an increment costs a fraction of a microsecond. Structs also pass
between processes: `merge` adds the series of one process to those of another.

A label set stays until its process ends, unless it is removed after a reload (`configured_names.py`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import add
from typing import ClassVar, Literal

import msgspec

Labels = tuple[str, ...]

Aggregation = Literal["sum", "max", "min"]

_AGGREGATIONS: dict[Aggregation, Callable[[float, float], float]] = {"sum": add, "max": max, "min": min}


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
        if labels in values:
            values[labels] += amount
        else:
            values[labels] = amount

    def merge(self, other: Counter) -> None:
        values = self.values
        for labels, amount in other.values.items():
            values[labels] = values.get(labels, 0) + amount


class Gauge(msgspec.Struct, tag="gauge"):
    """Goes up and down. `aggregation` says how the values of several processes are combined."""

    kind: ClassVar[str] = "gauge"

    name: str
    about: str
    labels: Labels = ()
    aggregation: Aggregation = "sum"
    values: dict[Labels, float] = {}

    def set(self, value: float, labels: Labels = ()) -> None:
        self.values[labels] = value

    def merge(self, other: Gauge) -> None:
        aggregate = _AGGREGATIONS[self.aggregation]
        for labels, value in other.values.items():
            known = self.values.get(labels)
            self.values[labels] = value if known is None else aggregate(known, value)


class Observations(msgspec.Struct):
    """What a histogram has observed for one label set; the last count is what is above every bound."""

    counts: list[int]
    total: float = 0.0

    def add(self, bounds: tuple[float, ...], value: float) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def add_all(self, bounds: tuple[float, ...], values: Sequence[float]) -> None:
        """The same for several at once. What many requests took falls between few bounds: in ascending order these are
        looked up, and not the bounds of each value."""
        ranked, begin = sorted(values), 0
        while begin < len(ranked):
            place = bisect_left(bounds, ranked[begin])
            end = bisect_right(ranked, bounds[place], begin) if place < len(bounds) else len(ranked)
            self.counts[place] += end - begin
            begin = end
        self.total += sum(values)


class Histogram(msgspec.Struct, tag="histogram"):
    """Counts observations by upper bounds, which are inclusive and ascending."""

    kind: ClassVar[str] = "histogram"

    name: str
    about: str
    labels: Labels
    bounds: tuple[float, ...]
    values: dict[Labels, Observations] = {}

    def __post_init__(self) -> None:
        if not self.labels:
            self.of(())

    def observe(self, labels: Labels, value: float) -> None:
        (self.values.get(labels) or self.of(labels)).add(self.bounds, value)

    def merge(self, other: Histogram) -> None:
        for labels, more in other.values.items():
            observations = self.of(labels)
            observations.counts = list(map(add, observations.counts, more.counts))
            observations.total += more.total

    def of(self, labels: Labels) -> Observations:
        """The observations for this label set, beginning at zero."""
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = Observations([0] * (len(self.bounds) + 1))
        return found


Series = Counter | Gauge | Histogram
