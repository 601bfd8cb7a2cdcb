from __future__ import annotations

import msgspec
import pytest

from gateway.app.admin_aggregator import AdminAggregator, WorkerEvents
from gateway.core.errors import NoWorker
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.workers import PoolConfig, WorkerPool
from gateway.telemetry.exposition import ProcessReport, pack
from gateway.telemetry.log import Log
from gateway.telemetry.series import Counter
from gateway.web.admin_routes import AdminRequest, AdminResponse

Replies = dict[int, bytes | None]

READY = msgspec.msgpack.encode([])


class Pool(WorkerPool):
    """Two workers that give these replies to every request."""

    def __init__(self, replies: Replies, log: Log) -> None:
        super().__init__(PoolConfig(("true",), 2, 0), WorkerEvents(log), BackgroundTasks(log.defect), log.defect)
        self.replies = replies

    async def request_each(self, kind: str, body: bytes, timeout_s: float) -> Replies:
        return self.replies

    async def request_any(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        return next((reply for reply in self.replies.values() if reply is not None), None)


class Supervisor:
    def __init__(self, replies: Replies) -> None:
        self.lines: list[bytes] = []
        log = Log(self.lines.append)
        self.pool = Pool(replies, log)
        self.aggregator = AdminAggregator(self.pool, 2, WorkerEvents(log), log)


def because(*problems: str) -> bytes:
    return msgspec.msgpack.encode(problems)


def response(status: int, body: bytes) -> bytes:
    return msgspec.msgpack.encode(AdminResponse(status, [], body))


def counted(amount: int) -> bytes:
    return pack(ProcessReport([Counter("gateway_x_total", "X.", values={(): amount})]))


async def test_before_any_worker_serves_the_gateway_is_neither_ready_nor_alive() -> None:
    starting = Supervisor({}).aggregator
    assert await starting.readiness_problems() == ["worker 1 does not serve", "worker 2 does not serve"]
    assert await starting.liveness_problems() == ["no worker serves"]


@pytest.mark.parametrize("other", [{}, {2: None}, {2: because("the store is out")}])
async def test_while_one_worker_is_ready_the_gateway_is(other: Replies) -> None:
    assert await Supervisor({1: READY, **other}).aggregator.readiness_problems() == []


async def test_where_no_worker_is_ready_each_says_why() -> None:
    out = Supervisor({1: because("the store is out"), 2: None}).aggregator
    assert await out.readiness_problems() == ["worker 1: the store is out", "worker 2 does not answer"]


async def test_a_worker_that_hangs_is_a_reason_to_restart_though_the_gateway_is_ready() -> None:
    hanging = Supervisor({1: READY, 2: None}).aggregator
    assert await hanging.liveness_problems() == ["worker 2 does not answer"]
    assert await hanging.readiness_problems() == []


async def test_a_gateway_that_drains_says_so_and_no_more() -> None:
    draining = Supervisor({1: READY}).aggregator
    draining.draining = True
    assert await draining.readiness_problems() == ["draining"]


@pytest.mark.parametrize("request_", [AdminRequest("GET", "/admin/v1/usage"), AdminRequest("POST", "/admin/v1/reload")])
async def test_what_no_worker_can_answer_is_to_be_tried_again(request_: AdminRequest) -> None:
    with pytest.raises(NoWorker, match="No worker answers"):
        await Supervisor({}).aggregator.admin_api(request_)


async def test_a_reload_that_one_worker_refuses_is_reported_as_refused() -> None:
    divided = Supervisor({1: response(200, b"accepted"), 2: response(400, b"refused")}).aggregator
    assert (await divided.admin_api(AdminRequest("POST", "/admin/v1/reload"))).body == b"refused"


async def test_a_reload_that_one_worker_does_not_answer_is_not_reported_as_done() -> None:
    divided = Supervisor({1: response(200, b"accepted"), 2: None}).aggregator
    with pytest.raises(NoWorker, match="Worker 2 does not answer"):
        await divided.admin_api(AdminRequest("POST", "/admin/v1/reload"))


async def test_metrics_of_no_worker_are_those_of_the_supervisor() -> None:
    body, _ = await Supervisor({}).aggregator.metrics()
    assert b"gateway_worker_restarts_total 0\n" in body
    assert b"gateway_requests_total" not in body


@pytest.mark.parametrize("broken", [None, b"", b'{"error": "internal"}', b"\xc1"])
async def test_a_worker_that_fails_to_give_its_metrics_counts_as_it_last_did(broken: bytes | None) -> None:
    supervisor = Supervisor({1: counted(3), 2: counted(4)})
    await supervisor.aggregator.metrics()
    supervisor.pool.replies = {1: counted(5), 2: broken}
    body, _ = await supervisor.aggregator.metrics()
    assert b"gateway_x_total 9\n" in body
    assert len(supervisor.lines) == (broken is not None)
