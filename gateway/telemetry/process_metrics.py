"""What the operating system counts of this process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.telemetry.series import Aggregation, Counter, Gauge, Series

MICRO = 1_000_000


class ProcessMetrics:
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
                how: Aggregation = "min" if sample.name == "process_start_time_seconds" else "sum"
                found.append(Gauge(sample.name, family.documentation, aggregation=how, values={(): sample.value}))
        return found
