"""Every metric of the gateway.

`Metrics.exchange` records a finished request: it notes its figures with those of requests of the same labels
(`_Answers`), which it finds with one look-up. They are added to the series together, when there are many or the series
are read: one by one they would cost several times as much. Label values come from the configuration and from closed
lists, never from what a client sends, so that the number of series is bounded. When a reload removes a team, a model,
an upstream or a limit, their series go: `keep` gets what is configured, and the next scrape leaves out the rest.
docs/metrics.md describes every metric.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

from gateway.core.clock import Clock
from gateway.core.errors import ClientGone, Failure, GatewayError, ShuttingDown, UpstreamError, UpstreamTimedOut
from gateway.core.exchange import Exchange
from gateway.core.limits import MICRO, Limit, Scope
from gateway.core.reservation import LimitStatus
from gateway.core.snapshot import ConfigSnapshot
from gateway.core.usage import Usage, UsageSource
from gateway.telemetry.configured_names import STORED_LIMIT, ConfiguredNames, prune
from gateway.telemetry.exposition import ProcessReport, exposition_parts, pack
from gateway.telemetry.process_metrics import ProcessMetrics
from gateway.telemetry.quota_uses import QuotaUses, quota_labels
from gateway.telemetry.series import Counter, Gauge, Histogram, Labels, Series

# fmt: off
# The last bounds of these two are a minute above what the default timeouts of an upstream allow.
DURATION = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 900, 1860)
FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 60, 180, 660)
OVERHEAD = (0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
LOOP_LAG = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
STORE_CALL = (
    0.00005, 0.000075, 0.0001, 0.00015, 0.0002, 0.00025, 0.0005, 0.00075, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1, 2.5,
)
# fmt: on

_REPORTED = UsageSource.REPORTED  # Slow to reach through the class in Python 3.11.

# The first class that fits says who ended a stream that had begun.
_ABORTED_BY: tuple[tuple[type[GatewayError], str], ...] = (
    (ClientGone, "client"),
    (ShuttingDown, "shutdown"),
    (UpstreamTimedOut, "timeout"),
    (UpstreamError, "upstream"),
)


_KINDS_OF_TOKENS = {
    "input": (attrgetter("input"),),
    "output": (attrgetter("output"),),
    "cached_input": (attrgetter("cached_input"),),
    "cache_write": (attrgetter("cache_write"), attrgetter("cache_write_1h")),
    "reasoning": (attrgetter("reasoning"),),
}
"""The values of the label `direction`, and what each counts of a `Usage`."""

_NOTED_ALIKE = 32
"""The requests with the same labels, and the calls of the store, whose figures are added to the series together."""

_NOTED_KINDS = 64
"""The sets of labels with figures that are not added yet: to add all of them takes two milliseconds."""


_Figures = tuple[float, float, Usage | None, int]
"""Of one request: the seconds in all, those of the gateway's own, the usage, and the cost in micro-dollars."""


@dataclass(slots=True)  # Whose attributes are read several times as fast as a struct's.
class _Answers:
    """Requests of the same endpoint, team, model, upstream, status, source of usage, failure and attempts, which the
    same limit has refused, if any. `noted` has the figures that are not added to the series yet."""

    labels: Labels
    """Of `gateway_requests_total`."""
    source: str
    failure: Failure | None
    refused_by: Limit | None
    attempts: Sequence[tuple[str, str]]
    noted: list[_Figures] = field(default_factory=list)


class Metrics:
    """Every series of this process. A new one is one line here and, if a request feeds it, one below."""

    def __init__(self, clock: Clock, version: str) -> None:
        self.quotas = QuotaUses(clock)
        self._define_series_of_requests()
        self._define_series_of_the_process()
        self._define_series_of_notifications()
        self.build.set(1, (version, platform.python_version()))
        self._begin_at_zero()
        self._names: ConfiguredNames | None = None
        self._answers: dict[tuple[Any, ...], _Answers] = {}
        self._store_calls: defaultdict[Labels, list[float]] = defaultdict(list)
        self._process = ProcessMetrics()

    def _begin_at_zero(self) -> None:
        """A counter that begins at 0 shows its first step to Prometheus; one that begins at 1 hides it."""
        for _, by in _ABORTED_BY:
            self.aborted.add((by,), 0)
        for outcome in ("accepted", "refused"):
            self.config_reloads.add((outcome,), 0)
        for code in ("admin_forbidden", "invalid_api_key"):
            self.admin_refused.add((code,), 0)
        for outcome in ("written", "in_memory", "replayed", "parked", "lost"):
            self.journal_entries.add((outcome,), 0)
        for outcome in ("exported", "dropped", "rejected"):
            self.spans.add((outcome,), 0)

    def _define_series_of_requests(self) -> None:
        place = ("model", "upstream")
        limit = ("team", "limit", "meter", "per", "scope")
        self.requests = Counter(
            "gateway_requests_total", "Finished requests.", ("endpoint", "team", "model", "upstream", "status")
        )
        self.errors = Counter(
            "gateway_errors_total", "Failed requests by responsible party.", ("blame", "code", "upstream")
        )
        self.duration = Histogram(
            "gateway_request_duration_seconds",
            "Time from a request's head to the end of its response.", place, DURATION,
        )  # fmt: skip
        self.first_token = Histogram(
            "gateway_time_to_first_token_seconds",
            "Time from a request's head to the first byte of a stream.", place, FIRST_TOKEN,
        )  # fmt: skip
        self.overhead = Histogram(
            "gateway_overhead_seconds", "Time inside the gateway, without waiting for the upstream.",
            ("endpoint",), OVERHEAD,
        )  # fmt: skip
        self.tokens = Counter(
            "gateway_tokens_total", "Tokens charged.", ("team", "model", "upstream", "direction", "source")
        )
        self.cost = Counter("gateway_cost_usd_total", "Cost in US dollars.", ("team", "model"), MICRO)
        self.refused = Counter("gateway_refused_total", "Requests refused by a limit.", limit)
        self.shadow_refused = Counter(
            "gateway_shadow_refused_total", "Requests that a limit in shadow mode would have refused.", limit
        )
        self.quota_used = Gauge(
            "gateway_quota_used_ratio",
            "Settled use of a quota, divided by its amount.",
            ("team", "limit", "meter", "per"),
            "max",
        )
        self.quota_runs_out = Gauge(
            "gateway_quota_runs_out_timestamp_seconds",
            "When a quota will be used up at the present pace.",
            ("team", "limit", "meter", "per"),
            "max",
        )
        self.in_flight = Gauge("gateway_requests_in_flight", "Requests in flight.", values={(): 0})
        self.aborted = Counter("gateway_streams_aborted_total", "Streams that ended before completion.", ("by",))
        self.attempts = Counter(
            "gateway_upstream_attempts_total", "Requests sent to an upstream.", ("upstream", "outcome")
        )
        self.redacted = Counter(
            "gateway_redacted_credentials_total", "Credentials of the gateway that an upstream echoed.", ("upstream",)
        )

    def _define_series_of_notifications(self) -> None:
        self.notifications = Counter(
            "gateway_notifications_total",
            "Attempts to deliver a notification, by how they ended.",
            ("channel", "outcome"),
        )
        self.notifications_waiting = Gauge(
            "gateway_notifications_waiting", "Notifications that wait to be delivered.", (), "max", {(): 0}
        )

    def _define_series_of_the_process(self) -> None:
        self.config_reloads = Counter("gateway_config_reloads_total", "Configuration reloads.", ("outcome",))
        self.config_info = Gauge(
            "gateway_config_info", "Always 1; the label identifies the configuration in use.", ("hash",), "max"
        )
        self.config_loaded_at = Gauge(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When the configuration in use was loaded.", aggregation="min",
        )  # fmt: skip
        self.task_failures = Counter(
            "gateway_task_failures_total", "Background tasks that failed and were restarted.", ("task",)
        )
        self.admin_refused = Counter(
            "gateway_admin_requests_refused_total",
            "Requests to the admin API that were refused for their token.",
            ("code",),
        )
        self.log_lines_dropped = Counter(
            "gateway_log_lines_dropped_total", "Log lines that could not be written.", values={(): 0}
        )
        self.records_dropped = Counter(
            "gateway_request_records_dropped_total", "Records of requests that could not be kept.", values={(): 0}
        )
        self.client_connections = Gauge("gateway_client_connections", "Connections of clients.", values={(): 0})
        self.clients_refused = Counter(
            "gateway_client_connections_refused_total",
            "Connections of clients that max_clients refused, or closed idle for others.",
            values={(): 0},
        )
        self.loop_lag = Histogram("gateway_loop_lag_seconds", "Delay of the event loop.", (), LOOP_LAG)
        self.journal_entries = Counter(
            "gateway_journal_entries_total", "Settlements that the store did not accept at once.", ("outcome",)
        )
        self.spans = Counter("gateway_spans_total", "Spans of traces.", ("outcome",))
        self.store_calls = Counter("gateway_store_calls_total", "Store calls.", ("call", "outcome"))
        self.store_seconds = Histogram("gateway_store_call_seconds", "Duration of store calls.", ("call",), STORE_CALL)
        self.unsettled = Gauge(
            "gateway_unsettled_requests",
            "Finished requests whose settlement waits, on disk or in memory.",
            values={(): 0},
        )
        self.upstream_up = Gauge(
            "gateway_upstream_up", "1 while an upstream is available, else 0.", ("upstream",), "min"
        )
        self.build = Gauge(
            "gateway_build_info", "Always 1; the labels identify the build.", ("version", "python"), "max"
        )

    def exchange(self, exchange: Exchange) -> None:
        """Record one finished request."""
        target, parsed, caller = exchange.target, exchange.parsed, exchange.caller
        usage, refusal = exchange.usage, exchange.refusal
        team = caller.team if caller is not None else ""
        model = parsed.binding.model.name if parsed is not None else ""
        upstream = target.upstream.name if target is not None else ""
        is_reported = None if usage is None else usage.source is _REPORTED
        refused_by = None if refusal is None else id(refusal.limit_status.limit)
        endpoint, failure = exchange.request.endpoint.name, exchange.failure()
        which = (endpoint, team, model, upstream, exchange.status, is_reported, failure, refused_by, exchange.attempts)
        answers = self._answers.get(which) or self._begin_answers(which, exchange)
        duration = exchange.ended - exchange.request.at
        overhead = duration - exchange.upstream_seconds
        noted = answers.noted
        noted.append((duration, overhead if overhead > 0 else 0.0, usage, exchange.cost))
        if len(noted) >= _NOTED_ALIKE:
            self._add_answers(answers)
        if exchange.redacted:
            self.redacted.add((upstream,), exchange.redacted)
        if parsed is not None and parsed.stream and exchange.first_byte_at is not None:
            self.first_token.observe((model, upstream), exchange.first_byte_at - exchange.request.at)
            if exchange.error is not None:
                self._broke_off(exchange.error)
        reservation = exchange.reservation
        if reservation is not None:
            self.quotas.note(reservation.limit_statuses)
            for limit in reservation.would_refuse:
                self._add_refusals(self.shadow_refused, limit, team)
        elif refusal is not None and refusal.repeats is None:
            self.quotas.note(refusal.limit_statuses)  # What repeats it says nothing new.

    def store_call(self, call: str, outcome: str, seconds: float) -> None:
        """Record one call of the store: what for, "ok" or "unavailable", and how long it took."""
        calls = self._store_calls[call, outcome]
        calls.append(seconds)
        if len(calls) >= _NOTED_ALIKE:
            self._add_store_calls((call, outcome), calls)

    def journal_entries_were(self, outcome: str, entries: int) -> None:
        """Record the outcome of settlements that could not be made at once: "written", "in_memory", "replayed",
        "parked", "lost"."""
        self.journal_entries.add((outcome,), entries)

    def spans_were(self, outcome: str, spans: int) -> None:
        """Record the outcome of spans: "exported", "dropped", "rejected"."""
        self.spans.add((outcome,), spans)

    def task_failed(self, task: str) -> None:
        self.task_failures.add((task,))

    def loop_lagged(self, seconds: float) -> None:
        self.loop_lag.observe((), seconds)

    def forecasts(self, statuses: Iterable[LimitStatus]) -> None:
        """Note when each of these quotas runs out; one that does not in its window has no series."""
        self.quota_runs_out.values = {
            quota_labels(status.limit): status.runs_out_ms / 1000 for status in statuses if status.runs_out_ms
        }

    def config_loaded(self, config_hash: str, at_s: float) -> None:
        """A configuration is in use from now on. `at_s` is in seconds since 1970."""
        self.config_info.values = {(config_hash,): 1}
        self.config_loaded_at.set(at_s)

    def keep(self, snapshot: ConfigSnapshot, names: ConfiguredNames) -> None:
        """Show series of this configuration alone from now on. `names` are what `configured_names` gives of it."""
        for answers in self._answers.values():
            self._add_answers(answers)  # By the names that their limits had.
        self.quotas.keep(snapshot)
        self._names = names

    def parts(self) -> Iterator[bytes]:
        """The exposition, part by part: requests may be counted between two of them."""
        return exposition_parts(chain(self.each(), self._process.series()))

    def packed(self, every: Iterable[Series]) -> bytes:
        """The same for a supervisor, which adds it to that of other workers. `every` is what `each` has given."""
        return pack(ProcessReport([*every, *self._process.series()], self._names))

    def each(self) -> Iterator[Series]:
        """Every series but those of the process: what is no longer configured is removed from each as it is given."""
        self.add_counted()
        self.quota_used.values = self.quotas.ratios()
        for each in [each for each in vars(self).values() if isinstance(each, Series)]:
            if self._names is not None:
                prune((each,), self._names)
            yield each

    def _begin_answers(self, which: tuple[Any, ...], exchange: Exchange) -> _Answers:
        if len(self._answers) >= _NOTED_KINDS:
            self._add_answers(self._answers.pop(next(iter(self._answers))))
        answers = self._answers[which] = _Answers(
            (*which[:4], str(exchange.status)),
            exchange.usage.source if exchange.usage is not None else "",
            exchange.failure(),
            exchange.refusal.limit_status.limit if exchange.refusal is not None else None,
            exchange.attempts,
        )
        return answers

    def add_counted(self) -> None:
        """Add to the series what was noted since the last time."""
        for answers in self._answers.values():
            self._add_answers(answers)
        self._answers.clear()
        for labels, calls in self._store_calls.items():
            self._add_store_calls(labels, calls)
        self._store_calls.clear()

    def _add_answers(self, answers: _Answers) -> None:
        if not answers.noted:
            return
        number = len(answers.noted)
        durations, overheads, usages, costs = zip(*answers.noted, strict=True)
        answers.noted.clear()
        endpoint, team, model, upstream, _ = answers.labels
        self.requests.add(answers.labels, number)
        self.duration.of((model, upstream)).add_all(DURATION, durations)
        self.overhead.of((endpoint,)).add_all(OVERHEAD, overheads)
        for attempt in answers.attempts:
            self.attempts.add(attempt, number)
        if answers.failure is not None:
            self.errors.add((*answers.failure, upstream), number)
        if answers.refused_by is not None:
            self._add_refusals(self.refused, answers.refused_by, team, number)
        if answers.source:
            self._add_usage(answers, usages, sum(costs))

    def _add_usage(self, answers: _Answers, usages: Sequence[Usage], cost: int) -> None:
        _, team, model, upstream, _ = answers.labels
        for kind, counts in _KINDS_OF_TOKENS.items():
            tokens = sum([sum(map(count, usages)) for count in counts])
            if tokens or kind in ("input", "output"):
                self.tokens.add((team, model, upstream, kind, answers.source), tokens)
        self.cost.add((team, model), cost)

    def _add_store_calls(self, labels: Labels, seconds: list[float]) -> None:
        call, _ = labels
        self.store_calls.add(labels, len(seconds))
        self.store_seconds.of((call,)).add_all(STORE_CALL, seconds)
        seconds.clear()

    def _broke_off(self, error: GatewayError) -> None:
        """A stream ended with this error."""
        by = next((by for kind, by in _ABORTED_BY if isinstance(error, kind)), "")
        if by:
            self.aborted.add((by,))

    def _add_refusals(self, counter: Counter, limit: Limit, team: str, number: int = 1) -> None:
        name = self._limit_label(limit.name, limit.scope)
        counter.add((team, name, limit.meter, limit.per or "", limit.scope), number)

    def _limit_label(self, name: str, scope: str) -> str:
        """For limits of single keys in the store, which may have any name, only names of the configuration are used."""
        is_known = scope != Scope.KEY or self._names is None or name in self._names.limit
        return name if is_known else STORED_LIMIT
