"""The series of several processes as one."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.gathering import Gathering, fold, pack, unpack
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import Counter, Gauge, Histogram, Series
from tests.unit.telemetry.exchanges import StoppedClock, answered

SPENT = ("search", "openai/gpt-oss-120b")


def counter(amount: int, team: str = "search") -> Counter:
    counted = Counter("c_total", "C.", ("team",))
    counted.add((team,), amount)
    return counted


def gauge(value: float, fold: str, name: str = "g") -> Gauge:
    return Gauge(name, "G.", fold=fold, values={(): value})  # type: ignore[arg-type]


def folded(*processes: list[Series]) -> dict[str, Series]:
    return {series.name: series for series in fold([pack(every) for every in processes])}


def shown(gathering: Gathering, own: list[Series] | None = None) -> dict[str, float]:
    text = gathering.render(own or [])[0].decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_what_is_packed_comes_out_as_it_was() -> None:
    metrics = Metrics(StoppedClock(), "1.2.3")
    metrics.exchange(answered())
    assert unpack(pack(metrics.every())) == metrics.every()


def test_counters_add_up_by_their_labels() -> None:
    both = folded([counter(2)], [counter(3), counter(0)], [counter(4, "ops")])["c_total"]
    assert isinstance(both, Counter)
    assert both.values == {("search",): 5, ("ops",): 4}


def test_histograms_add_up_bucket_by_bucket() -> None:
    one, other = (Histogram("h", "H.", (), (1, 2)) for _ in range(2))
    one.observe((), 0.5)
    other.observe((), 0.5)
    other.observe((), 7)
    both = folded([one], [other])["h"]
    assert isinstance(both, Histogram)
    assert (both.cells[()].counts, both.cells[()].total) == ([2, 0, 1], 8.0)


def test_a_gauge_adds_up_or_is_the_most_or_the_least() -> None:
    for how, expected in (("sum", 5), ("max", 3), ("min", 2)):
        both = folded([gauge(3, how)], [gauge(2, how)])["g"]
        assert isinstance(both, Gauge)
        assert both.values[()] == expected


def test_the_build_is_told_once_and_requests_in_flight_are_those_of_all() -> None:
    processes = [Metrics(StoppedClock(), "1.2.3") for _ in range(2)]
    for metrics in processes:
        metrics.in_flight.set(2)
    gathering = Gathering()
    for number, metrics in enumerate(processes):
        gathering.note(number, metrics.packed())
    assert shown(gathering)["gateway_build_info"] == 1
    assert shown(gathering)["gateway_requests_in_flight"] == 4


def test_several_processes_show_what_one_would() -> None:
    alone = Metrics(StoppedClock(), "1.2.3")
    gathering = Gathering()
    for number in range(3):
        worker = Metrics(StoppedClock(), "1.2.3")
        for metrics in (alone, worker):
            metrics.exchange(answered())
        gathering.note(number, pack(worker.every()))
    text = gathering.render([])[0].decode()
    assert sorted(text.splitlines()) == sorted(Gathering().render(alone.every())[0].decode().splitlines())


def test_what_a_dead_worker_counted_stays_and_what_it_held_is_gone() -> None:
    gathering = Gathering()
    gathering.note(0, pack([counter(5), gauge(3, "sum")]))
    gathering.note(1, pack([counter(1), gauge(1, "sum")]))
    gathering.retire(0)
    assert shown(gathering) == {"c_total": 6, "g": 1}
    gathering.note(0, pack([counter(2), gauge(0, "sum")]))
    gathering.retire(0)
    assert shown(gathering) == {"c_total": 8, "g": 1}


def test_a_worker_that_ends_before_it_was_asked_takes_nothing_with_it() -> None:
    gathering = Gathering()
    gathering.note(1, pack([counter(1)]))
    gathering.retire(0)
    assert shown(gathering) == {"c_total": 1}


def test_what_the_supervisor_counts_itself_stands_beside() -> None:
    gathering = Gathering()
    gathering.note(0, pack([counter(5)]))
    restarts = Counter("r_total", "R.")
    restarts.add(())
    assert shown(gathering, [restarts]) == {"c_total": 5, "r_total": 1}


def test_cpu_and_memory_of_several_processes_add_up_and_the_oldest_start_counts() -> None:
    process = {series.name: series for series in unpack(Metrics(StoppedClock(), "1.2.3").packed())}
    cpu, start = process["process_cpu_seconds_total"], process["process_start_time_seconds"]
    resident = process["process_resident_memory_bytes"]
    assert isinstance(cpu, Counter)
    assert isinstance(start, Gauge)
    assert isinstance(resident, Gauge)
    assert cpu.values[()] > 0
    assert (start.fold, resident.fold) == ("min", "sum")
