"""Several processes as one gateway: one port, one set of limits, one listener for operators, one end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway.core.circuit import FAILURES_IN_A_ROW
from gateway.demo import DemoScript, DemoUpstream
from tests.gateway_process import GatewayProcess
from tests.hand_upstream import DONE, HandUpstream, Turn, content, event, finish, hand_upstream, usage
from tests.raw_client import RawClient, http_chat, raw_client
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import MODEL, PATIENCE_S, Json, chat_body
from tests.workers import alive, chats, look, metric, pids, shared, until, workers_process, write

NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def test_a_limit_of_n_admits_n_over_all_workers_and_metrics_tell_their_sum(
    redis: RedisServer, tmp_path: Path
) -> None:
    team = {"limits": [{"requests": 25, "per": "day"}]}
    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        config = shared(upstream.base_url, redis, tmp_path, team=team)
        async with workers_process(config, tmp_path) as gateway:
            assert await chats(gateway, 60) == {200: 25, 429: 35}
            assert upstream.truth.total.requests == 25
            await gateway.times("request", 60)
            assert await metric(gateway, "gateway_requests_total", status="200") == 25
            assert await metric(gateway, "gateway_requests_total", status="429") == 35
            assert await metric(gateway, "gateway_request_duration_seconds_count", model=MODEL, upstream="up1") == 25
            assert await metric(gateway, "gateway_build_info") == 1
            assert await metric(gateway, "gateway_worker_restarts_total") == 0
            gateway.signal(signal.SIGTERM)
            assert await gateway.exit_status() == 0
    by_worker = Counter(line["worker"] for line in gateway.lines if line["event"] == "request")
    assert by_worker.total() == 60
    assert min(by_worker[1], by_worker[2]) > 0


async def test_workers_share_each_of_several_addresses(redis: RedisServer, tmp_path: Path) -> None:
    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        config = shared(upstream.base_url, redis, tmp_path) | {"listen": ["127.0.0.1:0", "127.0.0.2:0"]}
        async with workers_process(config, tmp_path) as gateway, aiohttp.ClientSession() as session:
            addresses = next(line for line in gateway.lines if line["event"] == "serving")["listen"].split(", ")
            assert [address.rpartition(":")[0] for address in addresses] == ["127.0.0.1", "127.0.0.2"]
            for address in addresses:
                async with session.get(f"http://{address}/v1/models", headers={"authorization": "Bearer no"}) as reply:
                    assert reply.status == 401


async def test_operators_find_one_gateway(redis: RedisServer, tmp_path: Path) -> None:
    async with DemoUpstream(DemoScript(chunks=3)) as upstream:
        config = shared(upstream.base_url, redis, tmp_path)
        async with workers_process(config, tmp_path) as gateway:
            assert next(line for line in gateway.lines if line["event"] == "serving")["workers"] == 2
            # Ctrl-C on a terminal reaches every process of the group: the supervisor is to be alone in its.
            assert os.getpgid(gateway.pid) not in {os.getpgid(pid) for pid in pids(gateway).values()}
            assert (await look(gateway, "/healthz")).json == {"status": "alive"}
            assert (await look(gateway, "/readyz")).json == {"status": "ready"}
            await chats(gateway, 4)
            await gateway.times("request", 4)
            assert (await look(gateway, "/admin/v1/usage?by=model")).json["rows"][0]["requests"] == 4
            assert (await look(gateway, "/admin/v1/limits?team=nobody")).error["param"] == "team"
            refused = await look(gateway, "/admin/v1/usage", token="another")
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert (await look(gateway, "/admin/v1/usage", method="DELETE")).headers["allow"] == "GET, HEAD"
            assert (await look(gateway, "/nothing")).status == 404


async def test_a_circuit_that_one_worker_has_opened_is_shown_whichever_worker_is_asked(
    redis: RedisServer, tmp_path: Path
) -> None:
    """A connection stays with its worker, so that only this one sees the failures that come over it."""
    async with DemoUpstream(DemoScript(status=500)) as upstream:
        config = shared(upstream.base_url, redis, tmp_path)
        async with workers_process(config, tmp_path) as gateway:
            async with raw_client(gateway.port) as client:
                for _ in range(FAILURES_IN_A_ROW):
                    client.send(http_chat(json.dumps(chat_body()).encode()))
                    assert (await client.answer()).status == 500
            await gateway.times("request", FAILURES_IN_A_ROW)
            (worker,) = {line["worker"] for line in gateway.lines if line["event"] == "request"}
            for _ in range(4):
                (seen,) = (await look(gateway, "/admin/v1/upstreams")).json["data"]
                (circuit,) = seen["circuits"]
                assert (seen["up"], circuit["state"], circuit["workers"]) == (False, "open", [worker])
                assert circuit["why"] == {"500": FAILURES_IN_A_ROW}


async def test_a_new_configuration_reaches_every_worker_whoever_asks_for_it(redis: RedisServer, tmp_path: Path) -> None:
    config = shared(NOWHERE, redis, tmp_path)
    async with workers_process(config, tmp_path) as gateway:
        assert (await look(gateway, "/admin/v1/reload", method="POST")).json == {"taken_up": True, "problems": []}
        assert await metric(gateway, "gateway_config_reloads_total", outcome="accepted") == 2
        gateway.signal(signal.SIGHUP)
        assert sorted(line["worker"] for line in await gateway.times("configuration reloaded", 4)) == [1, 1, 2, 2]
        await write(tmp_path, {**config, "listn": "x"})
        refused = await look(gateway, "/admin/v1/reload", method="POST")
        assert (refused.status, refused.json["taken_up"]) == (400, False)
        assert "listn" in refused.json["problems"][0]
        assert (await look(gateway, "/readyz")).status == 200


async def test_a_store_that_is_out_is_told_for_each_worker(tmp_path: Path) -> None:
    with redis_server() as redis:
        async with workers_process(shared(NOWHERE, redis, tmp_path), tmp_path) as gateway:
            redis.kill()
            reply = await until(gateway, "/readyz", lambda reply: len(reply.json.get("because", [])) == 2)
            assert [why.partition(" cannot")[0] for why in reply.json["because"]] == [
                "worker 1: the store",
                "worker 2: the store",
            ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_streams_of_all_workers_finish(
    number: signal.Signals, redis: RedisServer, tmp_path: Path
) -> None:
    async with hand_upstream() as upstream:
        config = shared(upstream.base_url, redis, tmp_path, drain={"delay": "0s", "timeout": "60s"})
        async with workers_process(config, tmp_path) as gateway, raw_client(gateway.port) as client:
            turn = await _begun_stream(client, upstream)
            gateway.signal(number)
            assert (await gateway.line("signal"))["effect"] == "drain"
            assert (await look(gateway, "/readyz")).json["because"] == ["draining"]
            turn.send(finish() + event(choices=[], usage=usage(3, 2)) + DONE)
            turn.end_stream()
            assert (await client.until(DONE)).endswith(finish() + event(choices=[], usage=usage(3, 2)) + DONE)
            assert await gateway.exit_status() == 0
    request = next(line for line in gateway.lines if line["event"] == "request")
    assert (request["status"], request["output_tokens"]) == (200, 2)
    assert gateway.lines[-1]["event"] == "stopped"


@pytest.mark.slow
async def test_a_second_signal_cuts_short_but_not_the_same_one_to_every_process(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with hand_upstream() as upstream:
        config = shared(upstream.base_url, redis, tmp_path, drain={"delay": "0s", "timeout": "60s"})
        async with workers_process(config, tmp_path) as gateway, raw_client(gateway.port) as client:
            turn = await _begun_stream(client, upstream)
            gateway.signal(signal.SIGTERM)
            await _until_refused(gateway)
            # systemd signals every process of a unit, unless told otherwise.
            for pid in pids(gateway).values():
                if alive(pid):
                    os.kill(pid, signal.SIGTERM)
            turn.send(content("b"))
            assert (await client.until(content("b"))).endswith(content("b"))
            gateway.signal(signal.SIGTERM)
            assert b'"code":"shutting_down"' in await client.rest()
            assert await gateway.exit_status() == 0


@pytest.mark.slow
async def test_an_address_that_is_taken_is_told_before_any_worker_starts(redis: RedisServer, tmp_path: Path) -> None:
    config = shared(NOWHERE, redis, tmp_path)
    async with workers_process(config, tmp_path) as gateway:
        taken = f"127.0.0.1:{gateway.port}"
        for changes in ({"listen": taken}, {"admin": {"listen": f"127.0.0.1:{gateway.admin_port}"}}):
            ended = _serve(tmp_path, {**config, **changes})
            assert (ended.returncode, ended.stdout) == (1, "")
            assert "already in use" in ended.stderr
            assert "Another program uses this port." in ended.stderr


def test_a_configuration_with_errors_ends_the_whole_with_two_and_tells_them_once(
    redis: RedisServer, tmp_path: Path
) -> None:
    ended = _serve(tmp_path, {**shared(NOWHERE, redis, tmp_path), "listn": "x"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("listn: is not a known setting") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "2"], "needs a shared store"),
        (["--workers", "auto"], "needs a shared store"),
        (["--workers", "none"], "a number of processes from 1 to 512, or auto"),
    ],
)
def test_workers_that_could_not_share_their_counters_are_not_started(
    arguments: list[str], said: str, redis: RedisServer, tmp_path: Path
) -> None:
    ended = _serve(tmp_path, {**shared(NOWHERE, redis, tmp_path, workers=1), "store": {"url": "memory://"}}, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr


@pytest.mark.slow
async def test_the_command_line_says_how_many_and_one_needs_no_supervisor(redis: RedisServer, tmp_path: Path) -> None:
    config = shared(NOWHERE, redis, tmp_path)
    async with workers_process(config, tmp_path, "--workers", "1") as gateway:
        assert [line["event"] for line in gateway.lines] == ["serving"]
    async with workers_process({**config, "workers": 1}, tmp_path, "--workers", "3") as gateway:
        assert sorted(pids(gateway)) == [1, 2, 3]


def _serve(folder: Path, config: Json, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A gateway that is to end by itself."""
    file = folder / "other.yaml"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(file), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def _until_refused(gateway: GatewayProcess) -> None:
    """Until every worker has closed its listener to new connections."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with raw_client(gateway.port):
                    continue
            except ConnectionError:
                return


async def _begun_stream(client: RawClient, upstream: HandUpstream) -> Turn:
    """A stream whose upstream has said its first event."""
    client.send(http_chat(stream=True, stream_options={"include_usage": True}))
    turn = await upstream.asked()
    turn.begin_stream()
    turn.send(content("a"))
    await client.until(content("a"))
    return turn
