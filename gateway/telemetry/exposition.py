"""Series written as Prometheus reads them: the text exposition format, version 0.0.4.

Written here since a scrape holds the event loop, and with it every stream, five times as long when
prometheus_client renders it: docs/decisions/0005-metrics-in-plain-dictionaries.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from gateway.telemetry.series import Counter, Gauge, Histogram, Labels, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(every: Iterable[Series]) -> bytes:
    return "".join(line for series in every for line in _lines(series)).encode()


def _lines(series: Series) -> Iterator[str]:
    yield f"# HELP {series.name} {series.about}\n# TYPE {series.name} {series.kind}\n"
    match series:
        case Counter():
            for labels, amount in series.values.items():
                shown = amount if series.divisor == 1 else amount / series.divisor
                yield f"{series.name}{_braces(series.labels, labels)} {shown}\n"
        case Gauge():
            for labels, value in series.values.items():
                yield f"{series.name}{_braces(series.labels, labels)} {value}\n"
        case Histogram():
            yield from _buckets(series)


def _buckets(series: Histogram) -> Iterator[str]:
    bounds = (*(str(float(bound)) for bound in series.bounds), "+Inf")
    for labels, cell in series.cells.items():
        pairs = _pairs(series.labels, labels)
        opening = f'{series.name}_bucket{{{pairs}{"," if pairs else ""}le="'
        for bound, count in zip(bounds, accumulate(cell.counts), strict=True):
            yield f'{opening}{bound}"}} {count}\n'
        braces = _braces(series.labels, labels)
        yield f"{series.name}_sum{braces} {cell.total}\n{series.name}_count{braces} {sum(cell.counts)}\n"


def _braces(names: Labels, values: Labels) -> str:
    return f"{{{_pairs(names, values)}}}" if names else ""


def _pairs(names: Labels, values: Labels) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value
