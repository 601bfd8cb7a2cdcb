"""What one finished request adds to the metrics, read from the exposition as Prometheus would."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.errors import (
    ClientGone,
    GatewayError,
    ModelUnknown,
    ShuttingDown,
    UpstreamBroke,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.refusals import Fault
from gateway.core.reservation import Holds, LimitStatuses, Reservation
from gateway.core.snapshot import ConfigSnapshot, Model, Target, TeamTerms, Upstream
from gateway.core.usage import Usage, UsageSource
from gateway.settings.upstream_settings import TimeoutSettings
from gateway.telemetry.configured_names import configured_names
from gateway.telemetry.exposition import MetricsAggregator
from gateway.telemetry.metrics import DURATION, FIRST_TOKEN, Metrics
from gateway.telemetry.traffic import TrafficTotals
from tests.unit.fakes import limit_statuses_of
from tests.unit.telemetry.exchanges import (
    CALLER,
    MODEL,
    MONTHLY,
    NOW_MS,
    TARGET,
    SeenTally,
    StoppedClock,
    answered,
    limit_status,
    refuse,
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
    for family in text_string_to_metric_families(b"".join(metrics.parts()).decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def quota_used(metrics: Metrics, **changes: str) -> float | None:
    labels = {"team": "search", "limit": "month", "meter": "tokens", "per": "month", **changes}
    return value(metrics, "gateway_quota_used_ratio", **labels)


def series(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in text_string_to_metric_families(b"".join(metrics.parts()).decode()))


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


def test_tokens_written_to_a_cache_are_counted_for_however_long_they_are_kept(metrics: Metrics) -> None:
    x = answered()
    x.usage = Usage(input=120, output=300, cache_write=30, cache_write_1h=12)
    metrics.exchange(x)
    assert value(metrics, "gateway_tokens_total", direction="cache_write", source="reported", **SEARCH) == 42


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


def test_a_request_refused_at_once_has_empty_labels(metrics: Metrics) -> None:
    x = unheard()
    x.error = ModelUnknown("No such model.")
    x.status = 404
    metrics.exchange(x)
    labels = {"endpoint": "chat.completions", "team": "", "model": "", "upstream": "", "status": "404"}
    assert value(metrics, "gateway_requests_total", **labels) == 1
    assert value(metrics, "gateway_errors_total", blame="caller", code="model_not_found", upstream="") == 1


def test_nothing_that_a_client_sends_becomes_a_label(metrics: Metrics) -> None:
    metrics.exchange(answered())
    unknown = unheard()
    unknown.error, unknown.status = ModelUnknown("No such model."), 404
    metrics.exchange(unknown)
    before = series(metrics)
    for number in range(1_000):
        junk = unheard(f"junk-{number}", **{"user-agent": f"junk-{number}"})
        junk.error, junk.status = ModelUnknown(f"No model junk-{number}."), 404
        metrics.exchange(junk)
        metrics.exchange(answered(user=f"junk-{number}", asked=f"junk-{number}"))
    assert series(metrics) == before
    assert b"junk" not in b"".join(metrics.parts())


def test_a_refusal_names_its_limit(metrics: Metrics) -> None:
    limit = Limit("minute", Scope.USER, "ann", Meter.REQUESTS, Per.MINUTE, 20, 20, "search")
    x = answered()
    refuse(x, limit, 20)
    metrics.exchange(x)
    labels = {"team": "search", "limit": "minute", "meter": "requests", "per": "minute", "scope": "user"}
    assert value(metrics, "gateway_refused_total", **labels) == 1


def test_refusals_are_counted_by_the_team_and_the_limit_whoever_else_is_refused(metrics: Metrics) -> None:
    everyone = Limit("all", Scope.ORGANISATION, "", Meter.REQUESTS, Per.MINUTE, 20, 20)
    limits = [Limit(f"limit-{number}", Scope.MODEL, "m", Meter.REQUESTS, Per.DAY, 5, 5) for number in range(200)]
    for limit in limits * 2:
        for x, of in ((answered(), limit), (answered(), everyone), (unheard(), everyone)):
            refuse(x, of, 5)
            metrics.exchange(x)
    labels = {"limit": "all", "meter": "requests", "per": "minute", "scope": "organisation"}
    assert value(metrics, "gateway_refused_total", team="search", **labels) == 400
    assert value(metrics, "gateway_refused_total", team="", **labels) == 400
    one = {"limit": "limit-7", "meter": "requests", "per": "day", "scope": "model", "team": "search"}
    assert value(metrics, "gateway_refused_total", **one) == 2


def test_a_refusal_by_concurrency_has_an_empty_window(metrics: Metrics) -> None:
    limit = Limit("slots", Scope.TEAM, "search", Meter.CONCURRENT, None, 4, 4, "search")
    x = unheard()
    refuse(x, limit, 4)
    metrics.exchange(x)
    labels = {"team": "", "limit": "slots", "meter": "concurrent", "per": "", "scope": "team"}
    assert value(metrics, "gateway_refused_total", **labels) == 1


def test_a_shadow_limit_is_counted_apart(metrics: Metrics) -> None:
    x = answered()
    shadow = Limit("try", Scope.TEAM, "search", Meter.TOKENS, Per.DAY, 10, 10, "search")
    x.reservation = Reservation("id", NOW_MS, 100, False, Holds(), LimitStatuses(), (shadow,))
    metrics.exchange(x)
    labels = {"team": "search", "limit": "try", "meter": "tokens", "per": "day", "scope": "team"}
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


@pytest.mark.parametrize(
    ("status", "fault", "blame"),
    [
        (400, Fault.CALLER, "caller"),
        (500, Fault.CALLER, "caller"),
        (408, Fault.UNKNOWN, "upstream"),
        (429, Fault.PROVIDER, "upstream"),
        (402, Fault.PROVIDER, "upstream"),
    ],
)
def test_an_upstreams_own_error_is_blamed_on_whose_fault_it_is(
    metrics: Metrics, status: int, fault: Fault, blame: str
) -> None:
    x = answered(stream=False)
    x.status, x.tally = status, SeenTally(fault)
    metrics.exchange(x)
    assert value(metrics, "gateway_errors_total", blame=blame, code="passed_on", upstream="inducta") == 1


def test_an_error_inside_a_stream_counts_against_the_upstream(metrics: Metrics) -> None:
    x = answered()
    x.tally = SeenTally(Fault.PROVIDER)
    metrics.exchange(x)
    assert value(metrics, "gateway_errors_total", blame="upstream", code="error_event", upstream="inducta") == 1


def test_a_refusal_by_policy_inside_a_stream_counts_against_the_caller(metrics: Metrics) -> None:
    x = answered()
    x.tally = SeenTally(Fault.CALLER)
    metrics.exchange(x)
    assert value(metrics, "gateway_errors_total", blame="caller", code="error_event", upstream="inducta") == 1


def test_a_quotas_used_part_is_shown_until_its_window_is_over(metrics: Metrics, clock: StoppedClock) -> None:
    metrics.exchange(answered())
    assert quota_used(metrics) == 0.25
    clock.ms += 60_000
    assert quota_used(metrics) == 0


def test_a_quota_over_all_time_never_resets(metrics: Metrics, clock: StoppedClock) -> None:
    total = Limit("all", Scope.ORGANISATION, "", Meter.USD, Per.TOTAL, 1_000, 1_000)
    metrics.quotas.note(limit_statuses_of([limit_status(total, 500, resets_ms=0)]))
    clock.ms += 10**12
    assert quota_used(metrics, team="", limit="all", meter="usd", per="total") == 0.5


def test_a_quota_that_runs_out_says_when(metrics: Metrics) -> None:
    name, labels = "gateway_quota_runs_out_timestamp_seconds", {"team": "search", "limit": MONTHLY.name}
    labels |= {"meter": MONTHLY.meter, "per": "month"}
    status = limit_status(MONTHLY, 250)
    metrics.forecasts([msgspec.structs.replace(status, runs_out_ms=1_500)])
    assert value(metrics, name, **labels) == 1.5
    metrics.forecasts([status])
    assert value(metrics, name, **labels) is None


def test_several_quotas_of_one_kind_are_shown_apart(metrics: Metrics) -> None:
    other = Limit("month of one model", Scope.TEAM, "search", Meter.TOKENS, Per.MONTH, 100, 100, "search")
    metrics.quotas.note(limit_statuses_of([limit_status(MONTHLY, 900), limit_status(other, 30)]))
    assert (quota_used(metrics), quota_used(metrics, limit="month of one model")) == (0.9, 0.3)


def test_a_refusal_keeps_the_used_part_current(metrics: Metrics) -> None:
    x = answered()
    refuse(x, MONTHLY, 1_000)
    metrics.exchange(x)
    assert quota_used(metrics) == 1


def test_a_refusal_that_is_repeated_is_counted_and_says_nothing_new_of_a_quota(metrics: Metrics) -> None:
    x = answered()
    refuse(x, MONTHLY, 1_000)
    metrics.exchange(x)
    metrics.exchange(answered())
    assert x.refusal is not None
    x.refusal = msgspec.structs.replace(x.refusal, repeats=x.refusal)
    metrics.exchange(x)
    assert quota_used(metrics) == 0.25
    labels = {"team": "search", "limit": "month", "meter": "tokens", "per": "month", "scope": "team"}
    assert value(metrics, "gateway_refused_total", **labels) == 2


def test_quotas_of_keys_and_users_make_no_series(metrics: Metrics) -> None:
    before = series(metrics)
    of_key = Limit("key", Scope.KEY, "0123456789ab", Meter.TOKENS, Per.MONTH, 100, 100, "search")
    of_user = Limit("user", Scope.USER, "ann", Meter.TOKENS, Per.MONTH, 100, 100, "search")
    metrics.quotas.note(limit_statuses_of([limit_status(of_key, 10), limit_status(of_user, 10)]))
    assert series(metrics) == before


def test_a_call_of_the_store_is_counted_and_timed(metrics: Metrics) -> None:
    metrics.store_call("admit", "ok", 0.002)
    metrics.store_call("admit", "unavailable", 0.25)
    assert value(metrics, "gateway_store_calls_total", call="admit", outcome="unavailable") == 1
    assert value(metrics, "gateway_store_call_seconds_sum", call="admit") == 0.252
    assert value(metrics, "gateway_store_call_seconds_bucket", call="admit", le="0.0025") == 1


def test_the_build_is_shown(metrics: Metrics) -> None:
    assert b'gateway_build_info{version="1.2.3"' in b"".join(metrics.parts())


def test_every_metric_and_label_is_documented(metrics: Metrics) -> None:
    page = DOCS.read_text()
    for each in metrics.each():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{each.name}` |")), "")
        assert row, f"{each.name} has no row in docs/metrics.md"
        missing = [label for label in each.labels if f"`{label}`" not in row]
        assert not missing, f"{each.name}: {missing} not named in its row"


def test_names_from_the_configuration_are_escaped(metrics: Metrics) -> None:
    name = 'odd "model" \\ with\nlines'
    metrics.exchange(answered(model=Model(name, ())))
    assert value(metrics, "gateway_cost_usd_total", team="search", model=name) == 1.234567


def configuration(*limits: Limit, model: Model = MODEL) -> ConfigSnapshot:
    caller = msgspec.structs.replace(CALLER, limits=limits)
    models = {model.name: model, "alias": model}
    return ConfigSnapshot(callers={"digest": caller}, models=models, teams={caller.team: TeamTerms(caller)})


def keep(metrics: Metrics, snapshot: ConfigSnapshot, teams: Iterable[str]) -> None:
    metrics.keep(snapshot, configured_names(snapshot, teams))


def raised(amount: int) -> Limit:
    return msgspec.structs.replace(MONTHLY, amount=amount, burst=amount)


def test_a_quota_that_a_reload_removes_is_shown_no_longer(metrics: Metrics) -> None:
    keep(metrics, configuration(MONTHLY), ["search"])
    metrics.exchange(answered())
    assert quota_used(metrics) == 0.25
    keep(metrics, configuration(), ["search"])
    assert quota_used(metrics) is None


def test_a_limit_that_only_a_stored_key_has_is_counted_under_one_name(metrics: Metrics) -> None:
    keep(metrics, configuration(MONTHLY), ["search"])
    for name in ("anything", "else", MONTHLY.name):
        own = Limit(name, Scope.KEY, CALLER.key_id, Meter.REQUESTS, Per.MONTH, 5, 5, "search")
        x = answered()
        refuse(x, own, 5)
        metrics.exchange(x)
    metrics.add_counted()
    assert metrics.refused.values == {
        ("search", "(stored)", "requests", "month", "key"): 2,
        ("search", MONTHLY.name, "requests", "month", "key"): 1,
    }
    assert "(stored)" in b"".join(metrics.parts()).decode()


def test_a_quota_that_a_reload_raises_shows_its_new_ratio_at_once(metrics: Metrics) -> None:
    keep(metrics, configuration(MONTHLY), ["search"])
    metrics.quotas.note(limit_statuses_of([limit_status(MONTHLY, 1_000)]))
    keep(metrics, configuration(raised(4_000)), ["search"])
    assert quota_used(metrics) == 0.25


def test_a_raised_quota_that_refused_a_request_shows_its_new_ratio_in_dollars_too(metrics: Metrics) -> None:
    spend = Limit("spend", Scope.TEAM, "search", Meter.USD, Per.MONTH, 5_000_000, 5_000_000, "search")
    labels = {"limit": "spend", "meter": "usd"}
    keep(metrics, configuration(spend), ["search"])
    x = answered()
    refuse(x, spend, 5_000_000)
    metrics.exchange(x)
    assert quota_used(metrics, **labels) == 1
    keep(metrics, configuration(msgspec.structs.replace(spend, amount=20_000_000)), ["search"])
    assert quota_used(metrics, **labels) == 0.25


def test_after_a_raise_the_workers_together_show_the_new_ratio() -> None:
    aggregator = MetricsAggregator()
    for number, used in enumerate((1_000, 900)):
        worker = Metrics(StoppedClock(), "1.2.3")
        keep(worker, configuration(MONTHLY), ["search"])
        worker.quotas.note(limit_statuses_of([limit_status(MONTHLY, used)]))
        keep(worker, configuration(raised(4_000)), ["search"])
        aggregator.update(number, worker.packed(worker.each()))
    labels = 'team="search",limit="month",meter="tokens",per="month"'
    assert f"gateway_quota_used_ratio{{{labels}}} 0.25\n" in b"".join(aggregator.parts([])).decode()


def test_a_quota_over_other_models_than_before_begins_again(metrics: Metrics) -> None:
    keep(metrics, configuration(MONTHLY), ["search"])
    metrics.quotas.note(limit_statuses_of([limit_status(MONTHLY, 1_000)]))
    keep(metrics, configuration(msgspec.structs.replace(MONTHLY, models=("other",))), ["search"])
    assert quota_used(metrics) is None


def test_series_of_a_team_and_a_model_that_a_reload_removes_go(metrics: Metrics) -> None:
    metrics.exchange(answered())
    metrics.store_call("admit", "ok", 0.002)
    model = Model("other", (Target(Upstream("spare", "http://spare.test/v1", ()), "m"),))
    keep(metrics, configuration(model=model), ["ops"])
    text = b"".join(metrics.parts()).decode()
    assert [name for name in ("search", MODEL.name, "inducta") if f'"{name}"' in text] == []
    assert value(metrics, "gateway_store_calls_total", call="admit", outcome="ok") == 1
    assert value(metrics, "gateway_overhead_seconds_count", endpoint="chat.completions") == 1


def test_a_request_that_outlives_its_team_brings_no_series_back(metrics: Metrics) -> None:
    keep(metrics, configuration(), ["ops"])
    metrics.exchange(answered())
    assert b'team="search"' not in b"".join(metrics.parts())


def test_a_counter_of_what_stays_configured_never_falls(metrics: Metrics) -> None:
    for count in range(1, 4):
        metrics.exchange(answered())
        keep(metrics, configuration(MONTHLY), ["search", f"team-{count}"])
        labels = {"endpoint": "chat.completions", "status": "200", **SEARCH}
        assert value(metrics, "gateway_requests_total", **labels) == count


def test_a_team_without_a_key_in_the_configuration_keeps_its_series(metrics: Metrics) -> None:
    metrics.exchange(answered())
    keep(metrics, ConfigSnapshot(callers={}, models={MODEL.name: MODEL}), ["search"])
    assert value(metrics, "gateway_cost_usd_total", team="search", model=MODEL.name) == 1.234567


def test_the_configuration_in_use_is_shown_with_the_time_of_its_load(metrics: Metrics) -> None:
    assert value(metrics, "gateway_config_last_reload_success_timestamp_seconds") is None
    metrics.config_loaded("0123abcd", 1_800_000_000.0)
    metrics.config_loaded("4567cdef", 1_800_000_060.0)
    assert value(metrics, "gateway_config_info", hash="0123abcd") is None
    assert value(metrics, "gateway_config_info", hash="4567cdef") == 1
    assert value(metrics, "gateway_config_last_reload_success_timestamp_seconds") == 1_800_000_060


def test_a_store_call_is_told_apart_from_one_that_is_50_microseconds_longer(metrics: Metrics) -> None:
    for seconds in (0.00004, 0.00009, 0.00014):
        metrics.store_call("admit", "ok", seconds)
    bounds = ("5e-05", "0.0001", "0.00015")
    assert [value(metrics, "gateway_store_call_seconds_bucket", call="admit", le=le) for le in bounds] == [1, 2, 3]


def test_what_is_counted_between_two_scrapes_is_added_once(metrics: Metrics) -> None:
    labels = {"endpoint": "chat.completions", "status": "200", **SEARCH}
    for scrape in (1, 2, 3):
        metrics.exchange(answered())
        metrics.store_call("admit", "ok", 0.001)
        for _ in range(2):
            assert value(metrics, "gateway_requests_total", **labels) == scrape
            assert value(metrics, "gateway_request_duration_seconds_count", **PLACE) == scrape
            assert value(metrics, "gateway_store_calls_total", call="admit", outcome="ok") == scrape


def test_nothing_is_lost_of_many_requests_of_many_kinds(metrics: Metrics) -> None:
    models = [Model(f"m-{number}", (TARGET,)) for number in range(200)]
    for number in range(1_000):
        x = answered(model=models[number % 200 if number < 500 else number % 3])
        x.error = UpstreamUnreachable("Refused.") if number % 2 else None
        x.attempts = (("inducta", "connect"), ("inducta", "ok"))
        metrics.exchange(x)
        metrics.store_call("settle", "ok", 0.001)
    totals = TrafficTotals.of(metrics)
    assert (totals.requests, sum(totals.duration), sum(totals.first_token)) == (1_000, 1_000, 1_000)
    assert (totals.input_tokens, totals.output_tokens) == (120_000, 300_000)
    assert totals.micro_dollars == 1_234_567_000
    assert totals.attempts == {"inducta": {"connect": 1_000, "ok": 1_000}}
    assert totals.failed == {"upstream": 500}
    assert sum(metrics.cost.values[("search", f"m-{number}")] for number in range(3)) == 1_234_567 * 509
    assert value(metrics, "gateway_store_call_seconds_count", call="settle") == 1_000


def test_the_last_report_of_a_quota_counts_whoever_made_it(metrics: Metrics) -> None:
    of_one_key, of_another = [MONTHLY], [MONTHLY, MONTHLY]
    for used, limits in ((300, of_one_key), (500, of_another), (400, of_one_key)):
        metrics.quotas.note(LimitStatuses(limits, [used], [0], [NOW_MS + 60_000]))
    assert quota_used(metrics) == 0.4
    for used in range(500, 900):
        metrics.quotas.note(LimitStatuses([MONTHLY], [used], [0], [NOW_MS + 60_000]))
    assert quota_used(metrics) == 0.899


def test_a_series_that_a_reload_removed_begins_again_with_its_histograms(metrics: Metrics) -> None:
    metrics.exchange(answered())
    keep(metrics, ConfigSnapshot({}, {}), [])
    assert value(metrics, "gateway_request_duration_seconds_count", **PLACE) is None
    keep(metrics, ConfigSnapshot({"digest": CALLER}, {MODEL.name: MODEL}), ["search"])
    metrics.exchange(answered())
    assert value(metrics, "gateway_request_duration_seconds_count", **PLACE) == 1


def test_the_slowest_answer_that_the_default_timeouts_allow_is_within_the_histograms() -> None:
    timeouts = TimeoutSettings()
    first_byte = timeouts.connect + timeouts.first_byte
    assert FIRST_TOKEN[-1] > first_byte.total_seconds()
    assert DURATION[-1] > (timeouts.connect + timeouts.total).total_seconds()
