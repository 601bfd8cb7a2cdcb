"""A worker dies, hangs or cannot start, or its supervisor is killed: what clients and operators see then."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app.crew import Crew, Plan
from gateway.app.post import RELOAD
from gateway.demo import DemoScript, DemoUpstream
from gateway.telemetry.log import Log
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import PATIENCE_S, Reply
from tests.workers import alive, chats, look, metric, mode, pids, private_folder, shared, until, workers_process

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

            reply = await look(gateway, "/readyz")
            assert reply.status == 200 or reply.json["because"] == ["worker 1 does not serve"]
            await until(gateway, "/readyz", lambda reply: reply.status == 200)
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
        await until(gateway, "/readyz", lambda reply: reply.status == 200)


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
            assert (ready.status, ready.json["because"]) == (503, ["worker 1 does not answer"])
            assert _total(replies[2]) == 20
            os.kill(pids(gateway)[1], signal.SIGCONT)
            assert (await until(gateway, "/healthz", lambda reply: reply.status == 200)).json == {"status": "alive"}


async def test_workers_whose_supervisor_is_killed_drain_and_end_and_leave_nothing(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with workers_process(shared(NOWHERE, redis, tmp_path), tmp_path) as gateway:
        folder = private_folder(pids(gateway)[1])
        assert mode(folder) == "700"
        gateway.signal(signal.SIGKILL)
        assert sorted(line["worker"] for line in await gateway.times("worker stopped", 2)) == [1, 2]
        assert await gateway.exit_status() == -signal.SIGKILL
        assert mode(folder) == ""


def crew_of(program: str, folder: Path, lines: list[bytes], workers: int = 2) -> Crew:
    """Workers that are this program in Python: its post is its last argument, its orders come on `stdin`."""
    opening = "import json, os, pathlib, socket, sys; post = json.loads(sys.argv[1]); stdin = socket.socket(fileno=0)\n"
    command = (sys.executable, "-c", opening + program)
    return Crew(Plan(command, workers, 0, folder), Log(lines.append))


def born(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def work(crew: Crew) -> int:
    return await asyncio.wait_for(crew.work(), PATIENCE_S)


@pytest.mark.parametrize("status", [1, 2])
async def test_a_worker_that_cannot_start_ends_the_whole_with_its_status_and_starts_no_other(
    status: int, tmp_path: Path
) -> None:
    program = f"pathlib.Path({str(tmp_path)!r}, 'born' + str(post['worker'])).touch(); sys.exit({status})"
    crew = crew_of(program, tmp_path, [])
    assert await work(crew) == status
    assert born(tmp_path) == ["born1"]
    assert not crew.complete.is_set()


async def test_a_second_worker_that_cannot_start_takes_the_first_with_it(tmp_path: Path) -> None:
    program = "sys.exit(2) if post['worker'] == 2 else stdin.send(b'serving\\n'); stdin.recv(99)"
    assert await work(crew_of(program, tmp_path, [])) == 2


async def test_an_end_that_comes_while_workers_start_ends_them(tmp_path: Path) -> None:
    program = (
        f"pathlib.Path({str(tmp_path)!r}, 'born' + str(post['worker'])).touch()\n"
        "order = stdin.recv(99); stdin.send(b'serving\\n'); sys.exit(order != b'drain\\n')"
    )
    crew = crew_of(program, tmp_path, [])
    working = asyncio.create_task(work(crew))
    async with asyncio.timeout(PATIENCE_S):
        while not born(tmp_path):
            await asyncio.sleep(0)
    crew.end()
    assert await working == 0
    assert born(tmp_path) == ["born1"]


async def test_a_worker_that_is_born_after_the_end_was_said_hears_it_too(tmp_path: Path) -> None:
    program = f"pathlib.Path({str(tmp_path)!r}, 'born').touch(); sys.exit(stdin.recv(99) != b'drain\\n')"
    crew = crew_of(program, tmp_path, [], workers=1)
    working = asyncio.create_task(crew.work())
    for _ in range(2):
        await asyncio.sleep(0)  # The process is being made.
    crew.end()
    assert await asyncio.wait_for(working, PATIENCE_S) == 0
    assert born(tmp_path) == ["born"]


async def test_a_worker_that_dies_while_it_starts_is_started_again(tmp_path: Path) -> None:
    program = (
        f"first = pathlib.Path({str(tmp_path)!r}, 'first')\n"
        "if not first.exists(): first.touch(); os.kill(os.getpid(), 9)\n"
        "stdin.send(b'serving\\n'); stdin.recv(99)"
    )
    lines: list[bytes] = []
    crew = crew_of(program, tmp_path, lines)
    working = asyncio.create_task(work(crew))
    await asyncio.wait_for(crew.complete.wait(), PATIENCE_S)
    crew.end()
    assert await working == 0
    assert (len(lines), crew.restarts.values[()]) == (1, 1)


async def test_a_replacement_that_cannot_start_is_tried_again_while_the_others_serve(tmp_path: Path) -> None:
    # The first lives of both workers serve; each later one of worker 1 meets a configuration with errors, twice.
    program = (
        "life = int(pathlib.Path(post['socket']).stem)\n"
        "if 2 < life < 5: sys.exit(2)\n"
        "stdin.send(b'serving\\n')\n"
        "order = stdin.recv(99)\n"
        "if life == 1: sys.exit(2)\n"
        "if order == b'reload\\n': stdin.recv(99)"
    )
    crew = crew_of(program, tmp_path, [])
    working = asyncio.create_task(work(crew))
    await asyncio.wait_for(crew.complete.wait(), PATIENCE_S)
    crew.order(RELOAD)
    async with asyncio.timeout(PATIENCE_S):
        while crew.restarts.values[()] < 3 or crew.missing():
            assert 2 not in crew.missing()
            await asyncio.sleep(0)
    crew.end()
    assert await working == 0


@pytest.mark.parametrize(
    ("ending", "status"), [("sys.exit(1)", 1), ("os.kill(os.getpid(), 9)", 1), ("os.kill(os.getpid(), 15)", 0)]
)
async def test_a_worker_that_ends_badly_in_the_drain_makes_the_whole_end_so(
    ending: str, status: int, tmp_path: Path
) -> None:
    program = f"stdin.send(b'serving\\n'); stdin.recv(99)\nif post['worker'] == 2: {ending}"
    crew = crew_of(program, tmp_path, [])
    working = asyncio.create_task(work(crew))
    await asyncio.wait_for(crew.complete.wait(), PATIENCE_S)
    crew.end()
    assert await working == status
    assert crew.restarts.values[()] == 0


def _total(metrics: Reply) -> float:
    lines = metrics.body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("gateway_requests_total{"))
