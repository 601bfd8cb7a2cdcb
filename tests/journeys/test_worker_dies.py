"""A worker dies, hangs or cannot start, or its supervisor is killed: what clients and operators see then."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app.admin_aggregator import WorkerEvents
from gateway.demo import DemoScript, DemoUpstream
from gateway.runtime.control_channel import Order
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.workers import PoolConfig, WorkerPool
from gateway.telemetry.log import Log
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import PATIENCE_S, Reply
from tests.workers import alive, chats, look, metric, pids, shared, until, workers_process

NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_while_a_killed_worker_is_replaced_the_others_serve_and_no_counter_falls(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        config = shared(upstream.base_url, redis, tmp_path)
        async with workers_process(config, tmp_path) as gateway:
            await chats(gateway, 20)
            await gateway.times("request", 20)
            assert await metric(gateway, "gateway_requests_total", status="200") == 20

            os.kill(pids(gateway)[1], signal.SIGKILL)
            died = await gateway.line("worker died")
            assert (died["worker"], died["status"]) == (1, "SIGKILL")
            assert await chats(gateway, 10) == {200: 10}

            assert (await look(gateway, "/readyz")).json == {"status": "ready"}
            await gateway.times("worker serving", 3)
            await gateway.times("request", 30)
            assert await metric(gateway, "gateway_requests_total", status="200") == 30
            assert await metric(gateway, "gateway_worker_restarts_total") == 1
            assert await chats(gateway, 10) == {200: 10}
            gateway.signal(signal.SIGTERM)
            assert await gateway.exit_status() == 0
            assert not any(alive(pid) for pid in pids(gateway).values())


@pytest.mark.slow
async def test_a_worker_that_is_ended_by_itself_drains_and_is_replaced(redis: RedisServer, tmp_path: Path) -> None:
    async with workers_process(shared(NOWHERE, redis, tmp_path), tmp_path) as gateway:
        os.kill(pids(gateway)[2], signal.SIGTERM)
        assert (await gateway.line("worker died"))["status"] == "exit 0"
        assert (await look(gateway, "/readyz")).status == 200
        assert (await gateway.line("worker serving"))["worker"] == 2


@pytest.mark.slow
async def test_a_worker_that_hangs_is_named_and_what_it_counted_still_stands(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        config = shared(upstream.base_url, redis, tmp_path)
        async with workers_process(config, tmp_path) as gateway:
            await chats(gateway, 20)
            await gateway.times("request", 20)
            assert await metric(gateway, "gateway_requests_total") == 20
            os.kill(pids(gateway)[1], signal.SIGSTOP)
            replies = await asyncio.gather(*[look(gateway, path) for path in ("/healthz", "/readyz", "/metrics")])
            health, ready = replies[:2]
            assert (health.status, health.json["because"]) == (503, ["worker 1 does not answer"])
            assert (ready.status, ready.json) == (200, {"status": "ready"})
            assert _total(replies[2]) == 20
            os.kill(pids(gateway)[1], signal.SIGCONT)
            assert (await until(gateway, "/healthz", lambda reply: reply.status == 200)).json == {"status": "alive"}


async def test_workers_whose_supervisor_is_killed_drain_and_end(redis: RedisServer, tmp_path: Path) -> None:
    async with workers_process(shared(NOWHERE, redis, tmp_path), tmp_path) as gateway:
        gateway.signal(signal.SIGKILL)
        assert sorted(line["worker"] for line in await gateway.times("worker stopped", 2)) == [1, 2]
        assert await gateway.exit_status() == -signal.SIGKILL


OPENING = """
import json, os, pathlib, socket, sys
from gateway.runtime.control_channel import WorkerReady, frame, message_in

spec, stdin = json.loads(sys.argv[1]), socket.socket(fileno=0)

def ready():
    stdin.sendall(frame(WorkerReady()))

def order():
    length = int.from_bytes(stdin.recv(4), "big")
    return message_in(stdin.recv(length)).order if length else "gone"
"""


class Observer(WorkerEvents):
    """Keeps the log's lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.log = Log(self.lines.append)
        super().__init__(self.log)

    @property
    def replaced(self) -> int:
        return self.restarts.values[()]


def pool_of(program: str, observer: Observer, workers: int = 2) -> WorkerPool:
    """Workers that are this program in Python: its WorkerSpec is `spec`, its end of the control channel `stdin`."""
    command = (sys.executable, "-c", OPENING + program)
    tasks = BackgroundTasks(observer.log.defect, observer.task_failed)
    return WorkerPool(PoolConfig(command, workers, (0,)), observer, tasks, observer.log.defect)


def born(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def run(pool: WorkerPool) -> int:
    return await asyncio.wait_for(pool.run(), PATIENCE_S)


@pytest.mark.parametrize("status", [1, 2])
async def test_a_worker_that_cannot_start_ends_the_whole_with_its_status_and_starts_no_other(
    status: int, tmp_path: Path
) -> None:
    program = f"pathlib.Path({str(tmp_path)!r}, 'born' + str(spec['worker'])).touch(); sys.exit({status})"
    pool = pool_of(program, Observer())
    assert await run(pool) == status
    assert born(tmp_path) == ["born1"]
    assert not pool.complete.is_set()


async def test_a_second_worker_that_cannot_start_takes_the_first_with_it(tmp_path: Path) -> None:
    program = "sys.exit(2) if spec['worker'] == 2 else ready(); order()"
    assert await run(pool_of(program, Observer())) == 2


async def test_an_end_that_comes_while_workers_start_ends_them(tmp_path: Path) -> None:
    program = (
        f"pathlib.Path({str(tmp_path)!r}, 'born' + str(spec['worker'])).touch()\n"
        "said = order(); ready(); sys.exit(said != 'drain')"
    )
    pool = pool_of(program, Observer())
    working = asyncio.create_task(run(pool))
    async with asyncio.timeout(PATIENCE_S):
        while not born(tmp_path):
            await asyncio.sleep(0)
    pool.order(Order.DRAIN)
    assert await working == 0
    assert born(tmp_path) == ["born1"]


async def test_a_worker_that_is_born_after_the_end_was_said_hears_it_too(tmp_path: Path) -> None:
    program = f"pathlib.Path({str(tmp_path)!r}, 'born').touch(); sys.exit(order() != 'drain')"
    pool = pool_of(program, Observer(), workers=1)
    working = asyncio.create_task(pool.run())
    for _ in range(2):
        await asyncio.sleep(0)  # The process is being made.
    pool.order(Order.DRAIN)
    assert await asyncio.wait_for(working, PATIENCE_S) == 0
    assert born(tmp_path) == ["born"]


async def test_a_worker_that_dies_while_it_starts_is_started_again(tmp_path: Path) -> None:
    program = (
        f"first = pathlib.Path({str(tmp_path)!r}, 'first')\n"
        "if not first.exists(): first.touch(); os.kill(os.getpid(), 9)\n"
        "ready(); order()"
    )
    observer = Observer()
    pool = pool_of(program, observer)
    working = asyncio.create_task(run(pool))
    await asyncio.wait_for(pool.complete.wait(), PATIENCE_S)
    pool.order(Order.DRAIN)
    assert await working == 0
    assert (len(observer.lines), observer.replaced) == (1, 1)


async def test_a_replacement_that_cannot_start_is_tried_again_while_the_others_serve(tmp_path: Path) -> None:
    # Worker 1 serves first, then meets a configuration with errors, twice; worker 2 serves on.
    program = (
        f"starts = len(list(pathlib.Path({str(tmp_path)!r}).glob('1.*'))) if spec['worker'] == 1 else 9\n"
        f"pathlib.Path({str(tmp_path)!r}, str(spec['worker']) + '.' + str(os.getpid())).touch()\n"
        "if 0 < starts < 3: sys.exit(2)\n"
        "ready()\n"
        "said = order()\n"
        "if starts == 0: sys.exit(2)\n"
        "if said == 'reload': order()"
    )
    observer = Observer()
    pool = pool_of(program, observer)
    working = asyncio.create_task(run(pool))
    await asyncio.wait_for(pool.complete.wait(), PATIENCE_S)
    pool.order(Order.RELOAD)
    async with asyncio.timeout(PATIENCE_S):
        while observer.replaced < 3 or 1 not in pool.serving:
            assert 2 in pool.serving
            await asyncio.sleep(0)
    pool.order(Order.DRAIN)
    assert await working == 0


async def test_a_worker_whose_keeping_fails_is_kept_on() -> None:
    """The observer stands for whatever may raise in the loop that keeps a worker."""

    class Failing(Observer):
        def worker_died(self, worker: int, status: str, replaced_in_s: float) -> None:
            super().worker_died(worker, status, replaced_in_s)
            if self.replaced == 1:
                raise KeyError(worker)

    observer = Failing()
    tasks = BackgroundTasks(observer.log.defect, observer.task_failed, first_pause_s=0.001)
    command = (sys.executable, "-c", OPENING + "os.kill(os.getpid(), 9)")
    pool = WorkerPool(PoolConfig(command, 1, (0,)), observer, tasks, observer.log.defect)
    working = asyncio.create_task(run(pool))
    async with asyncio.timeout(PATIENCE_S):
        while observer.replaced < 2:
            await asyncio.sleep(0)
    pool.order(Order.DRAIN)
    await working
    assert observer.task_failures.values == {("keep a worker",): 1}
    assert any(b"background task keep a worker failed" in line for line in observer.lines)


@pytest.mark.parametrize(
    ("ending", "status"), [("sys.exit(1)", 1), ("os.kill(os.getpid(), 9)", 1), ("os.kill(os.getpid(), 15)", 0)]
)
async def test_a_worker_that_ends_badly_in_the_drain_makes_the_whole_end_so(
    ending: str, status: int, tmp_path: Path
) -> None:
    program = f"ready(); order()\nif spec['worker'] == 2: {ending}"
    observer = Observer()
    pool = pool_of(program, observer)
    working = asyncio.create_task(run(pool))
    await asyncio.wait_for(pool.complete.wait(), PATIENCE_S)
    pool.order(Order.DRAIN)
    assert await working == status
    assert observer.replaced == 0


def _total(metrics: Reply) -> float:
    lines = metrics.body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("gateway_requests_total{"))
