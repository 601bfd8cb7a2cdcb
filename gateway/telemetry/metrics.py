"""What the gateway counts, and how Prometheus reads it.

`Metrics.exchange` records everything about one finished request. Label values come from the
configuration and from closed lists, never from what a client sends, so that the number of series
is bounded. Every metric is described in docs/metrics.md.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.core.clock import Clock
from gateway.core.errors import ClientGone, GatewayError, ShuttingDown, UpstreamError, UpstreamTimedOut
from gateway.core.exchange import Exchange
from gateway.core.limits import Per, Scope
from gateway.core.reservation import LimitStatus
from gateway.core.usage import Usage
from gateway.telemetry.exposition import CONTENT_TYPE, exposition
from gateway.telemetry.gathering import pack
from gateway.telemetry.series import Counter, Fold, Gauge, Histogram, Labels, Series

# fmt: off
DURATION = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 900)
FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 60)
OVERHEAD = (0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
LOOP_LAG = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
STORE_CALL = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# fmt: on
MICRO = 1_000_000

_MEASURED = frozenset({Scope.ORGANISATION, Scope.TEAM})
_QUOTAS = frozenset(per for per in Per if per.rate_ms is None)

# The first class that fits says who ended a stream that had begun.
_ABORTED_BY: tuple[tuple[type[GatewayError], str], ...] = (
    (ClientGone, "client"),
    (ShuttingDown, "shutdown"),
    (UpstreamTimedOut, "timeout"),
    (UpstreamError, "upstream"),
)


class Metrics:
    """Every series of this process. A new one is one line here and, if a request feeds it, one below."""

    def __init__(self, clock: Clock, version: str) -> None:
        self._clock = clock
        place, limit = ("model", "upstream"), ("team", "meter", "per", "scope")
        self.requests = Counter(
            "gateway_requests_total", "Finished requests.", ("endpoint", "team", "model", "upstream", "status")
        )
        self.errors = Counter(
            "gateway_errors_total", "Requests that failed, by whose doing.", ("blame", "code", "upstream")
        )
        self.duration = Histogram(
            "gateway_request_duration_seconds", "From a request's head to its answer's end.", place, DURATION
        )
        self.first_token = Histogram(
            "gateway_time_to_first_token_seconds", "From a request's head to a stream's first byte.", place, FIRST_TOKEN
        )
        self.overhead = Histogram(
            "gateway_overhead_seconds", "Time inside the gateway, waiting for the upstream left out.",
            ("endpoint",), OVERHEAD,
        )  # fmt: skip
        self.tokens = Counter("gateway_tokens_total", "Tokens.", ("team", "model", "upstream", "direction", "source"))
        self.cost = Counter("gateway_cost_usd_total", "Cost in US dollars.", ("team", "model"), MICRO)
        self.refused = Counter("gateway_refused_total", "Requests that a limit refused.", limit)
        self.shadow_refused = Counter("gateway_shadow_refused_total", "Refusals that a shadow limit only noted.", limit)
        self.in_flight = Gauge("gateway_requests_in_flight", "Requests under way.")
        self.aborted = Counter("gateway_streams_aborted_total", "Streams that ended before their answer did.", ("by",))
        self.attempts = Counter(
            "gateway_upstream_attempts_total", "Requests sent to an upstream.", ("upstream", "outcome")
        )
        self.config_reloads = Counter(
            "gateway_config_reloads_total", "Changed configurations that were loaded or refused.", ("outcome",)
        )
        self.task_failures = Counter(
            "gateway_task_failures_total", "Background tasks that failed and were started again.", ("task",)
        )
        self.loop_lag = Histogram("gateway_loop_lag_seconds", "How late the event loop was.", (), LOOP_LAG)
        self.store_calls = Counter("gateway_store_calls_total", "Calls of the store.", ("call", "outcome"))
        self.store_seconds = Histogram("gateway_store_call_seconds", "How long they took.", ("call",), STORE_CALL)
        self.unsettled = Gauge("gateway_unsettled_requests", "Answered requests whose settlement waits.")
        self.journal_entries = Counter(
            "gateway_journal_entries_total", "Settlements that could not be made at once.", ("outcome",)
        )
        self.upstream_up = Gauge(
            "gateway_upstream_up", "1 while an upstream may be asked, else 0.", ("upstream",), "min"
        )
        self.build = Gauge("gateway_build_info", "Always 1; the labels say what runs.", ("version", "python"), "max")
        self.build.set(1, (version, platform.python_version()))
        self._begin_at_nothing()
        self._quotas: dict[tuple[Labels, str], tuple[float, int]] = {}
        self._process = Process()

    def _begin_at_nothing(self) -> None:
        """A counter that begins at nothing shows its first step to Prometheus; one that begins at one hides it."""
        for _, by in _ABORTED_BY:
            self.aborted.add((by,), 0)
        for outcome in ("accepted", "refused"):
            self.config_reloads.add((outcome,), 0)
        for outcome in ("written", "replayed", "parked", "lost"):
            self.journal_entries.add((outcome,), 0)

    def exchange(self, x: Exchange) -> None:
        """Record one finished request."""
        team = x.caller.team if x.caller else ""
        model = x.parsed.model.name if x.parsed else ""
        upstream = x.target.upstream.name if x.target else ""
        endpoint = x.request.endpoint.name
        self.requests.add((endpoint, team, model, upstream, str(x.status)))
        for attempt in x.attempts:
            self.attempts.add(attempt)
        self._times(x, endpoint, (model, upstream))
        if x.usage is not None:
            self._usage(x.usage, (team, model, upstream))
            self.cost.add((team, model), x.cost)
        if x.reservation is not None:
            self.quotas(x.reservation.limit_statuses)
            for limit in x.reservation.would_refuse:
                self.shadow_refused.add((team, limit.meter, limit.per or "", limit.scope))
        failure = x.failure
        if failure is not None:
            self.errors.add((*failure, upstream))
        if x.error is not None:
            self._failed(x, x.error, team)

    def store_call(self, call: str, outcome: str, seconds: float) -> None:
        """Record one call of the store: what for, "ok" or "unavailable", and how long it took."""
        self.store_calls.add((call, outcome))
        self.store_seconds.observe((call,), seconds)

    def journal_entries_were(self, outcome: str, entries: int) -> None:
        """Record what became of settlements that could not be made at once: "written", "replayed", "parked", "lost"."""
        self.journal_entries.add((outcome,), entries)

    def task_failed(self, task: str) -> None:
        self.task_failures.add((task,))

    def loop_lagged(self, seconds: float) -> None:
        self.loop_lag.observe((), seconds)

    def quotas(self, limit_statuses: Iterable[LimitStatus]) -> None:
        """Note how much of each quota of a team or of the organisation is used.

        Those of keys and users are left out: their number has no bound that a metric could bear.
        """
        for limit_status in limit_statuses:
            limit = limit_status.limit
            if limit.is_quota and limit.scope in _MEASURED and limit.amount:
                where = ((limit.team, str(limit.meter), limit.per or ""), limit.name)
                self._quotas[where] = (limit_status.used / limit.amount, limit_status.resets_ms)

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return exposition([*self.every(), *self._process.series()]), CONTENT_TYPE

    def packed(self) -> bytes:
        """The same for whoever adds them to those of other processes."""
        return pack([*self.every(), *self._process.series()])

    def _times(self, x: Exchange, endpoint: str, place: Labels) -> None:
        duration = x.ended - x.request.at
        self.duration.observe(place, duration)
        self.overhead.observe((endpoint,), max(0.0, duration - x.upstream_seconds))
        if x.first_byte_at is not None and x.parsed is not None and x.parsed.stream:
            self.first_token.observe(place, x.first_byte_at - x.request.at)

    def _usage(self, usage: Usage, whose: Labels) -> None:
        self.tokens.add((*whose, "input", usage.source), usage.input)
        self.tokens.add((*whose, "output", usage.source), usage.output)
        if usage.cached_input:
            self.tokens.add((*whose, "cached_input", usage.source), usage.cached_input)
        if usage.reasoning:
            self.tokens.add((*whose, "reasoning", usage.source), usage.reasoning)

    def _failed(self, x: Exchange, error: GatewayError, team: str) -> None:
        if error.limit is not None:
            self._refused(team, error.limit, error.retry_after_ms or 0)
        if x.first_byte_at is not None and x.parsed is not None and x.parsed.stream:
            by = next((by for kind, by in _ABORTED_BY if isinstance(error, kind)), "")
            if by:
                self.aborted.add((by,))

    def _refused(self, team: str, limit: Mapping[str, Any], retry_after_ms: int) -> None:
        per = limit["per"] or ""
        self.refused.add((team, limit["meter"], per, limit["scope"]))
        if per in _QUOTAS and limit["scope"] in _MEASURED and limit["amount"]:
            owner = team if limit["scope"] == Scope.TEAM else ""
            where = ((owner, limit["meter"], per), limit["name"])
            _, resets_ms = self._quotas.get(where, (0, self._clock.now_ms() + retry_after_ms))
            self._quotas[where] = (limit["used"] / limit["amount"], resets_ms)

    def _quotas_used(self) -> Gauge:
        """The fullest quota of each kind. A window that is over counts as unused until a request tells."""
        shown = Gauge("gateway_quota_used_ratio", "Used part of a quota.", ("team", "meter", "per"), "max")
        now_ms = self._clock.now_ms()
        for (labels, _), (used, resets_ms) in self._quotas.items():
            current = used if resets_ms == 0 or now_ms < resets_ms else 0.0
            shown.set(max(current, shown.values.get(labels, 0.0)), labels)
        return shown

    def every(self) -> list[Series]:
        return [*(each for each in vars(self).values() if isinstance(each, Series)), self._quotas_used()]


class Process:
    """CPU, memory and files of this process, under the names that every Prometheus client has for them (Linux only)."""

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=CollectorRegistry())

    def series(self) -> list[Series]:
        found: list[Series] = []
        for family in self._collector.collect():
            (sample,) = family.samples
            if family.type == "counter":
                counter = Counter(sample.name, family.documentation, divisor=MICRO)
                counter.add((), round(sample.value * MICRO))
                found.append(counter)
            else:
                fold: Fold = "min" if sample.name == "process_start_time_seconds" else "sum"
                found.append(Gauge(sample.name, family.documentation, fold=fold, values={(): sample.value}))
        return found
