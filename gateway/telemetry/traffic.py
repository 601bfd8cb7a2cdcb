"""Traffic of the last hours, minute by minute, for operators without a Prometheus.

Once a minute the series of metrics.py are summed to a few totals; a sample is their increase since the minute before.
The process keeps HISTORY_MINUTES samples, and loses them when it ends. A request costs nothing more. Minutes are those
of the wall clock, so that the samples of several workers can be added: each sample has the counts of the histograms,
and quantiles are computed from their sums.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, zip_longest
from typing import Any, NamedTuple

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import Blame
from gateway.core.json_object import JsonObject
from gateway.core.limits import MICRO
from gateway.core.time_format import rfc3339
from gateway.telemetry.metrics import DURATION, FIRST_TOKEN, Metrics
from gateway.telemetry.series import Histogram

HISTORY_MINUTES = 360
MINUTE_MS = 60_000
QUANTILES = (0.5, 0.95, 0.99)

Counts = dict[str, int]


class TrafficTotals(msgspec.Struct, frozen=True):
    """Since the process began, or within a minute. `failed` is by responsible party, `attempts` by upstream and
    outcome, durations by the buckets of their histograms."""

    requests: int = 0
    failed: Counts = {}
    input_tokens: int = 0
    output_tokens: int = 0
    micro_dollars: int = 0
    duration: tuple[int, ...] = ()
    first_token: tuple[int, ...] = ()
    attempts: dict[str, Counts] = {}

    @classmethod
    def of(cls, metrics: Metrics) -> TrafficTotals:
        metrics.add_counted()
        failed: Counts = {}
        for (blame, _, _), count in metrics.errors.values.items():
            failed[blame] = failed.get(blame, 0) + count
        attempts: dict[str, Counts] = {}
        for (upstream, outcome), count in metrics.attempts.values.items():
            attempts.setdefault(upstream, {})[outcome] = count
        tokens = {"input": 0, "output": 0}
        for (_, _, _, direction, _), count in metrics.tokens.values.items():
            if direction in tokens:
                tokens[direction] += count
        return cls(
            requests=sum(metrics.requests.values.values()),
            failed=failed,
            input_tokens=tokens["input"],
            output_tokens=tokens["output"],
            micro_dollars=sum(metrics.cost.values.values()),
            duration=_summed(metrics.duration),
            first_token=_summed(metrics.first_token),
            attempts=attempts,
        )

    def since(self, before: TrafficTotals) -> TrafficTotals:
        """The increase. A total falls if a reload removes series: that counts as zero."""
        return TrafficTotals(
            requests=max(0, self.requests - before.requests),
            failed=_increase(self.failed, before.failed),
            input_tokens=max(0, self.input_tokens - before.input_tokens),
            output_tokens=max(0, self.output_tokens - before.output_tokens),
            micro_dollars=max(0, self.micro_dollars - before.micro_dollars),
            duration=_columns(self.duration, before.duration),
            first_token=_columns(self.first_token, before.first_token),
            attempts={
                upstream: grown
                for upstream, counts in self.attempts.items()
                if (grown := _increase(counts, before.attempts.get(upstream, {})))
            },
        )


class TrafficSample(msgspec.Struct, frozen=True):
    """`at_ms` is the beginning of its minute; `seconds` is less than 60 in the first and in the current one."""

    at_ms: int
    seconds: float
    in_flight: int
    passed: TrafficTotals


class _KeptSample(NamedTuple):
    """`encoded` is the sample as it is reported: many pages that look at hours of them cost no computation."""

    at_ms: int
    encoded: msgspec.Raw


class TrafficHistory:
    """The last minutes of one process."""

    def __init__(self, metrics: Metrics, clock: Clock, in_flight: Callable[[], int]) -> None:
        """`in_flight` says how many requests are."""
        self._metrics = metrics
        self._in_flight = in_flight
        self._clock = clock
        self._samples: deque[_KeptSample] = deque(maxlen=HISTORY_MINUTES)
        self._before = TrafficTotals()
        self._began_ms = clock.now_ms()

    async def follow(self) -> None:
        """Take a sample at the end of each minute, for as long as this is awaited."""
        while True:
            await asyncio.sleep((MINUTE_MS - self._clock.now_ms() % MINUTE_MS) / 1000)
            self.sample()

    def sample(self) -> None:
        """End the current sample."""
        totals, now_ms = TrafficTotals.of(self._metrics), self._clock.now_ms()
        ended = self._sample(totals, now_ms)
        self._samples.append(_KeptSample(ended.at_ms, _encoded([_sample_object(ended)])))
        self._before, self._began_ms = totals, now_ms

    def report(self, minutes: int) -> JsonObject:
        """The last minutes, including the current one: `{"data": […], "buckets": {…}}`."""
        now_ms = self._clock.now_ms()
        running = self._sample(TrafficTotals.of(self._metrics), now_ms)
        first_ms = now_ms - now_ms % MINUTE_MS - (minutes - 1) * MINUTE_MS
        recent = [each for each in self._samples if each.at_ms >= first_ms]
        last = [_sample_object(running)]
        if recent and recent[-1].at_ms == running.at_ms:
            last.append(msgspec.json.decode(recent.pop().encoded))
        return _report([*(each.encoded for each in recent), _encoded(last)])

    def _sample(self, totals: TrafficTotals, now_ms: int) -> TrafficSample:
        # A timer may fire a little early: the minute is the one in which most of the sample is.
        middle_ms = (self._began_ms + now_ms) // 2
        return TrafficSample(
            at_ms=middle_ms - middle_ms % MINUTE_MS,
            seconds=(now_ms - self._began_ms) / 1000,
            in_flight=self._in_flight(),
            passed=totals.since(self._before),
        )


def traffic_report(samples: Iterable[JsonObject]) -> JsonObject:
    """Samples of one process or several: those of one minute are added."""
    by_minute: dict[str, JsonObject] = {}
    for sample in samples:
        known = by_minute.get(sample["at"])
        by_minute[sample["at"]] = sample if known is None else _added(known, sample)
    return _report([_with_quantiles(by_minute[minute]) for minute in sorted(by_minute)])


def _report(data: list[Any]) -> JsonObject:
    return {"data": data, "next": None, "buckets": {"duration": DURATION, "first_token": FIRST_TOKEN}}


def _encoded(of_one_minute: list[JsonObject]) -> msgspec.Raw:
    (sample,) = traffic_report(of_one_minute)["data"]
    return msgspec.Raw(msgspec.json.encode(sample))


def quantile(bounds: Sequence[float], counts: Sequence[int], which: float) -> float | None:
    """Like Prometheus' histogram_quantile: linear within a bucket, and the last bound for what is above all bounds.
    None if nothing was observed."""
    total = sum(counts)
    if not total:
        return None
    rank = which * total
    lower = 0.0
    for bound, count, so_far in zip(bounds, counts, accumulate(counts), strict=False):
        if so_far >= rank and count:
            return lower + (bound - lower) * (rank - (so_far - count)) / count
        lower = bound
    return bounds[-1]


def _sample_object(sample: TrafficSample) -> JsonObject:
    passed = sample.passed
    return {
        "at": rfc3339(sample.at_ms),
        "seconds": round(sample.seconds, 3),
        "requests": passed.requests,
        "failed": {blame.value: passed.failed.get(blame.value, 0) for blame in Blame},
        "in_flight": sample.in_flight,
        "input_tokens": passed.input_tokens,
        "output_tokens": passed.output_tokens,
        "usd": passed.micro_dollars / MICRO,
        "duration": {"counts": _trimmed(passed.duration)},
        "first_token": {"counts": _trimmed(passed.first_token)},
        "attempts": passed.attempts,
    }


def _with_quantiles(sample: JsonObject) -> JsonObject:
    for name, bounds in (("duration", DURATION), ("first_token", FIRST_TOKEN)):
        counts = sample[name]["counts"]
        found = {f"p{round(which * 100)}_s": _rounded(quantile(bounds, counts, which)) for which in QUANTILES}
        sample[name] = {**found, "counts": counts}
    return sample


def _added(one: JsonObject, other: JsonObject) -> JsonObject:
    sums = {name: one[name] + other[name] for name in ("requests", "in_flight", "input_tokens", "output_tokens")}
    counts = {
        name: {"counts": _columns_added(one[name]["counts"], other[name]["counts"])}
        for name in ("duration", "first_token")
    }
    upstreams = {**one["attempts"], **other["attempts"]}
    attempts = {name: _sum(one["attempts"].get(name, {}), other["attempts"].get(name, {})) for name in upstreams}
    return {
        "at": one["at"],
        "seconds": max(one["seconds"], other["seconds"]),
        "failed": _sum(one["failed"], other["failed"]),
        # Each is a number of micro-dollars.
        "usd": round((one["usd"] + other["usd"]) * MICRO) / MICRO,
        "attempts": attempts,
        **sums,
        **counts,
    }


def _summed(histogram: Histogram) -> tuple[int, ...]:
    """The sum over all labels."""
    every = [observations.counts for observations in histogram.values.values()]
    return tuple(map(sum, zip(*every, strict=True)))


def _columns(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(0, new - old) for new, old in zip_longest(now, before, fillvalue=0))


def _columns_added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [sum(both) for both in zip_longest(one, other, fillvalue=0)]


def _increase(now: Mapping[str, int], before: Mapping[str, int]) -> Counts:
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> Counts:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _trimmed(counts: Sequence[int]) -> list[int]:
    """The counts without the zeros at the end, which most have."""
    kept = len(counts)
    while kept and not counts[kept - 1]:
        kept -= 1
    return list(counts[:kept])


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
