"""Writes series as Prometheus reads them, those of several processes as one.

A single process renders what it has counted in the text exposition format, version 0.0.4. prometheus_client would take
five times as long, and a scrape holds the event loop and with it every stream:
docs/decisions/0005-metrics-in-plain-dictionaries.md.

A worker packs its series into a report instead. The supervisor keeps the last report of each worker. At a scrape it
adds them up, together with what workers that have ended had counted, so that no total falls when a worker is replaced.
Series that a reload removed leave these sums as soon as no worker has them configured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import accumulate

import msgspec

from gateway.telemetry.configured_names import ConfiguredNames, prune
from gateway.telemetry.series import Counter, Gauge, Histogram, Labels, Observations, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PART_CHARACTERS = 32 * 1024


class _ReportedNames(msgspec.Struct):
    """The part of a report that says what is configured: the rest of it is not decoded."""

    names: ConfiguredNames | None = None


class ProcessReport(msgspec.Struct):
    """What a process has counted, and what it has configured: None where it does not know."""

    series: list[Series]
    names: ConfiguredNames | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ProcessReport)
_NAMES_DECODER = msgspec.msgpack.Decoder(_ReportedNames)


def pack(report: ProcessReport) -> bytes:
    return _ENCODER.encode(report)


def unpack(packed: bytes) -> ProcessReport:
    return _DECODER.decode(packed)


def aggregate(processes: Iterable[list[Series]]) -> list[Series]:
    """The series of all processes, each once: the first of a name absorbs the others."""
    found: dict[str, Series] = {}
    for every in processes:
        for series in every:
            _absorb(found, series)
    return list(found.values())


def _absorb(found: dict[str, Series], series: Series) -> None:
    known = found.setdefault(series.name, series)
    if known is not series:
        known.merge(series)  # type: ignore[arg-type] # A name has one kind.


class MetricsAggregator:
    """What workers, by their numbers, have counted."""

    def __init__(self) -> None:
        self._latest: dict[int, bytes] = {}
        self._ended = pack(ProcessReport([]))

    def update(self, worker: int, packed: bytes) -> None:
        """Replace the worker's report."""
        self._latest[worker] = packed

    def retire(self, worker: int) -> None:
        """The worker has ended: its counters and histograms stay, its gauges go."""
        last = self._latest.pop(worker, None)
        if last is not None:
            both = aggregate([unpack(self._ended).series, unpack(last).series])
            self._ended = pack(ProcessReport([series for series in both if not isinstance(series, Gauge)]))

    def parts(self, own: Iterable[Series]) -> Iterator[bytes]:
        """The exposition of all of them and of `own`, part by part, each of which takes a few milliseconds at most;
        some are empty. It is that of the moment at which the first is asked for."""
        reports = [*self._latest.values(), pack(ProcessReport(list(own)))]
        found = {series.name: series for series in self._configured_of_ended()}
        yield b""
        for packed in reports:
            every = unpack(packed).series
            yield b""
            for series in every:
                _absorb(found, series)
                yield b""
        yield from exposition_parts(found.values())

    def _configured_of_ended(self) -> list[Series]:
        """What workers that have ended counted. What no worker has configured any more is removed permanently."""
        ended = unpack(self._ended).series
        reported = [_NAMES_DECODER.decode(packed).names for packed in self._latest.values()]
        configured = [names for names in reported if names is not None]
        if configured:
            prune(ended, reduce(ConfiguredNames.united, configured))
            self._ended = pack(ProcessReport(ended))
        return ended


def exposition_parts(every: Iterable[Series]) -> Iterator[bytes]:
    """The exposition, part by part, each of which takes a fraction of a millisecond. Series may change between two
    parts: all lines of a label set are in one."""
    for series in every:
        lines: list[str] = []
        size = 0
        for text in _texts(series):
            lines.append(text)
            size += len(text)
            if size >= PART_CHARACTERS:
                yield "".join(lines).encode()
                lines, size = [], 0
        yield "".join(lines).encode()


def _texts(series: Series) -> Iterator[str]:
    """The head of a series, then the lines of each label set."""
    yield f"# HELP {series.name} {series.about}\n# TYPE {series.name} {series.kind}\n"
    match series:
        case Counter():
            for labels, amount in list(series.values.items()):
                shown = amount if series.divisor == 1 else amount / series.divisor
                yield f"{series.name}{_braces(series.labels, labels)} {shown}\n"
        case Gauge():
            for labels, value in list(series.values.items()):
                yield f"{series.name}{_braces(series.labels, labels)} {value}\n"
        case Histogram():
            bounds = (*(str(float(bound)) for bound in series.bounds), "+Inf")
            for labels, observations in list(series.values.items()):
                yield "".join(_buckets(series, bounds, labels, observations))


def _buckets(series: Histogram, bounds: Sequence[str], labels: Labels, observations: Observations) -> Iterator[str]:
    pairs = _pairs(series.labels, labels)
    opening = f'{series.name}_bucket{{{pairs}{"," if pairs else ""}le="'
    for bound, count in zip(bounds, accumulate(observations.counts), strict=True):
        yield f'{opening}{bound}"}} {count}\n'
    braces = _braces(series.labels, labels)
    yield f"{series.name}_sum{braces} {observations.total}\n"
    yield f"{series.name}_count{braces} {sum(observations.counts)}\n"


def _braces(names: Labels, values: Labels) -> str:
    return f"{{{_pairs(names, values)}}}" if names else ""


def _pairs(names: Labels, values: Labels) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value
