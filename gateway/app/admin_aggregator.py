"""Several workers as one gateway to its operators: their metrics summed, their health judged together.

The supervisor knows neither the admin token nor keys nor limits: workers answer the admin API.
"""

from __future__ import annotations

import asyncio

import msgspec

from gateway.core.errors import NoWorker
from gateway.runtime.workers import WorkerPool
from gateway.telemetry.exposition import MetricsAggregator, unpack
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import ProcessMetrics
from gateway.telemetry.series import Counter
from gateway.web.admin_openapi import PREFIX
from gateway.web.admin_routes import AdminHandlers, AdminRequest, AdminResponse

PROBE_TIMEOUT_S = 3.0
"""A worker that does not answer by then counts as away: probes give up soon after."""

PAGE_TIMEOUT_S = 10.0
RELOAD_TIMEOUT_S = 120.0
"""A configuration of 10,000 keys takes several seconds to check, and all workers do so at once."""


class WorkerEvents:
    """A `gateway.runtime.workers.PoolObserver`: logs and counts what happens to workers; keeps what they counted."""

    def __init__(self, log: Log) -> None:
        self.restarts = Counter("gateway_worker_restarts_total", "Workers that died and were replaced.")
        self.restarts.add((), 0)
        self.task_failures = Counter(
            "gateway_task_failures_total", "Background tasks that failed and were started again.", ("task",)
        )
        self.aggregator = MetricsAggregator()
        self._log = log

    def task_failed(self, task: str) -> None:
        self.task_failures.add((task,))

    def worker_died(self, worker: int, status: str, replaced_in_s: float) -> None:
        self.restarts.add(())
        self._log.error("worker died", worker=worker, status=status, replaced_in_s=replaced_in_s)

    def worker_not_started(self, worker: int, error: OSError) -> None:
        self._log.error("worker cannot be started", worker=worker, error=str(error))

    def worker_ended(self, worker: int) -> None:
        self.aggregator.retire(worker)


class AdminAggregator:
    """`draining` is set once the gateway is to stop."""

    def __init__(self, pool: WorkerPool, workers: int, events: WorkerEvents, log: Log) -> None:
        self.draining = False
        self._pool = pool
        self._workers = workers
        self._events = events
        self._log = log
        self._process = ProcessMetrics()
        self._scraping = asyncio.Lock()

    @property
    def handlers(self) -> AdminHandlers:
        return AdminHandlers(
            self.metrics, self.liveness_problems, self.readiness_problems, self.admin_api, self.refuse_stranger
        )

    async def metrics(self) -> tuple[bytes, str]:
        """Of a worker that does not answer, what it had counted when it last did."""
        events = self._events
        # One after the other: an answer that was overtaken would let counters fall.
        async with self._scraping:
            replies = await self._pool.request_each("metrics", b"", PROBE_TIMEOUT_S)
            for worker, packed in replies.items():
                if packed is not None and self._is_readable(worker, packed):
                    events.aggregator.update(worker, packed)
            return events.aggregator.render([events.restarts, events.task_failures, *self._process.series()])

    def _is_readable(self, worker: int, packed: bytes) -> bool:
        try:
            unpack(packed)
        except msgspec.DecodeError as error:
            self._log.defect(f"the metrics of worker {worker} cannot be read", error)
            return False
        return True

    async def liveness_problems(self) -> list[str]:
        """A worker that died is replaced without anybody's help; one that hangs is not."""
        replies = await self._pool.request_each("liveness", b"", PROBE_TIMEOUT_S)
        if not replies:
            return ["no worker serves"]
        return _problems(replies)

    async def readiness_problems(self) -> list[str]:
        """None while any worker is ready: a load balancer that took the gateway out would take out that one, too."""
        if self.draining:
            return ["draining"]
        replies = await self._pool.request_each("readiness", b"", PROBE_TIMEOUT_S)
        if any(reply is not None and not _decoded(reply) for reply in replies.values()):
            return []
        missing = [f"worker {worker} does not serve" for worker in range(1, self._workers + 1) if worker not in replies]
        return [*missing, *_problems(replies)]

    async def admin_api(self, request: AdminRequest) -> AdminResponse:
        """Workers know the same: any of them answers, but each reloads the configuration for itself."""
        body = msgspec.msgpack.encode(request)
        if request.path == PREFIX + "reload":
            return _worst(await self._pool.request_each("admin", body, RELOAD_TIMEOUT_S))
        reply = await self._pool.request_any("admin", body, PAGE_TIMEOUT_S)
        return _worst({} if reply is None else {0: reply})

    async def refuse_stranger(self, request: AdminRequest) -> AdminResponse | None:
        reply = await self._pool.request_any("refuse_stranger", msgspec.msgpack.encode(request), PAGE_TIMEOUT_S)
        if reply is None:
            return _worst({})
        return msgspec.msgpack.decode(reply, type=AdminResponse | None)


def _worst(replies: dict[int, bytes | None]) -> AdminResponse:
    """Raises NoWorker where one does not answer and none refuses."""
    responses = [_response(reply) for reply in replies.values() if reply is not None]
    worst = max(responses, key=lambda each: each.status, default=None)
    silent = [str(worker) for worker, reply in replies.items() if reply is None]
    if worst is None or (silent and worst.status < 400):
        who = f"Worker {', '.join(silent)} does not answer" if worst else "No worker answers"
        raise NoWorker(f"{who} now. The log says why; try again soon.", retry_after_ms=1000)
    return worst


def _problems(replies: dict[int, bytes | None]) -> list[str]:
    found: list[str] = []
    for worker, reply in replies.items():
        why = ["does not answer"] if reply is None else _decoded(reply)
        found += [f"worker {worker} {each}" if reply is None else f"worker {worker}: {each}" for each in why]
    return found


def _decoded(reply: bytes) -> list[str]:
    return msgspec.msgpack.decode(reply, type=list[str])


def _response(reply: bytes) -> AdminResponse:
    return msgspec.msgpack.decode(reply, type=AdminResponse)
