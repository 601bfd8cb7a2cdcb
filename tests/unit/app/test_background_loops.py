"""No loop of the composition root ends unseen: each is broken once, comes back, is logged and is counted."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.app.store_lifecycle import watch_store
from gateway.runtime.loop_lag import watch_loop_lag
from gateway.runtime.system_clock import SystemClock
from gateway.runtime.tasks import BackgroundTasks
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics

PATIENCE_S = 10.0


class Process:
    """What a gateway logs and counts."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.log = Log(self.lines.append)
        self.metrics = Metrics(SystemClock(), "0")
        self.tasks = BackgroundTasks(self.log.defect, self.metrics.task_failed, first_pause_s=0.001)

    def failures(self, task: str) -> tuple[int, int]:
        """How often it failed, as counted and as logged."""
        logged = [line for line in self.lines if f"background task {task} failed".encode() in line]
        return self.metrics.task_failures.values[(task,)], len(logged)


class BrokenStore:
    """Its first ping fails as no ping should."""

    def __init__(self) -> None:
        self.pings = 0
        self.pinged_again = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        return "cannot be reached" if self.pings > 1 else None

    @property
    def unsettled(self) -> int:
        return 7

    async def ping(self) -> None:
        self.pings += 1
        if self.pings == 1:
            raise UnicodeError("a host name that is none")
        self.pinged_again.set()


async def test_the_watch_of_the_store() -> None:
    process, store = Process(), BrokenStore()
    observed: list[tuple[int, bool]] = []

    def observe(waiting: int, *, is_out: bool) -> None:
        observed.append((waiting, is_out))

    process.tasks.keep_running("watch the store", partial(watch_store, store, process.log, observe))
    await asyncio.wait_for(store.pinged_again.wait(), PATIENCE_S)
    await asyncio.sleep(0)
    assert process.failures("watch the store") == (1, 1)
    assert b'"store unavailable"' in process.lines[-1]
    assert observed == [(7, True)]
    await process.tasks.close()


async def test_the_watch_of_the_loop() -> None:
    process, observed = Process(), asyncio.Event()
    broken = [ValueError("no bucket")]

    def observe(seconds: float) -> None:
        if broken:
            raise broken.pop()
        observed.set()

    watch = partial(watch_loop_lag, observe, asyncio.get_running_loop().time)
    process.tasks.keep_running("watch the loop's lag", watch)
    await asyncio.wait_for(observed.wait(), PATIENCE_S)
    assert process.failures("watch the loop's lag") == (1, 1)
    await process.tasks.close()
