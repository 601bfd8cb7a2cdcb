"""The process' own figures are those of Prometheus' own client."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.telemetry.process_metrics import ProcessMetrics
from gateway.telemetry.series import Counter, Gauge

STAT = (
    "7 (a )odd) name) S 1 7 7 0 -1 4194560 9000 0 1 0 131 29 0 0 20 0 3 0 4200 281018368 16384 18446744073709551615 "
    "0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """As Linux shows a process whose name has spaces and parentheses."""
    own = tmp_path / "self"
    (own / "fd").mkdir(parents=True)
    for number in range(5):
        (own / "fd" / str(number)).touch()
    (own / "stat").write_text(STAT)
    (own / "limits").write_text("Max open files            4096                 4096                 files\n")
    (tmp_path / "stat").write_text("cpu  1 2 3 4\nbtime 1700000000\nprocesses 7\n")
    return tmp_path


def shown(metrics: ProcessMetrics) -> dict[str, float]:
    found: dict[str, float] = {}
    for series in metrics.series():
        assert isinstance(series, Counter | Gauge)
        divisor = series.divisor if isinstance(series, Counter) else 1
        found[series.name] = series.values[()] / divisor
    return found


def test_they_are_those_of_the_reference(proc: Path) -> None:
    reference = ProcessCollector(proc=str(proc), registry=CollectorRegistry())
    expected = {sample.name: sample.value for family in reference.collect() for sample in family.samples}
    found = shown(ProcessMetrics(proc))
    assert found.pop("process_max_fds") > 0  # The kernel's answer for this process, where the reference reads a file.
    expected.pop("process_max_fds")
    assert found == pytest.approx(expected, rel=1e-12)
    assert found["process_cpu_seconds_total"] == pytest.approx(1.6)
    assert found["process_open_fds"] == 5


def test_the_limit_of_files_is_that_of_the_reference() -> None:
    reference = ProcessCollector(registry=CollectorRegistry())
    (limit,) = [family.samples[0].value for family in reference.collect() if family.name == "process_max_fds"]
    assert shown(ProcessMetrics())["process_max_fds"] == limit


def test_a_system_without_proc_has_none(tmp_path: Path) -> None:
    assert ProcessMetrics(tmp_path).series() == []
