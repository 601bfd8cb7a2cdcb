"""Series as text, and those of several processes as one."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.snapshot import ConfigSnapshot, Model
from gateway.telemetry.configured_names import ConfiguredNames
from gateway.telemetry.exposition import (
    PART_CHARACTERS,
    MetricsAggregator,
    ProcessReport,
    aggregate,
    exposition_parts,
    pack,
    unpack,
)
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Counter, Gauge, Histogram, Series
from tests.unit.telemetry.exchanges import TARGET, StoppedClock, answered

SPENT = ("search", "openai/gpt-oss-120b")


def counter(amount: int, team: str = "search") -> Counter:
    counted = Counter("c_total", "C.", ("team",))
    counted.add((team,), amount)
    return counted


def gauge(value: float, aggregation: str, name: str = "g") -> Gauge:
    return Gauge(name, "G.", aggregation=aggregation, values={(): value})  # type: ignore[arg-type]


def report(*series: Series) -> bytes:
    return pack(ProcessReport(list(series)))


def aggregated(*processes: list[Series]) -> dict[str, Series]:
    return {series.name: series for series in aggregate(processes)}


def shown(aggregator: MetricsAggregator, own: list[Series] | None = None) -> dict[str, float]:
    text = b"".join(aggregator.parts(own or [])).decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_what_is_packed_comes_out_as_it_was() -> None:
    metrics = Metrics(StoppedClock(), "1.2.3")
    metrics.exchange(answered())
    assert unpack(pack(ProcessReport(list(metrics.each())))).series == list(metrics.each())


def test_many_series_are_written_in_small_parts_while_others_are_counted() -> None:
    metrics = Metrics(StoppedClock(), "1.2.3")
    for number in range(1_000):
        metrics.first_token.observe((f"model-{number}", "inducta"), 0.1)
        metrics.requests.add(("chat.completions", "search", f"model-{number}", "inducta", "200"))
    parts = []
    for number, part in enumerate(metrics.parts()):
        metrics.first_token.observe((f"new-{number}", "inducta"), 0.1)
        parts.append(part)
    assert max(map(len, parts)) <= 2 * PART_CHARACTERS
    samples = [each for family in text_string_to_metric_families(b"".join(parts).decode()) for each in family.samples]
    known = [each for each in samples if each.labels.get("model", "").startswith("model-")]
    assert len([each for each in known if each.name == "gateway_requests_total"]) == 1_000
    assert len([each for each in known if each.name == "gateway_time_to_first_token_seconds_count"]) == 1_000


LABEL_SETS_AT_ONCE = 500
"""Of which the text takes about a millisecond."""


def label_sets(part: bytes) -> int:
    return sum(b"{" in line and b"_bucket" not in line for line in part.splitlines())


@pytest.mark.parametrize("workers", [0, 3])
def test_ten_thousand_series_are_written_a_few_hundred_at_a_time(workers: int) -> None:
    metrics = Metrics(StoppedClock(), "1.2.3")
    for number in range(10_000):
        metrics.requests.add(("chat.completions", f"team-{number % 100}", f"model-{number}", "inducta", "200"))
    aggregator = MetricsAggregator()
    for worker in range(workers):
        aggregator.update(worker, metrics.packed(metrics.each()))
    parts = list(aggregator.parts([]) if workers else metrics.parts())
    assert max(map(label_sets, parts)) <= LABEL_SETS_AT_ONCE
    assert sum(map(label_sets, parts)) >= 10_000


class CountingNames(frozenset[str]):
    """Names that count how often they are asked for one."""

    asked = 0

    def __contains__(self, name: object) -> bool:
        CountingNames.asked += 1
        return super().__contains__(name)


def test_what_is_configured_is_not_asked_for_each_of_ten_thousand_series_at_once() -> None:
    metrics = Metrics(StoppedClock(), "1.2.3")
    names = [f"model-{number}" for number in range(10_000)]
    for name in names:
        metrics.requests.add(("chat.completions", "search", name, "", "200"))
    metrics.keep(ConfigSnapshot({}, {}), msgspec.structs.replace(configured("search"), model=CountingNames(names[1:])))
    asked = []
    for part in metrics.parts():
        asked.append(CountingNames.asked)
        assert b'"model-0"' not in part
    assert max(after - before for before, after in pairwise([0, *asked])) <= LABEL_SETS_AT_ONCE
    assert len(metrics.requests.values) == 9_999


def test_a_supervisor_shows_the_moment_at_which_it_began_to_write() -> None:
    aggregator = MetricsAggregator()
    aggregator.update(1, report(counter(2)))
    parts = aggregator.parts([])
    text = next(parts)
    aggregator.update(1, report(counter(7)))
    aggregator.retire(1)
    assert b'c_total{team="search"} 2\n' in text + b"".join(parts)
    assert shown(aggregator)["c_total"] == 7


@pytest.mark.parametrize("kinds", [64, 1_000])
def test_little_is_left_to_be_counted_by_a_scrape(kinds: int) -> None:
    metrics = Metrics(StoppedClock(), "1.2.3")
    for number in range(kinds):
        metrics.exchange(answered(model=Model(f"model-{number}", (TARGET,))))
    before = sum(metrics.requests.values.values())
    metrics.add_counted()
    assert sum(metrics.requests.values.values()) == kinds
    assert kinds - before <= 64


def test_counters_add_up_by_their_labels() -> None:
    both = aggregated([counter(2)], [counter(3), counter(0)], [counter(4, "ops")])["c_total"]
    assert isinstance(both, Counter)
    assert both.values == {("search",): 5, ("ops",): 4}


def test_histograms_add_up_bucket_by_bucket() -> None:
    one, other = (Histogram("h", "H.", (), (1, 2)) for _ in range(2))
    one.observe((), 0.5)
    other.observe((), 0.5)
    other.observe((), 7)
    both = aggregated([one], [other])["h"]
    assert isinstance(both, Histogram)
    assert (both.values[()].counts, both.values[()].total) == ([2, 0, 1], 8.0)


def test_a_gauge_adds_up_or_is_the_most_or_the_least() -> None:
    for how, expected in (("sum", 5), ("max", 3), ("min", 2)):
        both = aggregated([gauge(3, how)], [gauge(2, how)])["g"]
        assert isinstance(both, Gauge)
        assert both.values[()] == expected


def test_the_build_is_shown_once_and_requests_in_flight_are_those_of_all() -> None:
    processes = [Metrics(StoppedClock(), "1.2.3") for _ in range(2)]
    for metrics in processes:
        metrics.in_flight.set(2)
    aggregator = MetricsAggregator()
    for number, metrics in enumerate(processes):
        aggregator.update(number, metrics.packed(metrics.each()))
    assert shown(aggregator)["gateway_build_info"] == 1
    assert shown(aggregator)["gateway_requests_in_flight"] == 4


def test_several_processes_show_what_one_would() -> None:
    alone = Metrics(StoppedClock(), "1.2.3")
    aggregator = MetricsAggregator()
    for number in range(3):
        worker = Metrics(StoppedClock(), "1.2.3")
        for metrics in (alone, worker):
            metrics.exchange(answered())
        aggregator.update(number, report(*worker.each()))
    text = b"".join(aggregator.parts([])).decode()
    assert sorted(text.splitlines()) == sorted(b"".join(MetricsAggregator().parts(alone.each())).decode().splitlines())


def test_counters_of_a_dead_worker_stay_and_its_gauges_go() -> None:
    aggregator = MetricsAggregator()
    aggregator.update(0, report(counter(5), gauge(3, "sum")))
    aggregator.update(1, report(counter(1), gauge(1, "sum")))
    aggregator.retire(0)
    assert shown(aggregator) == {"c_total": 6, "g": 1}
    aggregator.update(0, report(counter(2), gauge(0, "sum")))
    aggregator.retire(0)
    assert shown(aggregator) == {"c_total": 8, "g": 1}


def test_a_worker_that_ends_before_it_was_asked_takes_nothing_with_it() -> None:
    aggregator = MetricsAggregator()
    aggregator.update(1, report(counter(1)))
    aggregator.retire(0)
    assert shown(aggregator) == {"c_total": 1}


def test_what_the_supervisor_counts_itself_is_added() -> None:
    aggregator = MetricsAggregator()
    aggregator.update(0, report(counter(5)))
    restarts = Counter("r_total", "R.")
    restarts.add(())
    assert shown(aggregator, [restarts]) == {"c_total": 5, "r_total": 1}


def test_cpu_and_memory_of_several_processes_add_up_and_the_oldest_start_counts() -> None:
    process = {series.name: series for series in unpack(Metrics(StoppedClock(), "1.2.3").packed([])).series}
    cpu, start = process["process_cpu_seconds_total"], process["process_start_time_seconds"]
    resident = process["process_resident_memory_bytes"]
    assert isinstance(cpu, Counter)
    assert isinstance(start, Gauge)
    assert isinstance(resident, Gauge)
    assert cpu.values[()] > 0
    assert (start.aggregation, resident.aggregation) == ("min", "sum")


def configured(*teams: str) -> ConfiguredNames:
    none: frozenset[str] = frozenset()
    return ConfiguredNames(team=frozenset(teams), model=none, upstream=none, limit=none)


def test_what_a_dead_worker_counted_goes_once_no_worker_has_it_configured() -> None:
    aggregator = MetricsAggregator()
    both = Counter("c_total", "C.", ("team",), values={("search",): 5, ("ops",): 7, ("",): 1})
    aggregator.update(0, pack(ProcessReport([both], configured("search", "ops"))))
    aggregator.retire(0)
    aggregator.update(1, pack(ProcessReport([], configured("search"))))
    aggregator.update(2, pack(ProcessReport([], configured("search", "ops"))))
    assert b'team="ops"' in b"".join(aggregator.parts([]))
    aggregator.update(2, pack(ProcessReport([], configured("search"))))
    for _ in range(2):
        lines = b"".join(aggregator.parts([])).decode().splitlines()
        assert lines[2:] == ['c_total{team="search"} 5', 'c_total{team=""} 1']


def test_a_scrape_changes_no_series_of_the_supervisors_own() -> None:
    own = Counter("c_total", "C.", values={(): 1})
    aggregator = MetricsAggregator()
    aggregator.update(0, report(Counter("c_total", "C.", values={(): 2})))
    assert [shown(aggregator, [own]) for _ in range(2)] == [{"c_total": 3}] * 2


def test_a_histograms_bounds_are_inclusive_and_its_buckets_cumulative() -> None:
    histogram = Histogram("h", "H.", (), (0.1, 1))
    for seconds in (0.1, 0.5, 1, 7):
        histogram.observe((), seconds)
    lines = b"".join(exposition_parts([histogram])).decode().splitlines()
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
    assert b"".join(exposition_parts([counter])).decode().splitlines()[-1] == "c_total 1.0"
