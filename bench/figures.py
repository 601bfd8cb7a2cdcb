"""From measurements to the figures that are shown: medians over the rounds, each beside its direct run and its aim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bench.rounds import Measured, Pair, Results


@dataclass(frozen=True)
class Aim:
    """A bound for one of a figure's columns."""

    of: Literal["gateway", "added"]
    relation: Literal["at least", "at most"]
    bound: float


@dataclass(frozen=True)
class Figure:
    """`direct` is None for what exists only in the gateway."""

    name: str
    unit: str
    direct: float | None
    gateway: float
    aim: Aim | None = None

    @property
    def added(self) -> float | None:
        return None if self.direct is None else self.gateway - self.direct

    @property
    def ratio(self) -> float | None:
        return None if not self.direct else self.gateway / self.direct

    @property
    def reached(self) -> bool | None:
        if self.aim is None:
            return None
        value = self.gateway if self.aim.of == "gateway" else self.added
        assert value is not None
        return value >= self.aim.bound if self.aim.relation == "at least" else value <= self.aim.bound


def figures(results: Results) -> list[Figure]:
    """The aims are those of a single core with the in-memory store and four limits on every request."""
    plain, latency, streaming, many = results.plain, results.latency, results.streaming, results.many_streams
    return [
        _paired("plain answers at 64 connections", "/s", plain, lambda rate: rate.per_second, _least(4_500)),
        _own("CPU for a plain answer", "µs", [pair.gateway.cpu_us for pair in plain]),
        _paired("latency at 1 connection, p50", "ms", latency, lambda seen: seen.p50_ms, _added(0.5)),
        _paired("latency at 1 connection, p99", "ms", latency, lambda seen: seen.p99_ms),
        _own(
            "the same beside 200 requests to a silent upstream, p99",
            "ms",
            [seen.p99_ms for seen in results.beside_silence],
        ),
        _paired("events relayed at 500 streams", "/s", streaming, lambda seen: seen.events_per_second),
        _own("CPU for an event at 500 streams", "µs", [pair.gateway.cpu_us for pair in streaming], _most(25)),
        _paired("first token at 500 streams, p50", "ms", streaming, lambda seen: seen.first_token.p50_ms),
        _paired("first token at 500 streams, p99", "ms", streaming, lambda seen: seen.first_token.p99_ms, _added(10)),
        _own("CPU for an event at 2,000 streams", "µs", [pair.gateway.cpu_us for pair in many]),
        _paired("first token at 2,000 streams, p50", "ms", many, lambda seen: seen.first_token.p50_ms),
        _paired("first token at 2,000 streams, p99", "ms", many, lambda seen: seen.first_token.p99_ms, _added(20)),
        _paired("longest stall at 2,000 streams", "ms", many, lambda seen: seen.stall_ms, _added(50)),
        _own("memory, idle", "MiB", [results.idle_mib], _most(60)),
        _own("memory for an open stream", "KiB", [streaming[0].gateway.kib_per_stream]),
    ]


def _paired(
    name: str,
    unit: str,
    pairs: Sequence[Pair[Measured]],
    value: Callable[[Measured], float],
    aim: Aim | None = None,
) -> Figure:
    direct, gateway = (median(value(side) for side in sides) for sides in zip(*map(_sides, pairs), strict=True))
    return Figure(name, unit, direct, gateway, aim)


def _sides(pair: Pair[Measured]) -> tuple[Measured, Measured]:
    return pair.direct, pair.gateway


def _own(name: str, unit: str, values: Sequence[float], aim: Aim | None = None) -> Figure:
    return Figure(name, unit, None, median(values), aim)


def _least(bound: float) -> Aim:
    return Aim("gateway", "at least", bound)


def _most(bound: float) -> Aim:
    return Aim("gateway", "at most", bound)


def _added(bound: float) -> Aim:
    return Aim("added", "at most", bound)
