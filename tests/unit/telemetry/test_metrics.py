"""What one finished request adds to the metrics, read from the exposition as Prometheus would."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.errors import (
    ClientGone,
    GatewayError,
    ModelUnknown,
    QuotaSpent,
    RateExceeded,
    ShuttingDown,
    UpstreamBroke,
    UpstreamTimedOut,
)
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.reservation import Reservation
from gateway.core.snapshot import Model
from gateway.core.usage import Usage, UsageSource
from gateway.telemetry.exposition import exposition
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Counter, Histogram
from tests.unit.telemetry.exchanges import (
    MONTHLY,
    NOW_MS,
    SeenTally,
    StoppedClock,
    answered,
    limit_status,
    refusal_of,
    unheard,
)

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
PLACE = {"model": "openai/gpt-oss-120b", "upstream": "inducta"}
SEARCH = {"team": "search", **PLACE}


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def metrics(clock: StoppedClock) -> Metrics:
    return Metrics(clock, "1.2.3")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def series(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in text_string_to_metric_families(metrics.render()[0].decode()))


def test_an_answered_request_counts_once_under_its_labels(metrics: Metrics) -> None:
    metrics.exchange(answered())
    metrics.exchange(answered())
    labels = {"endpoint": "chat.completions", "status": "200", **SEARCH}
    assert value(metrics, "gateway_requests_total", **labels) == 2
    assert value(metrics, "gateway_upstream_attempts_total", upstream="inducta", outcome="ok") == 2


def test_tokens_and_cost_are_exact(metrics: Metrics) -> None:
    for _ in range(3):
        metrics.exchange(answered())
    spent = {
        direction: value(metrics, "gateway_tokens_total", direction=direction, source="reported", **SEARCH)
        for direction in ("input", "output", "cached_input", "reasoning")
    }
    assert spent == {"input": 360, "output": 900, "cached_input": 60, "reasoning": 21}
    assert value(metrics, "gateway_cost_usd_total", team="search", model=PLACE["model"]) == 3.703701


def test_estimated_tokens_stand_apart_from_reported_ones(metrics: Metrics) -> None:
    x = answered()
    x.usage = Usage(input=5, output=6, source=UsageSource.ESTIMATED)
    metrics.exchange(x)
    assert value(metrics, "gateway_tokens_total", direction="output", source="estimated", **SEARCH) == 6
    assert value(metrics, "gateway_tokens_total", direction="output", source="reported", **SEARCH) is None


def test_times_are_whole_first_byte_and_the_gateways_own(metrics: Metrics) -> None:
    metrics.exchange(answered())
    assert value(metrics, "gateway_request_duration_seconds_sum", **PLACE) == 2.0
    assert value(metrics, "gateway_time_to_first_token_seconds_sum", **PLACE) == 0.5
    overhead = value(metrics, "gateway_overhead_seconds_sum", endpoint="chat.completions")
    assert overhead == pytest.approx(0.002)


def test_a_plain_answer_has_no_time_to_first_token(metrics: Metrics) -> None:
    metrics.exchange(answered(stream=False))
    assert value(metrics, "gateway_time_to_first_token_seconds_count", **PLACE) is None


def test_a_request_refused_at_the_door_has_empty_labels(metrics: Metrics) -> None:
    x = unheard()
    x.error = ModelUnknown("No such model.")
    x.status = 404
    metrics.exchange(x)
    labels = {"endpoint": "chat.completions", "team": "", "model": "", "upstream": "", "status": "404"}
    assert value(metrics, "gateway_requests_total", **labels) == 1
    assert value(metrics, "gateway_errors_total", blame="caller", code="model_not_found", upstream="") == 1


def test_junk_from_clients_adds_no_series(metrics: Metrics) -> None:
    metrics.exchange(answered())
    x = unheard()
    x.error, x.status = ModelUnknown("No such model."), 404
    metrics.exchange(x)
    before = series(metrics)
    for number in range(10_000):
        junk = unheard(f"request-{number}")
        junk.error, junk.status = ModelUnknown(f"No model junk-{number}."), 404
        metrics.exchange(junk)
        metrics.exchange(answered(user=f"user-{number}"))
    assert series(metrics) == before


def test_a_refusal_names_its_limit(metrics: Metrics) -> None:
    limit = Limit("minute", Scope.USER, "ann", Meter.REQUESTS, Per.MINUTE, 20, 20, "search")
    x = answered()
    x.reservation, x.usage, x.status = None, None, 429
    x.error = RateExceeded("Slow down.", limit=refusal_of(limit, 20))
    metrics.exchange(x)
    assert value(metrics, "gateway_refused_total", team="search", meter="requests", per="minute", scope="user") == 1


def test_a_refusal_by_concurrency_has_an_empty_window(metrics: Metrics) -> None:
    limit = Limit("slots", Scope.TEAM, "search", Meter.CONCURRENT, None, 4, 4, "search")
    x = unheard()
    x.error = RateExceeded("Wait.", limit=refusal_of(limit, 4))
    metrics.exchange(x)
    assert value(metrics, "gateway_refused_total", team="", meter="concurrent", per="", scope="team") == 1


def test_a_shadow_limit_is_counted_apart(metrics: Metrics) -> None:
    x = answered()
    shadow = Limit("try", Scope.TEAM, "search", Meter.TOKENS, Per.DAY, 10, 10, "search")
    x.reservation = Reservation("id", NOW_MS, 100, False, (), (), (shadow,))
    metrics.exchange(x)
    labels = {"team": "search", "meter": "tokens", "per": "day", "scope": "team"}
    assert value(metrics, "gateway_shadow_refused_total", **labels) == 1
    assert value(metrics, "gateway_refused_total", **labels) is None


@pytest.mark.parametrize(
    ("error", "by"),
    [
        (ClientGone("Gone."), "client"),
        (UpstreamBroke("Broke."), "upstream"),
        (UpstreamTimedOut("Silent."), "timeout"),
        (ShuttingDown("Draining."), "shutdown"),
    ],
)
def test_a_stream_that_ends_early_tells_by_whom(metrics: Metrics, error: GatewayError, by: str) -> None:
    x = answered()
    x.error = error
    metrics.exchange(x)
    counts = {
        each: value(metrics, "gateway_streams_aborted_total", by=each)
        for each in ("client", "upstream", "timeout", "shutdown")
    }
    assert counts.pop(by) == 1
    assert set(counts.values()) == {0}


def test_a_stream_that_never_began_is_not_aborted(metrics: Metrics) -> None:
    x = answered()
    x.first_byte_at = None
    x.error = UpstreamTimedOut("Silent.")
    metrics.exchange(x)
    assert value(metrics, "gateway_streams_aborted_total", by="timeout") == 0


@pytest.mark.parametrize(("status", "blame"), [(400, "caller"), (422, "caller"), (429, "upstream"), (500, "upstream")])
def test_an_upstreams_own_error_is_blamed_by_its_status(metrics: Metrics, status: int, blame: str) -> None:
    x = answered(stream=False)
    x.status = status
    metrics.exchange(x)
    assert value(metrics, "gateway_errors_total", blame=blame, code="passed_on", upstream="inducta") == 1


def test_an_error_inside_a_stream_counts_against_the_upstream(metrics: Metrics) -> None:
    x = answered()
    x.tally = SeenTally(failed=True)
    metrics.exchange(x)
    assert value(metrics, "gateway_errors_total", blame="upstream", code="error_event", upstream="inducta") == 1


def test_a_quotas_used_part_is_shown_until_its_window_is_over(metrics: Metrics, clock: StoppedClock) -> None:
    metrics.exchange(answered())
    where = {"team": "search", "meter": "tokens", "per": "month"}
    assert value(metrics, "gateway_quota_used_ratio", **where) == 0.25
    clock.ms += 60_000
    assert value(metrics, "gateway_quota_used_ratio", **where) == 0


def test_a_quota_over_all_time_never_resets(metrics: Metrics, clock: StoppedClock) -> None:
    total = Limit("all", Scope.ORGANISATION, "", Meter.USD, Per.TOTAL, 1_000, 1_000)
    metrics.quotas([limit_status(total, 500, resets_ms=0)])
    clock.ms += 10**12
    assert value(metrics, "gateway_quota_used_ratio", team="", meter="usd", per="total") == 0.5


def test_of_several_quotas_of_one_kind_the_fullest_is_shown(metrics: Metrics) -> None:
    other = Limit("month of one model", Scope.TEAM, "search", Meter.TOKENS, Per.MONTH, 100, 100, "search")
    metrics.quotas([limit_status(MONTHLY, 900), limit_status(other, 30)])
    assert value(metrics, "gateway_quota_used_ratio", team="search", meter="tokens", per="month") == 0.9


def test_a_refusal_keeps_the_used_part_current(metrics: Metrics) -> None:
    x = answered()
    x.reservation, x.usage, x.status = None, None, 429
    x.error = QuotaSpent("Spent.", retry_after_ms=5_000, limit=refusal_of(MONTHLY, 1_000))
    metrics.exchange(x)
    assert value(metrics, "gateway_quota_used_ratio", team="search", meter="tokens", per="month") == 1


def test_quotas_of_keys_and_users_make_no_series(metrics: Metrics) -> None:
    before = series(metrics)
    of_key = Limit("key", Scope.KEY, "0123456789ab", Meter.TOKENS, Per.MONTH, 100, 100, "search")
    of_user = Limit("user", Scope.USER, "ann", Meter.TOKENS, Per.MONTH, 100, 100, "search")
    metrics.quotas([limit_status(of_key, 10), limit_status(of_user, 10)])
    assert series(metrics) == before


def test_requests_in_flight_rise_and_fall(metrics: Metrics) -> None:
    metrics.in_flight.inc()
    metrics.in_flight.inc()
    metrics.in_flight.dec()
    assert value(metrics, "gateway_requests_in_flight") == 1


def test_a_call_of_the_store_is_counted_and_timed(metrics: Metrics) -> None:
    metrics.store_call("admit", "ok", 0.002)
    metrics.store_call("admit", "unavailable", 0.25)
    assert value(metrics, "gateway_store_calls_total", call="admit", outcome="unavailable") == 1
    assert value(metrics, "gateway_store_call_seconds_sum", call="admit") == 0.252
    assert value(metrics, "gateway_store_call_seconds_bucket", call="admit", le="0.0025") == 1


def test_the_build_is_told(metrics: Metrics) -> None:
    body, content_type = metrics.render()
    assert b'gateway_build_info{version="1.2.3"' in body
    assert content_type.startswith("text/plain; version=0.0.4")


def test_every_metric_and_label_is_documented(metrics: Metrics) -> None:
    page = DOCS.read_text()
    for each in metrics.every():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{each.name}` |")), "")
        assert row, f"{each.name} has no row in docs/metrics.md"
        missing = [label for label in each.labels if f"`{label}`" not in row]
        assert not missing, f"{each.name}: {missing} not named in its row"


def test_names_from_the_configuration_are_escaped(metrics: Metrics) -> None:
    name = 'odd "model" \\ with\nlines'
    metrics.exchange(answered(model=Model(name, ())))
    assert value(metrics, "gateway_cost_usd_total", team="search", model=name) == 1.234567


def test_a_histograms_bounds_are_inclusive_and_its_buckets_cumulative() -> None:
    histogram = Histogram("h", "H.", (), (0.1, 1))
    for seconds in (0.1, 0.5, 1, 7):
        histogram.observe((), seconds)
    lines = exposition([histogram]).decode().splitlines()
    assert lines[2:] == [
        'h_bucket{le="0.1"} 1',
        'h_bucket{le="1.0"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 8.6",
        "h_count 4",
    ]


def test_a_counter_in_millionths_shows_whole_units() -> None:
    counter = Counter("c_total", "C.", (), 1_000_000)
    for _ in range(10):
        counter.add((), 100_000)
    assert exposition([counter]).decode().splitlines()[-1] == "c_total 1.0"
