"""What passed in the last hours: what is in a sample, how long samples are kept, and how those of workers are added."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.telemetry.metrics import DURATION, FIRST_TOKEN, Metrics
from gateway.telemetry.traffic import HISTORY_MINUTES, MINUTE_MS, TrafficHistory, quantile, traffic_report
from tests.unit.fakes import StandingClock


@pytest.fixture
def clock() -> StandingClock:
    clock = StandingClock()
    clock.ms -= clock.ms % MINUTE_MS
    return clock


@pytest.fixture
def metrics(clock: StandingClock) -> Metrics:
    return Metrics(clock, "0")


def history_of(metrics: Metrics, clock: StandingClock) -> TrafficHistory:
    return TrafficHistory(metrics, clock, lambda: 2)


def passed(metrics: Metrics, requests: int = 1, seconds: float = 0.3) -> None:
    metrics.requests.add(("chat", "search", "m", "up", "200"), requests)
    metrics.attempts.add(("up", "200"), requests)
    metrics.tokens.add(("search", "m", "up", "input", "reported"), 10 * requests)
    metrics.tokens.add(("search", "m", "up", "cached_input", "reported"), 4 * requests)
    metrics.tokens.add(("search", "m", "up", "output", "reported"), 20 * requests)
    metrics.cost.add(("search", "m"), 1_500 * requests)
    for _ in range(requests):
        metrics.duration.observe(("m", "up"), seconds)


def samples(history: TrafficHistory, minutes: int = 60) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(history.report(minutes)))["data"]
    return found


def test_a_sample_has_what_was_added_in_its_minute(clock: StandingClock, metrics: Metrics) -> None:
    history = history_of(metrics, clock)
    passed(metrics, 2)
    clock.ms += MINUTE_MS
    history.sample()
    passed(metrics, 3)
    metrics.errors.add(("upstream", "upstream_timeout", "up"))
    clock.ms += MINUTE_MS
    history.sample()
    first, second, running = samples(history)
    assert (first["requests"], first["input_tokens"], first["output_tokens"], first["usd"]) == (2, 20, 40, 0.003)
    assert (second["requests"], second["seconds"]) == (3, 60.0)
    assert second["failed"] == {"caller": 0, "policy": 0, "upstream": 1, "gateway": 0}
    assert second["attempts"] == {"up": {"200": 3}}
    assert (running["requests"], running["seconds"], running["in_flight"]) == (0, 0.0, 2)


def test_the_minute_that_runs_is_reported_too(clock: StandingClock, metrics: Metrics) -> None:
    history = history_of(metrics, clock)
    passed(metrics)
    clock.ms += 15_000
    (running,) = samples(history)
    assert (running["requests"], running["seconds"]) == (1, 15.0)
    assert running["duration"]["p50_s"] == quantile(DURATION, running["duration"]["counts"], 0.5)


def test_a_timer_that_fires_a_little_early_does_not_move_a_sample(clock: StandingClock, metrics: Metrics) -> None:
    history = history_of(metrics, clock)
    clock.ms += MINUTE_MS - 3
    history.sample()
    clock.ms += MINUTE_MS
    history.sample()
    minutes = [each["at"] for each in samples(history)]
    assert len(minutes) == len(set(minutes)) == 2  # The one that runs is a few milliseconds of the second.


def test_what_is_left_of_a_minute_after_its_sample_is_added_to_it(clock: StandingClock, metrics: Metrics) -> None:
    history = history_of(metrics, clock)
    clock.ms += 50_000
    passed(metrics)
    history.sample()
    passed(metrics, 2)
    clock.ms += 5_000
    (both,) = samples(history)
    assert (both["requests"], sum(both["duration"]["counts"])) == (3, 3)


def test_only_the_last_hours_are_kept(clock: StandingClock, metrics: Metrics) -> None:
    history = history_of(metrics, clock)
    for _ in range(HISTORY_MINUTES + 50):
        clock.ms += MINUTE_MS
        history.sample()
    assert len(samples(history, HISTORY_MINUTES)) == HISTORY_MINUTES
    assert len(samples(history, 10)) == 10


def test_series_that_a_reload_takes_away_count_as_nothing(clock: StandingClock, metrics: Metrics) -> None:
    history = history_of(metrics, clock)
    passed(metrics, 5)
    clock.ms += MINUTE_MS
    history.sample()
    metrics.requests.values.clear()
    metrics.duration.values.clear()
    metrics.attempts.values.clear()
    clock.ms += MINUTE_MS
    history.sample()
    second = samples(history)[1]
    assert (second["requests"], second["duration"]["counts"], second["attempts"]) == (0, [], {})


def test_the_minutes_of_workers_are_added(clock: StandingClock, metrics: Metrics) -> None:
    one, other = history_of(metrics, clock), history_of(metrics, clock)
    passed(metrics, 3, seconds=0.3)
    passed(metrics, 1, seconds=4.0)
    clock.ms += 30_000
    (both,) = traffic_report([*samples(one), *samples(other)])["data"]
    assert (both["requests"], both["usd"], both["seconds"]) == (8, 0.012, 30.0)
    assert both["attempts"] == {"up": {"200": 8}}
    (alone,) = samples(one)
    assert both["duration"]["p95_s"] == alone["duration"]["p95_s"]
    assert sum(both["duration"]["counts"]) == 8


@pytest.mark.parametrize(
    ("counts", "which", "expected"),
    [
        ([], 0.5, None),
        ([4], 0.5, 0.005),
        ([0, 0, 2], 0.5, 0.0375),
        ([1, 0, 1], 1.0, 0.05),
        ([0] * len(DURATION) + [3], 0.5, DURATION[-1]),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(counts: list[int], which: float, expected: float | None) -> None:
    assert quantile(DURATION, counts, which) == pytest.approx(expected)


def test_the_report_has_the_bounds_that_its_counts_belong_to(clock: StandingClock, metrics: Metrics) -> None:
    report = history_of(metrics, clock).report(1)
    assert report["buckets"] == {"duration": DURATION, "first_token": FIRST_TOKEN}
