"""The worker processes of one gateway: starts them one by one, replaces those that die, sends them requests and orders.

The first worker starts alone, so that what keeps all of them from starting is reported once. A worker that dies later
is replaced, after a pause that grows while replacements die too; the others go on serving.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from gateway.runtime.backoff import Backoff
from gateway.runtime.control_channel import ControlChannel, ControlClient, NoReply, Order
from gateway.runtime.tasks import BackgroundTasks, LogError, wait_first

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0

_STEADY_S = 60.0
"""A worker that lived so long had no trouble in starting: its replacement starts as soon as the first one did."""

_CANNOT_START = (1, 2)
"""The exit statuses of `gateway serve` for an address that is taken and for a configuration with errors."""

_CLEAN = (0, -signal.SIGTERM)
"""How a worker may end in a drain: one that is signalled before it handles signals, or after, has nothing under way."""


class WorkerSpec(msgspec.Struct, frozen=True):
    """Which worker it is, counted from 1, and the ports that it shares: one for each address of `listen`."""

    worker: int
    ports: tuple[int, ...]


class PoolConfig(NamedTuple):
    """`command` runs a worker once its WorkerSpec is appended as JSON."""

    command: Sequence[str]
    workers: int
    ports: tuple[int, ...]


class PoolObserver(Protocol):
    """What is logged and counted of the workers."""

    def worker_died(self, worker: int, status: str, replaced_in_s: float) -> None: ...

    def worker_not_started(self, worker: int, error: OSError) -> None: ...

    def worker_ended(self, worker: int) -> None:
        """However it ended, in a drain, too."""


class WorkerProcess:
    """One process under a worker's number, from its start to its end."""

    def __init__(self, process: Process, control: ControlClient) -> None:
        self.serves = False
        self._process = process
        self._control = control

    @classmethod
    async def start(
        cls, command: Sequence[str], spec: WorkerSpec, tasks: BackgroundTasks, log_error: LogError
    ) -> WorkerProcess:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # A session of its own: Ctrl-C on a terminal reaches the supervisor alone, which orders a drain.
                process = await asyncio.create_subprocess_exec(
                    *command, msgspec.json.encode(spec).decode(), stdin=theirs.fileno(), start_new_session=True
                )
            except BaseException:
                ours.close()
                raise
        control = ControlClient(await ControlChannel.over(ours), log_error)
        tasks.keep_running("read a worker's messages", control.run)
        return cls(process, control)

    async def wait_ready(self) -> bool:
        """Wait until it serves, or has ended without."""
        self.serves = await self._control.ready
        return self.serves

    def order(self, order: Order) -> None:
        self._control.order(order)

    async def request(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        """None where it does not answer."""
        try:
            return await self._control.request(kind, body, timeout_s)
        except NoReply:
            return None

    async def wait_ended(self) -> int:
        """Its exit status, negative for a signal's number."""
        status = await self._process.wait()
        self.serves = False
        return status


class WorkerPool:
    def __init__(self, config: PoolConfig, observer: PoolObserver, tasks: BackgroundTasks, log_error: LogError) -> None:
        self.complete = asyncio.Event()
        """All of them have served at the same time."""

        self._config = config
        self._observer = observer
        self._tasks = tasks
        self._log_error = log_error
        self._processes: dict[int, WorkerProcess] = {}
        self._statuses: dict[int, int] = {}
        self._first_serves = asyncio.Event()
        self._ending = asyncio.Event()
        self._start_failure = 0

    async def run(self) -> int:
        """Keep the workers until they are ordered to drain. Exit status: 0 where all of them ended cleanly; of one
        that could not even start, its own."""
        numbers = range(1, self._config.workers + 1)
        await asyncio.wait([self._tasks.keep_running("keep a worker", partial(self._keep, each)) for each in numbers])
        return self._start_failure or int(any(status not in _CLEAN for status in self._statuses.values()))

    def order(self, order: Order) -> None:
        if order is not Order.RELOAD:
            self._ending.set()
        for process in self._processes.values():
            process.order(order)

    @property
    def serving(self) -> dict[int, WorkerProcess]:
        return {number: process for number, process in sorted(self._processes.items()) if process.serves}

    async def request_each(self, kind: str, body: bytes, timeout_s: float) -> dict[int, bytes | None]:
        """What each of those that serve replies, by its number; None for one that does not."""
        asked = self.serving
        replies = await asyncio.gather(*[process.request(kind, body, timeout_s) for process in asked.values()])
        answered = zip(asked.items(), replies, strict=True)
        # One that has ended meanwhile is left out: what it counted is kept apart already.
        return {number: reply for (number, process), reply in answered if self._processes.get(number) is process}

    async def request_any(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        """What the first replies that does; None where none serves."""
        for process in self.serving.values():
            reply = await process.request(kind, body, timeout_s)
            if reply is not None:
                return reply
        return None

    async def request_one(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        """What one of those that serve replies. What changes something is asked of no other: the first may have done it
        without a reply."""
        for process in self.serving.values():
            return await process.request(kind, body, timeout_s)
        return None

    async def _keep(self, number: int) -> None:
        """One process after the other under the same number, until the end."""
        if number != 1:
            await wait_first(self._first_serves.wait(), self._ending.wait())
        clock, backoff = asyncio.get_running_loop().time, Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while not self._ending.is_set():
            began = clock()
            status = await self._run_one(number)
            if self._ending.is_set():
                self._statuses[number] = status
            elif not self.complete.is_set() and status in _CANNOT_START:
                self._start_failure = status
                self.order(Order.DRAIN)
            else:
                if clock() - began >= _STEADY_S:
                    backoff.reset()
                pause_s = backoff.next_s()
                self._observer.worker_died(number, status_text(status), pause_s)
                await wait_first(self._ending.wait(), asyncio.sleep(pause_s))

    async def _run_one(self, number: int) -> int:
        """The exit status."""
        spec = WorkerSpec(number, self._config.ports)
        try:
            process = await WorkerProcess.start(self._config.command, spec, self._tasks, self._log_error)
        except OSError as error:
            self._observer.worker_not_started(number, error)
            return 1
        self._processes[number] = process
        if self._ending.is_set():
            process.order(Order.DRAIN)
        if await process.wait_ready():
            self._first_serves.set()
            if len(self.serving) == self._config.workers:
                self.complete.set()
        status = await process.wait_ended()
        del self._processes[number]
        self._observer.worker_ended(number)
        return status


def status_text(status: int) -> str:
    """What ended a process: `exit 1`, `SIGKILL`."""
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
