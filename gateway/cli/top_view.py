"""The view of `gateway top`: turns two readings of a gateway's metrics, and answers of its admin API, into lines
of text.

Rates are the difference between two readings. A counter that has fallen belongs to a gateway that was restarted, and
counts from zero. Histograms are read in the same way, so that a quantile is of what happened in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import NamedTuple

from gateway.cli.output import Row, figure, table
from gateway.cli.requests import HEADINGS, request_row
from gateway.core.json_object import JsonObject
from gateway.core.time_format import rfc3339

_LINE = re.compile(r"(?P<name>[a-z0-9_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_ATTEMPTS = "gateway_upstream_attempts_total"
_IS_2XX = re.compile("2[0-9]{2}")

Labels = Mapping[str, str]


class _Value(NamedTuple):
    labels: Labels
    value: float


class MetricsReading:
    """An exposition, read at a time in seconds since 1970."""

    def __init__(self, text: str, at: float) -> None:
        self.at = at
        self._values: dict[str, list[_Value]] = {}
        for line in text.splitlines():
            found = None if line.startswith("#") else _LINE.match(line)
            if found is not None:
                labels = dict(_LABEL.findall(found["labels"] or ""))
                self._values.setdefault(found["name"], []).append(_Value(labels, float(found["value"])))

    def by(self, name: str, label: str, **only: str) -> dict[str, float]:
        """Sums by the values of a label, of the series with these labels."""
        sums: dict[str, float] = {}
        for seen in self._values.get(name, ()):
            if only.items() <= seen.labels.items():
                value = seen.labels.get(label, "")
                sums[value] = sums.get(value, 0.0) + seen.value
        return sums

    def total(self, name: str, **only: str) -> float:
        return sum(self.by(name, "", **only).values())

    def label(self, name: str, label: str) -> str:
        """The value of a label of the first series with this name, empty where there is none."""
        seen = self._values.get(name)
        return seen[0].labels.get(label, "") if seen else ""


class Pace:
    """What happened between two readings, in a second."""

    def __init__(self, before: MetricsReading, after: MetricsReading) -> None:
        self._before = before
        self._after = after
        self._seconds = max(after.at - before.at, 0.001)

    def by(self, name: str, label: str, **only: str) -> dict[str, float]:
        before, after = self._before.by(name, label, **only), self._after.by(name, label, **only)
        return {value: _grown(before.get(value, 0.0), now) / self._seconds for value, now in after.items()}

    def of(self, name: str, **only: str) -> float:
        return sum(self.by(name, "", **only).values())

    def mean(self, name: str) -> float | None:
        """Of a histogram, what it observed on average; None where it observed nothing."""
        count = self.of(f"{name}_count")
        return self.of(f"{name}_sum") / count if count else None

    def quantile(self, name: str, share: float) -> float | None:
        """The bound of the bucket that has this share of what a histogram observed; None where it observed nothing."""
        buckets = sorted((float(bound), rate) for bound, rate in self.by(f"{name}_bucket", "le").items())
        whole = buckets[-1][1] if buckets else 0.0
        return next((bound for bound, rate in buckets if rate >= share * whole), None) if whole else None


def _grown(before: float, after: float) -> float:
    return after - before if after >= before else after


class LiveView(NamedTuple):
    """What is known at one moment. `pace` is None before the second reading. `upstreams` and `requests` are what the
    admin API gives. `problem` says why something is missing."""

    address: str
    reading: MetricsReading
    pace: Pace | None
    upstreams: Sequence[JsonObject]
    requests: JsonObject
    problem: str = ""


def as_json(view: LiveView) -> JsonObject:
    """The same for programs; rates are null where there is one reading."""
    reading, pace = view.reading, view.pace
    tokens = {} if pace is None else pace.by("gateway_tokens_total", "direction")
    return {
        "at": rfc3339(round(reading.at * 1000)),
        "gateway": view.address,
        "version": reading.label("gateway_build_info", "version") or None,
        "config": reading.label("gateway_config_info", "hash") or None,
        "in_flight": round(reading.total("gateway_requests_in_flight")),
        "unsettled": round(reading.total("gateway_unsettled_requests")),
        "requests_per_s": _rate_of(pace, "gateway_requests_total"),
        "refused_per_s": _rate_of(pace, "gateway_refused_total"),
        "input_tokens_per_s": None if pace is None else round(tokens.get("input", 0.0), 3),
        "output_tokens_per_s": None if pace is None else round(tokens.get("output", 0.0), 3),
        "usd_per_s": _rate_of(pace, "gateway_cost_usd_total"),
        "failed_per_s": {} if pace is None else _rounded(pace.by("gateway_errors_total", "blame")),
        "store_calls_per_s": {} if pace is None else _rounded(pace.by("gateway_store_calls_total", "outcome")),
        "teams": {} if pace is None else _rounded(pace.by("gateway_requests_total", "team")),
        "upstreams": list(view.upstreams),
        "requests": view.requests.get("data", []),
        "problem": view.problem or None,
    }


def _rate_of(pace: Pace | None, name: str) -> float | None:
    return None if pace is None else round(pace.of(name), 6)


def _rounded(rates: Mapping[str, float]) -> dict[str, float]:
    return {name: round(rate, 3) for name, rate in rates.items()}


def frame(view: LiveView, columns: int, rows: int) -> list[str]:
    """As many lines as there is space for, the most important first."""
    lines = [_title(view), *_figures(view), "", *_upstreams(view), "", *_teams(view), "", *_requests(view)]
    if view.problem:
        lines.insert(1, view.problem)
    return [line[:columns].rstrip() for line in lines[:rows]]


def _title(view: LiveView) -> str:
    reading = view.reading
    now = datetime.fromtimestamp(reading.at, UTC).strftime("%H:%M:%S UTC")
    config = reading.label("gateway_config_info", "hash")
    version = reading.label("gateway_build_info", "version")
    return f"gateway {view.address}  {now}  version {version}" + (f"  configuration {config}" if config else "")


def _figures(view: LiveView) -> Iterator[str]:
    reading, pace = view.reading, view.pace
    in_flight = f"in flight {reading.total('gateway_requests_in_flight'):,.0f}"
    if pace is None:
        yield f"{in_flight}; rates come with the second reading"
        return
    tokens = pace.by("gateway_tokens_total", "direction")
    yield (
        f"requests/s {_rate(pace.of('gateway_requests_total'))}  {in_flight}"
        f"  tokens/s in {_rate(tokens.get('input', 0.0))} out {_rate(tokens.get('output', 0.0))}"
        f"  USD/h {_rate(3_600 * pace.of('gateway_cost_usd_total'))}"
    )
    errors = {
        blame: rate for blame, rate in pace.by("gateway_errors_total", "blame").items() if rate and blame != "policy"
    }
    why = ", ".join(f"{blame} {_rate(rate)}" for blame, rate in sorted(errors.items()))
    yield (
        f"refused/s {_rate(pace.of('gateway_refused_total'))}  failed/s {_rate(sum(errors.values()))}"
        + (f" ({why})" if why else "")
    )
    yield (
        f"first token {_seconds(pace.quantile('gateway_time_to_first_token_seconds', 0.5))} median"
        f" {_seconds(pace.quantile('gateway_time_to_first_token_seconds', 0.99))} p99"
        f"  own time {_seconds(pace.quantile('gateway_overhead_seconds', 0.99))} p99"
        f"  event loop late by {_seconds(pace.mean('gateway_loop_lag_seconds'))}"
    )
    yield _store(reading, pace)


def _store(reading: MetricsReading, pace: Pace) -> str:
    outcomes = pace.by("gateway_store_calls_total", "outcome")
    unsettled = f"unsettled {reading.total('gateway_unsettled_requests'):,.0f}"
    if not reading.by("gateway_store_calls_total", "outcome"):
        return f"store in memory  {unsettled}"
    failing = outcomes.get("unavailable", 0.0)
    state = "OUT" if failing and not outcomes.get("ok") else "failing" if failing else "ok"
    took = _seconds(pace.mean("gateway_store_call_seconds"))
    return (
        f"store {state}  calls/s {_rate(sum(outcomes.values()))}  each {took}  failing/s {_rate(failing)}  {unsettled}"
    )


def _upstreams(view: LiveView) -> Iterator[str]:
    found: list[Row] = []
    for upstream in view.upstreams:
        name = upstream["name"]
        outcomes = view.pace.by(_ATTEMPTS, "outcome", upstream=name) if view.pace is not None else {}
        tried = sum(outcomes.values())
        other = sum(rate for outcome, rate in outcomes.items() if not _IS_2XX.fullmatch(outcome))
        circuits = [f"{each['model']} {each['state']}" for each in upstream["circuits"] if each["state"] != "closed"]
        state = "up" if upstream["up"] else "DOWN"
        found.append([name, state, upstream["in_flight"], _rate(tried), _rate(other), ", ".join(circuits)])
    yield from _section(
        ("upstream", "is", "in flight", "tries/s", "not 2xx/s", "circuits"), found, "There are no upstreams."
    )


def _teams(view: LiveView) -> Iterator[str]:
    if view.pace is None:
        return
    requests, refused = (view.pace.by(f"gateway_{name}_total", "team") for name in ("requests", "refused"))
    tokens = view.pace.by("gateway_tokens_total", "team")
    busy = sorted((name for name in requests if requests[name] or refused.get(name)), key=lambda name: -requests[name])
    found = [
        [name or "(no key)", _rate(requests[name]), _rate(tokens.get(name, 0.0)), _rate(refused.get(name, 0.0))]
        for name in busy[:_TEAMS_SHOWN]
    ]
    yield from _section(("team", "requests/s", "tokens/s", "refused/s"), found, "No team sends requests.")


_TEAMS_SHOWN = 8


def _requests(view: LiveView) -> Iterator[str]:
    found = [request_row(request)[:-1] for request in view.requests.get("data", ())]
    yield from _section(("request in flight", *HEADINGS[1:-1]), found, "No request is in flight.")


def _section(headings: Sequence[str], rows: Sequence[Row], empty: str) -> list[str]:
    return table(headings, rows).splitlines() if rows else [empty]


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 or not rate else f"{rate:.2f}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds == inf:
        return "very long"
    return f"{figure(round(seconds * 1000, 2))} ms" if seconds < 1 else f"{seconds:,.1f} s"
