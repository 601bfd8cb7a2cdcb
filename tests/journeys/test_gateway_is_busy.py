"""A burst or its machine holds the gateway up while Redis is well: nobody is refused for it, nobody passes a limit."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest
import uvloop

from gateway.demo import DemoScript, DemoUpstream
from gateway.runtime.listening import ACCEPTED_PER_TURN
from tests.gateway_process import GatewayProcess, gateway_process
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import KEY, UPSTREAM_KEY, Json, chat_body, configuration, whole_gateway

TIMEOUT_S = 0.25
STALL_S = 1.0
SERVED = DemoScript(prompt_tokens=6, completion_tokens=4, chunks=4)
LIMIT = 100
REQUESTS = 400
BURST = 2_000


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def settings(redis: RedisServer, folder: Path, on_outage: str) -> Json:
    return {"url": redis.url, "timeout": "250ms", "journal": str(folder), "on_outage": on_outage}


def patient(upstream: DemoUpstream) -> Json:
    """The upstream has the loop that stands still: on a busy machine it takes longer than usual to accept."""
    return {"up1": {"base_url": upstream.base_url, "api_key": UPSTREAM_KEY, "timeouts": {"connect": "60s"}}}


def journals(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "journal.key"]


async def statuses_of(url: str, requests: int) -> Counter[int]:
    """Of so many requests at once, each on a connection of its own."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> int:
            headers = {"authorization": f"Bearer {KEY}"}
            async with session.post(f"{url}/chat/completions", json=chat_body(), headers=headers) as answer:
                await answer.read()
                return answer.status

        return Counter(await asyncio.gather(*[ask() for _ in range(requests)]))


@pytest.mark.parametrize("on_outage", ["refuse", "allow"])
@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_loop_that_stands_still_under_load_refuses_nobody_and_lets_nobody_through(
    redis: RedisServer, tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop], on_outage: str
) -> None:
    async def stall() -> None:
        for _ in range(4):
            await asyncio.sleep(TIMEOUT_S / 10)
            time.sleep(STALL_S)  # noqa: ASYNC251 # This is what is tried.

    async def attempt() -> None:
        team: Json = {"limits": [{"requests": LIMIT, "per": "day"}]}
        store = settings(redis, tmp_path, on_outage)
        async with (
            DemoUpstream(SERVED) as upstream,
            whole_gateway(upstream.base_url, store=store, team=team, upstreams=patient(upstream)) as gateway,
        ):
            stalling = asyncio.create_task(stall())
            assert await statuses_of(gateway.url, REQUESTS) == {200: LIMIT, 429: REQUESTS - LIMIT}
            await stalling
            for _ in range(REQUESTS):
                await gateway.ended()
            assert (await gateway.ledger()).requests == upstream.truth.total.requests == LIMIT
            assert 'outcome="unavailable"' not in await gateway.metrics()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(attempt())
    assert journals(tmp_path) == []


@pytest.mark.parametrize("on_outage", ["refuse", "allow"])
async def test_a_process_that_is_paused_under_load_refuses_nobody_and_lets_nobody_through(
    redis: RedisServer, tmp_path: Path, on_outage: str
) -> None:
    async with DemoUpstream(SERVED) as upstream:
        told = configuration(upstream.base_url, team={"limits": [{"requests": LIMIT, "per": "day"}]})
        told["store"] = settings(redis, tmp_path / "journal", on_outage)
        async with gateway_process(config=told, folder=tmp_path) as gateway:
            asking = asyncio.create_task(statuses_of(f"http://127.0.0.1:{gateway.port}/v1", REQUESTS))
            logged = asyncio.create_task(gateway.times("request", REQUESTS))
            for _ in range(3):
                await pause(gateway)
            assert await asking == {200: LIMIT, 429: REQUESTS - LIMIT}
            await logged
            gateway.signal(signal.SIGTERM)
            assert await gateway.exit_status() == 0
        assert upstream.truth.total.requests == LIMIT
        assert journals(tmp_path / "journal") == []
        assert not [line for line in gateway.lines if line["event"] == "store unavailable"]


async def pause(gateway: GatewayProcess) -> None:
    gateway.signal(signal.SIGSTOP)
    await asyncio.sleep(STALL_S)
    gateway.signal(signal.SIGCONT)
    await asyncio.sleep(TIMEOUT_S / 10)


@pytest.mark.slow
@pytest.mark.parametrize("on_outage", ["refuse", "allow"])
async def test_a_burst_of_thousands_refuses_nobody_and_lets_nobody_through(
    redis: RedisServer, tmp_path: Path, on_outage: str
) -> None:
    async with DemoUpstream(SERVED) as upstream:
        told = configuration(upstream.base_url, team={"limits": [{"requests": LIMIT, "per": "day"}]})
        told["store"] = settings(redis, tmp_path / "journal", on_outage)
        async with gateway_process(config=told, folder=tmp_path) as gateway:
            logged = asyncio.create_task(gateway.times("request", BURST))
            counts = await statuses_of(f"http://127.0.0.1:{gateway.port}/v1", BURST)
            assert counts == {200: LIMIT, 429: BURST - LIMIT}
            await logged
            gateway.signal(signal.SIGTERM)
            assert await gateway.exit_status() == 0
        assert journals(tmp_path / "journal") == []


def test_a_burst_of_connections_is_accepted_in_fewer_turns_of_the_loop_than_it_has_connections() -> None:
    """A new client waits for those in front of it."""
    burst = 10 * ACCEPTED_PER_TURN

    async def attempt() -> int:
        turns = 0
        async with whole_gateway("http://127.0.0.1:9") as gateway:
            with ExitStack() as clients:
                for _ in range(burst):
                    clients.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
                while gateway.gateway._open[0].listener.open_connections < burst:
                    turns += 1
                    await asyncio.sleep(0)
        return turns

    assert uvloop.run(attempt()) <= burst // ACCEPTED_PER_TURN + 2
