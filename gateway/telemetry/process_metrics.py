"""What Linux counts of this process (proc_pid_stat(5)), under the names that every Prometheus client has for it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from gateway.telemetry.series import Aggregation, Counter, Gauge, Series

MICRO = 1_000_000

_STATE = 2
"""The first field after the program's name, which may hold spaces and parentheses; proc_pid_stat(5) counts from 0."""
_UTIME, _STIME, _STARTTIME, _VSIZE, _RSS = (field - _STATE for field in (13, 14, 21, 22, 23))


class ProcessMetrics:
    """CPU, memory and files of this process. Where there is no /proc, as on macOS, there are none."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def series(self) -> list[Series]:
        try:
            return [*self._counted(), *self._files()]
        except FileNotFoundError:
            return []

    def _counted(self) -> list[Series]:
        fields = (self._proc / "self/stat").read_text().rpartition(")")[2].split()
        cpu = Counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", divisor=MICRO)
        cpu.add((), (int(fields[_UTIME]) + int(fields[_STIME])) * MICRO // self._ticks)
        resident = int(fields[_RSS]) * self._page_bytes
        started = self._boot_time() + int(fields[_STARTTIME]) / self._ticks
        return [
            _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", int(fields[_VSIZE])),
            _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident),
            _gauge(
                "process_start_time_seconds", "Start time of the process since unix epoch in seconds.", started, "min"
            ),
            cpu,
        ]

    def _files(self) -> list[Series]:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = sum(1 for _ in (self._proc / "self/fd").iterdir())
        return [
            _gauge("process_open_fds", "Number of open file descriptors.", count),
            _gauge("process_max_fds", "Maximum number of open file descriptors.", most),
        ]

    def _boot_time(self) -> int:
        """In seconds since 1970."""
        lines = (self._proc / "stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("btime "))


def _gauge(name: str, means: str, value: float, how: Aggregation = "sum") -> Gauge:
    return Gauge(name, means, aggregation=how, values={(): float(value)})
