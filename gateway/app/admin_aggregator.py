"""Several workers as one gateway to its operators: their metrics summed, their health judged together.

The supervisor knows neither the admin token nor keys nor limits: workers answer the admin API.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import msgspec

from gateway.core.errors import NoWorker
from gateway.core.json_object import JsonObject
from gateway.runtime.slices import in_slices
from gateway.runtime.workers import WorkerPool
from gateway.telemetry import series
from gateway.telemetry.exposition import CONTENT_TYPE, MetricsAggregator, unpack
from gateway.telemetry.log import Log
from gateway.telemetry.process_metrics import ProcessMetrics
from gateway.telemetry.traffic import traffic_report
from gateway.web.admin_openapi import PREFIX
from gateway.web.admin_routes import AdminHandlers, AdminRequest, AdminResponse, json_response

PROBE_TIMEOUT_S = 3.0
"""After this time a worker counts as not answering: probes give up soon after."""

PAGE_TIMEOUT_S = 10.0
RELOAD_TIMEOUT_S = 120.0
"""Long, because a configuration of 10,000 keys takes several seconds to check, and all workers check it at once."""


class WorkerEvents:
    """A `gateway.runtime.workers.PoolObserver`: logs and counts what happens to workers; keeps what they counted."""

    def __init__(self, log: Log) -> None:
        self.restarts = series.Counter("gateway_worker_restarts_total", "Workers that died and were replaced.")
        self.restarts.add((), 0)
        self.task_failures = series.Counter(
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
        """A worker that does not answer counts as in its last report."""
        events = self._events
        # One after the other: an answer that was overtaken would let counters fall.
        async with self._scraping:
            replies = await self._pool.request_each("metrics", b"", PROBE_TIMEOUT_S)
            for worker, packed in replies.items():
                if packed is not None and self._is_readable(worker, packed):
                    events.aggregator.update(worker, packed)
            parts = events.aggregator.parts([events.restarts, events.task_failures, *self._process.series()])
            return b"".join([part async for part in in_slices(parts, 1)]), CONTENT_TYPE

    def _is_readable(self, worker: int, packed: bytes) -> bool:
        try:
            unpack(packed)
        except msgspec.DecodeError as error:
            self._log.defect(f"the metrics of worker {worker} cannot be read", error)
            return False
        return True

    async def liveness_problems(self) -> list[str]:
        """A worker that died is replaced by itself; one that hangs is not."""
        replies = await self._pool.request_each("liveness", b"", PROBE_TIMEOUT_S)
        if not replies:
            return ["no worker serves"]
        return _problems(replies)

    async def readiness_problems(self) -> list[str]:
        """None while any worker is ready: a load balancer that removed the gateway would remove that one, too."""
        if self.draining:
            return ["draining"]
        replies = await self._pool.request_each("readiness", b"", PROBE_TIMEOUT_S)
        if any(reply is not None and not _decoded(reply) for reply in replies.values()):
            return []
        missing = [f"worker {worker} does not serve" for worker in range(1, self._workers + 1) if worker not in replies]
        return [*missing, *_problems(replies)]

    async def admin_api(self, request: AdminRequest) -> AdminResponse:
        """Any worker answers, because all know the same, with two exceptions: each reloads the configuration for
        itself, and each has its own view of the upstreams' health."""
        body = msgspec.msgpack.encode(request)
        if request.path == PREFIX + "reload":
            return _worst(await self._pool.request_each("admin", body, RELOAD_TIMEOUT_S))
        if request.path == PREFIX + "upstreams":
            return _joined(await self._pool.request_each("admin", body, PAGE_TIMEOUT_S), _all_upstreams)
        if request.path == PREFIX + "traffic":
            return _joined(await self._pool.request_each("admin", body, PAGE_TIMEOUT_S), _all_traffic)
        if request.path == PREFIX + "overview" and request.method == "GET":
            return await self._overview(request, body)
        ask = self._pool.request_any if request.method == "GET" else self._pool.request_one
        reply = await ask("admin", body, PAGE_TIMEOUT_S)
        return _worst({} if reply is None else {0: reply})

    async def _overview(self, request: AdminRequest, body: bytes) -> AdminResponse:
        """The answer of any worker, with the measurements of all."""
        upstreams = msgspec.structs.replace(request, path=PREFIX + "upstreams", query={})
        traffic = msgspec.structs.replace(request, path=PREFIX + "traffic")
        reply, *measured = await asyncio.gather(
            self._pool.request_any("admin", body, PAGE_TIMEOUT_S), self.admin_api(traffic), self.admin_api(upstreams)
        )
        answers = [_worst({} if reply is None else {0: reply}), *measured]
        failed = next((each for each in answers if each.status >= 400), None)
        if failed is not None:
            return failed
        overview, *parts = (msgspec.json.decode(each.body, type=dict[str, msgspec.Raw]) for each in answers)
        return json_response(200, {**overview, **dict(zip(("traffic", "upstreams"), parts, strict=True))})

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


def _joined(
    replies: dict[int, bytes | None], join: Callable[[Mapping[int, list[JsonObject]]], object]
) -> AdminResponse:
    """What `join` makes of the lists of the workers that answer, by worker. The worst refusal, where one refuses."""
    answered = {worker: reply for worker, reply in sorted(replies.items()) if reply is not None}
    worst = _worst(dict(answered))
    if worst.status >= 400:
        return worst
    return json_response(
        200,
        join({worker: msgspec.json.decode(_response(reply).body)["data"] for worker, reply in answered.items()}),
    )


def _all_traffic(samples: Mapping[int, list[JsonObject]]) -> JsonObject:
    """The samples of all workers, added up. Those of a dead worker are lost."""
    return traffic_report(chain.from_iterable(samples.values()))


def _all_upstreams(views: Mapping[int, list[JsonObject]]) -> JsonObject:
    """The upstreams as the workers see them. One is up if each of them would use it."""
    upstreams: dict[str, dict[str, Any]] = {}
    circuits: dict[tuple[str, ...], dict[str, Any]] = {}
    for worker, view in views.items():
        for seen in view:
            empty = {"up": True, "failed_checks": {}, "in_flight": 0, "circuits": []}
            found = upstreams.setdefault(seen["name"], {**seen, **empty})
            found["up"] = found["up"] and seen["up"]
            found["failed_checks"] = dict(Counter(found["failed_checks"]) + Counter(seen["failed_checks"]))
            found["in_flight"] += seen["in_flight"]
            for circuit in seen["circuits"]:
                alike = (seen["name"], circuit["model"], circuit["state"], circuit["key"] or "")
                if alike not in circuits:
                    found["circuits"].append(circuits.setdefault(alike, {**circuit, "workers": []}))
                _add_circuit(circuits[alike], circuit, worker)
    for found in upstreams.values():
        found["circuits"].sort(key=lambda circuit: circuit["model"])
    return {"data": list(upstreams.values()), "next": None}


def _add_circuit(known: dict[str, Any], circuit: dict[str, Any], worker: int) -> None:
    """Add one worker's view of a circuit to that of others with the same state."""
    is_first, tries, opened = not known["workers"], known["next_try_at"], known["opened_at"]
    known["workers"].append(worker)
    if is_first:
        return
    known["share"] = min(known["share"], circuit["share"])
    known["wait_s"] = min(known["wait_s"], circuit["wait_s"])
    known["next_try_at"] = min(tries, circuit["next_try_at"]) if tries and circuit["next_try_at"] else None
    known["opened_at"] = max(filter(None, (opened, circuit["opened_at"])), default=None)
    known["why"] = dict(Counter(known["why"]) + Counter(circuit["why"]))
    until = {each["team"]: each["until"] for each in known["cooling"]}
    for each in circuit["cooling"]:
        until[each["team"]] = max(until.get(each["team"], ""), each["until"])
    known["cooling"] = [{"team": team, "until": end} for team, end in until.items()]


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
