"""Everything breaks while requests run: scripts vanish, Redis freezes and dies, a gateway is killed.

Afterwards the ledger is what the upstream served, to the token, and nothing is held for the dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.gateway_process import GatewayProcess, gateway_process
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import KEY, Json, chat_body, configuration

TIMEOUT_S = 0.25
FROZEN_S = 5.0
HELD_AT_MOST_S = 60.0
CLIENTS = 6

SERVED = DemoScript(prompt_tokens=11, completion_tokens=7, chunks=7, chunk_delay_ms=3)
HANGING = DemoScript(prompt_tokens=11, chunks=8, halt="hang", halt_after=2)
HANGING_MODEL = "org/hangs"
LIMITS = [
    {"requests": 1_000_000, "per": "day"},
    {"tokens": 10_000_000, "per": "minute"},
    {"tokens": 100_000_000, "per": "month"},
    {"concurrent": 500},
]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "yes") as server:
        yield server
        server.thaw()


class Load:
    """Clients that ask one gateway, plain and streamed in turn, until they are told to stop."""

    def __init__(self, session: aiohttp.ClientSession, port: int, clients: int = CLIENTS) -> None:
        self.statuses: Counter[int] = Counter()
        self.slowest_refusal_s = 0.0
        self._session = session
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._stopping = False
        self._clients = [asyncio.create_task(self._ask(number)) for number in range(clients)]

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._clients)

    async def _ask(self, number: int) -> None:
        while not self._stopping:
            number += 1
            began = time.perf_counter()
            body = chat_body(stream=number % 2 == 0)
            async with self._session.post(self._url, json=body, headers=_HEADERS) as answer:
                await answer.read()
            self.statuses[answer.status] += 1
            if answer.status == 503:
                self.slowest_refusal_s = max(self.slowest_refusal_s, time.perf_counter() - began)
                await asyncio.sleep(TIMEOUT_S / 20)


_HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.mark.slow
async def test_nothing_is_lost_and_nothing_counted_twice(redis: RedisServer, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(DemoUpstream(SERVED))
        hanging = await stack.enter_async_context(DemoUpstream(HANGING, models=(HANGING_MODEL,)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        told = _configuration(upstream, hanging, redis, tmp_path / "journal")
        start = _Starter(stack, told, tmp_path)
        one, other = await start(), await start()
        loads = [Load(session, one.port), Load(session, other.port)]
        held = [await _hang(session, one.port) for _ in range(5)]

        await _break(redis, loads)
        await asyncio.gather(*[load.stop() for load in loads])
        await _all_finished(session, one, loads[0])
        one.signal(signal.SIGKILL)
        died = time.monotonic()
        redis.start()
        for stream in held:
            stream.close()
        heir = await start()
        loads.append(Load(session, heir.port))
        await _after_answers(loads[2:], 100)
        await loads[2].stop()

        for gateway, load in zip((other, heir), loads[1:], strict=True):
            await _all_finished(session, gateway, load)
            await _until(session, gateway, "/metrics", lambda text: "gateway_unsettled_requests 0" in text)
        billed = (await _admin(session, heir, "/admin/v1/usage"))["total"]
        truth = upstream.truth.total
        assert (truth.open, truth.halted, truth.cancelled) == (0, 0, 0)
        assert (billed["requests"], billed["input_tokens"], billed["output_tokens"], billed["estimated_tokens"]) == (
            truth.completed,
            truth.reported.prompt,
            truth.reported.completion,
            0,
        )
        assert truth.completed > 300
        assert set(sum((load.statuses for load in loads), Counter[int]())) == {200, 503}
        # Whoever is refused has waited for a timeout at most, and not for Redis.
        assert max(load.slowest_refusal_s for load in loads) < FROZEN_S / 2
        assert not [path for path in _listed(tmp_path / "journal") if path.stat().st_size]
        lanes = await _standing(session, heir, "concurrent")
        # And perhaps what Redis admitted in the moment that it died, for the gateway that was killed then.
        assert 5 <= lanes["held"] <= 5 + CLIENTS
        while lanes["held"]:
            await asyncio.sleep(TIMEOUT_S)
            lanes = await _standing(session, heir, "concurrent")
            assert time.monotonic() - died < 2 * HELD_AT_MOST_S
        month = await _standing(session, heir, "tokens", "month")
        assert (month["used"], month["held"]) == (truth.reported.prompt + truth.reported.completion, 0)


async def _break(redis: RedisServer, loads: list[Load]) -> None:
    """One thing after the other, with answers between."""
    await _after_answers(loads, 100)
    with contextlib.closing(redis.client()) as client:
        client.script_flush()
    await _after_answers(loads, 100)
    redis.freeze()
    await asyncio.sleep(FROZEN_S)
    redis.thaw()
    await _after_answers(loads, 100)
    redis.kill()


class _Starter:
    def __init__(self, stack: contextlib.AsyncExitStack, told: Json, folder: Path) -> None:
        self._stack, self._told, self._folder = stack, told, folder
        self._count = 0

    async def __call__(self) -> GatewayProcess:
        self._count += 1
        folder = self._folder / f"gateway-{self._count}"
        folder.mkdir()
        gateway = await self._stack.enter_async_context(gateway_process(config=self._told, folder=folder))
        reading = asyncio.create_task(gateway.read_on())
        self._stack.callback(reading.cancel)
        return gateway


def _configuration(upstream: DemoUpstream, hanging: DemoUpstream, redis: RedisServer, journal: Path) -> Json:
    told = configuration(upstream.base_url, team={"limits": LIMITS}, model={"max_output_tokens": 50})
    told["upstreams"]["hanging"] = {"base_url": hanging.base_url}
    told["models"][HANGING_MODEL] = {"routes": [{"upstream": "hanging"}], "max_output_tokens": 50}
    told["store"] = {"url": redis.url, "timeout": "250ms", "journal": str(journal)}
    told["admin"]["token"] = "operators"
    return told


async def _hang(session: aiohttp.ClientSession, port: int) -> aiohttp.ClientResponse:
    """A stream that has begun and goes on for ever."""
    body = chat_body(stream=True, model=HANGING_MODEL)
    answer = await session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=_HEADERS)
    assert answer.status == 200
    await answer.content.readany()
    return answer


async def _after_answers(loads: list[Load], count: int) -> None:
    """Return when each has got so many answers more."""
    goals = [load.statuses[200] + count for load in loads]
    async with asyncio.timeout(60):
        while any(load.statuses[200] < goal for load, goal in zip(loads, goals, strict=True)):
            await asyncio.sleep(TIMEOUT_S / 10)


async def _until(session: aiohttp.ClientSession, gateway: GatewayProcess, path: str, happened: Any) -> None:
    async with asyncio.timeout(60):
        while not happened(await _text(session, gateway, path)):
            await asyncio.sleep(TIMEOUT_S / 10)


async def _all_finished(session: aiohttp.ClientSession, gateway: GatewayProcess, load: Load) -> None:
    """An answer is settled, if only on the disk, a moment after its client has it."""
    answered = sum(load.statuses.values())
    await _until(session, gateway, "/metrics", lambda text: _finished(text) == answered)


def _finished(metrics: str) -> int:
    """Requests that are settled and recorded."""
    counts = [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith("gateway_requests_total{")]
    return sum(int(float(count)) for count in counts)


async def _text(session: aiohttp.ClientSession, gateway: GatewayProcess, path: str) -> str:
    headers = {"authorization": "Bearer operators"}
    async with session.get(f"http://127.0.0.1:{gateway.admin_port}{path}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()


async def _admin(session: aiohttp.ClientSession, gateway: GatewayProcess, path: str) -> Any:
    return json.loads(await _text(session, gateway, path))


async def _standing(session: aiohttp.ClientSession, gateway: GatewayProcess, meter: str, per: str | None = None) -> Any:
    limits = (await _admin(session, gateway, "/admin/v1/limits"))["data"]
    return next(limit for limit in limits if limit["meter"] == meter and per in (None, limit["per"]))


def _listed(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "journal.key"]
