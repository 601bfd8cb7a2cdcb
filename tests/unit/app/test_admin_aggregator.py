from __future__ import annotations

import json
from typing import Any

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
        super().__init__(PoolConfig(("true",), 2, (0,)), WorkerEvents(log), BackgroundTasks(log.defect), log.defect)
        self.replies = replies

    async def request_each(self, kind: str, body: bytes, timeout_s: float) -> Replies:
        return self.replies

    async def request_any(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        return next((reply for reply in self.replies.values() if reply is not None), None)

    async def request_one(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        return next(iter(self.replies.values()), None)


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


@pytest.mark.parametrize(
    "request_",
    [
        AdminRequest("GET", "/admin/v1/usage"),
        AdminRequest("POST", "/admin/v1/reload"),
        AdminRequest("GET", "/admin/v1/upstreams"),
    ],
)
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


def upstreams(*circuits: dict[str, Any], up: bool = True, in_flight: int = 0, **failed_checks: int) -> bytes:
    seen = {"name": "spare", "up": up, "failed_checks": failed_checks, "in_flight": in_flight, "models": ["m"]}
    return response(200, json.dumps({"data": [{**seen, "circuits": list(circuits)}], "next": None}).encode())


def circuit(state: str, **fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "key": None,
        "share": 1.0,
        "wait_s": 0.0,
        "next_try_at": None,
        "opened_at": None,
        "why": {},
        "cooling": [],
    }
    return {"model": "m", "state": state, **usual, **fields}


async def shown(replies: Replies) -> list[dict[str, Any]]:
    answer = await Supervisor(replies).aggregator.admin_api(AdminRequest("GET", "/admin/v1/upstreams"))
    found: list[dict[str, Any]] = json.loads(answer.body)["data"]
    return found


async def test_a_circuit_that_is_open_in_one_worker_is_shown_with_its_number() -> None:
    opened = circuit("open", share=0.0, wait_s=3.0, opened_at="T1", next_try_at="T4", why={"500": 5})
    (seen,) = await shown(
        {1: upstreams(circuit("closed"), in_flight=2), 2: None, 3: upstreams(opened, up=False, in_flight=3)}
    )
    assert (seen["up"], seen["in_flight"]) == (False, 5)
    assert seen["circuits"] == [circuit("closed") | {"workers": [1]}, opened | {"workers": [3]}]


async def test_checks_that_fail_in_several_workers_are_counted_together() -> None:
    (seen,) = await shown({1: upstreams(timeout=3), 2: upstreams(), 3: upstreams(timeout=1, not_reached=2)})
    assert seen["failed_checks"] == {"timeout": 4, "not_reached": 2}


async def test_circuits_in_the_same_state_are_one_entry() -> None:
    first = circuit(
        "open",
        share=0.0,
        wait_s=3.0,
        opened_at="T1",
        next_try_at="T4",
        why={"500": 5},
        cooling=[{"team": "a", "until": "T7"}],
    )
    second = circuit(
        "open",
        share=0.0,
        wait_s=1.0,
        opened_at="T2",
        next_try_at="T3",
        why={"500": 2, "hung_up": 3},
        cooling=[{"team": "a", "until": "T9"}],
    )
    alone = circuit("open", key="0123", share=0.0)
    (seen,) = await shown({1: upstreams(first), 2: upstreams(alone, second)})
    both, of_one_key = seen["circuits"]
    assert (both["workers"], both["wait_s"], both["next_try_at"], both["opened_at"]) == ([1, 2], 1.0, "T3", "T2")
    assert (both["why"], both["cooling"]) == ({"500": 7, "hung_up": 3}, [{"team": "a", "until": "T9"}])
    assert (of_one_key["workers"], of_one_key["key"]) == ([2], "0123")


async def test_a_stranger_learns_nothing_of_the_upstreams() -> None:
    refused = Supervisor({1: response(401, b"no"), 2: response(401, b"no")}).aggregator
    answer = await refused.admin_api(AdminRequest("GET", "/admin/v1/upstreams"))
    assert (answer.status, answer.body) == (401, b"no")


class PoolByPath(Pool):
    """Each worker answers by the request's path."""

    def __init__(self, by_path: dict[str, bytes], log: Log) -> None:
        super().__init__({}, log)
        self.by_path = by_path

    async def request_each(self, kind: str, body: bytes, timeout_s: float) -> Replies:
        return dict.fromkeys((1, 2), self._reply(body))

    async def request_any(self, kind: str, body: bytes, timeout_s: float) -> bytes | None:
        return self._reply(body)

    def _reply(self, body: bytes) -> bytes:
        request = msgspec.msgpack.decode(body, type=AdminRequest)
        assert request.query == ({} if request.path.endswith("upstreams") else {"minutes": "5"})
        return self.by_path[request.path.removeprefix("/admin/v1/")]


async def test_the_overview_of_several_workers_has_what_all_of_them_measured() -> None:
    log = Log(lambda _line: None)
    whole = {"at": "T1", "traffic": {"data": "of one"}, "upstreams": {"data": "of one"}, "days": {"rows": [7]}}
    by_path = {
        "overview": response(200, json.dumps(whole).encode()),
        "upstreams": upstreams(circuit("closed"), in_flight=2),
        "traffic": response(200, b'{"data": [], "next": null}'),
    }
    aggregator = AdminAggregator(PoolByPath(by_path, log), 2, WorkerEvents(log), log)
    answer = await aggregator.admin_api(AdminRequest("GET", "/admin/v1/overview", {"minutes": "5"}))
    found = json.loads(answer.body)
    assert (answer.status, found["at"], found["days"]) == (200, "T1", {"rows": [7]})
    assert found["upstreams"]["data"][0]["in_flight"] == 4
    assert found["traffic"]["data"] == []


async def test_a_stranger_gets_no_overview_of_several_workers() -> None:
    refused = Supervisor({1: response(401, b"no"), 2: response(401, b"no")}).aggregator
    answer = await refused.admin_api(AdminRequest("GET", "/admin/v1/overview"))
    assert (answer.status, answer.body) == (401, b"no")


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


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_what_changes_something_is_asked_of_one_worker_alone(method: str) -> None:
    """The first may have done it, and a second key would be nobody's."""
    aggregator = Supervisor({1: None, 2: response(200, b"{}")}).aggregator
    with pytest.raises(NoWorker):
        await aggregator.admin_api(AdminRequest(method, "/admin/v1/keys"))
    assert (await aggregator.admin_api(AdminRequest("GET", "/admin/v1/keys"))).status == 200
