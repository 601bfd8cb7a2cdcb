"""The processes under measurement, each pinned to its cores, with what the kernel tells of them (proc(5))."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import msgspec

from bench.free_ports import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
KIB = 1024
MODEL = "openai/gpt-oss-120b"
SILENT_MODEL = "demo/silent"
PRICE = {"input": 0.15, "output": 0.60}
SPENT_KEY, UNKNOWN_KEY = f"gw_{'s' * 40}", f"gw_{'u' * 40}"
"""A key whose limit is used up after one request, and one that a gateway does not know."""

LOWEST_PRIORITY = 19


class Server:
    """A process that listens on `port`, from `with` to the end of it. Its output goes to a file, for failures."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        cores: set[int],
        log: Path,
        *,
        environment: dict[str, str] | None = None,
        port_file: Path | None = None,
    ) -> None:
        """A program that chooses its port itself writes it into `port_file`."""
        self.port = port
        self._environment = environment
        self._port_file = port_file
        self._command = command
        self._cores = cores
        self._log = log

    def __enter__(self) -> Self:
        if self._listens():
            raise RuntimeError(f"Another program listens on port {self.port}, which is for {' '.join(self._command)}.")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        os.sched_setaffinity(self._process.pid, self._cores)
        self._wait_until_it_listens()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def give_way(self) -> None:
        """To whatever else wants its core."""
        os.setpriority(os.PRIO_PROCESS, self._process.pid, LOWEST_PRIORITY)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_ns(self) -> int:
        """Processor time of all its threads so far."""
        return process_cpu_ns(self._process.pid)

    def rss_bytes(self) -> int:
        """Memory that it keeps resident now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (line,) = [line for line in status if line.startswith("VmRSS:")]
        return int(line.split()[1]) * KIB

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError(f"{' '.join(self._command)} does not listen:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.05)

    def _listens(self) -> bool:
        if self._port_file is not None:
            if not self._port_file.exists() or not (port := self._port_file.read_text()):
                return False
            self.port = int(port)
        return listens(self.port)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def process_cpu_ns(pid: int) -> int:
    """Processor time of all threads of a process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def busy_ns(core: int) -> int:
    """Time that programs had of a core so far, or another machine took, in the kernel's ticks (proc_stat(5)).

    Interrupts are left out: a good part of them is the load's own network traffic.
    """
    (line,) = [line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} ")]
    user, nice, system, _idle, _iowait, _irq, _softirq, steal, *_ = (int(ticks) for ticks in line.split()[1:])
    return (user + nice + system + steal) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def demo_upstream(core: int, folder: Path, *flags: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "gateway", "demo-upstream", "--port", str(port), *flags]
    return Server(command, port, {core}, folder / f"upstream-{port}.log")


def silent_upstream(core: int, folder: Path) -> Server:
    """One that takes every request and never says a word."""
    return demo_upstream(core, folder, "--halt", "hang", "--halt-at", "before_headers")


@dataclass(frozen=True)
class Before:
    """What a gateway stands before: the ports of its upstreams, and the key that it takes."""

    upstream_port: int
    silent_port: int
    key: str


def gateway(
    before: Before,
    core: int,
    folder: Path,
    watched_by: Sequence[str] = ("gateway",),
    more: Mapping[str, object] = MappingProxyType({}),
) -> Server:
    """A gateway with four limits on every request, none of which ever refuses but to the key `SPENT_KEY`. `watched_by`
    is the module that runs its command line, with arguments of its own; `more` are further settings."""
    port = free_port()
    # YAML is a superset of JSON.
    config = folder / "gateway.yaml"
    config.write_bytes(msgspec.json.format(msgspec.json.encode(settings(port, before) | dict(more))))
    command = [sys.executable, "-m", *watched_by, "serve", "-c", str(config)]
    return Server(command, port, {core}, folder / "gateway.log")


def settings(port: int, before: Before) -> dict[str, object]:
    return {
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "drain": {"delay": "0s", "timeout": "5s"},
        "store": {"url": "memory://"},
        "upstreams": {
            "demo": {"base_url": f"http://127.0.0.1:{before.upstream_port}/v1", "max_connections": 4096},
            "silent": {"base_url": f"http://127.0.0.1:{before.silent_port}/v1", "max_connections": 4096},
        },
        "models": {
            MODEL: {"routes": [{"upstream": "demo"}], "price": PRICE},
            SILENT_MODEL: {"routes": [{"upstream": "silent"}], "price": PRICE},
        },
        "limits": [{"requests": 1_000_000_000, "per": "minute"}],
        "teams": {
            "bench": {
                "limits": [
                    {"tokens": 100_000_000_000, "per": "minute"},
                    {"usd": 1_000_000_000, "per": "month"},
                ],
                "keys": [
                    {"name": "bench", "key": before.key, "limits": [{"concurrent": 100_000}]},
                    {"name": "spent", "key": SPENT_KEY, "limits": [{"requests": 1, "per": "day"}]},
                ],
            }
        },
    }
