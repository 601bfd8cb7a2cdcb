"""Redis freezes, dies, comes late: who waits how long, what is refused, and that nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.demo import DemoScript, DemoUpstream
from gateway.store.journal_key import NAME as KEY_FILE
from tests.hand_upstream import DONE, content, event, finish, hand_upstream, usage
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import KEY, Json, WholeGateway, whole_gateway

TIMEOUT_S = 0.2
TEN_TOKENS = DemoScript(prompt_tokens=6, completion_tokens=4, chunks=4)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server
        server.thaw()


LONG_TIMEOUT_S = 2
"""Beside which the time that a request takes on a busy machine is short."""


def store(redis: RedisServer, folder: Path, **changes: str) -> Json:
    return {"url": redis.url, "timeout": "200ms", "journal": str(folder), **changes}


def journals(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != "journal.key"]


async def until_ready(gateway: WholeGateway) -> None:
    async with asyncio.timeout(10):
        while (await gateway.request("GET", "/readyz", admin=True)).status != 200:
            await asyncio.sleep(TIMEOUT_S / 10)


async def until_settled(gateway: WholeGateway) -> None:
    await until_unsettled(gateway, 0)


async def until_unsettled(gateway: WholeGateway, count: int) -> None:
    """A client has its answer before its settlement is tried."""
    async with asyncio.timeout(10):
        while f"gateway_unsettled_requests {count}\n" not in await gateway.metrics():
            await asyncio.sleep(TIMEOUT_S / 10)


async def test_a_frozen_store_costs_one_timeout_and_then_nothing(redis: RedisServer, tmp_path: Path) -> None:
    slow = store(redis, tmp_path, timeout=f"{LONG_TIMEOUT_S}s")
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, store=slow) as gateway:
        assert (await gateway.chat()).status == 200
        redis.freeze()
        began = time.perf_counter()
        refused = await gateway.chat()
        assert LONG_TIMEOUT_S * 0.9 < time.perf_counter() - began < 2 * LONG_TIMEOUT_S
        assert (refused.status, refused.error["code"]) == (503, "store_unavailable")
        assert refused.headers["retry-after"] == "1"

        began = time.perf_counter()
        assert [(await gateway.chat()).status for _ in range(5)] == [503] * 5
        # Each would have cost as much again; so many together cost less than two.
        assert time.perf_counter() - began < 2 * LONG_TIMEOUT_S
        ready = await gateway.request("GET", "/readyz", admin=True)
        assert (ready.status, ready.json["because"]) == (503, ["the store does not answer"])

        redis.thaw()
        await until_ready(gateway)
        assert (await gateway.chat()).status == 200
        assert upstream.truth.total.requests == 2
        assert 'gateway_store_calls_total{call="admit",outcome="unavailable"} 6' in await gateway.metrics()


async def test_a_gateway_starts_without_its_store(redis: RedisServer, tmp_path: Path) -> None:
    redis.kill()
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, store=store(redis, tmp_path)) as gateway:
        assert (await gateway.chat()).status == 503
        redis.start()
        await until_ready(gateway)
        assert (await gateway.chat()).status == 200


async def test_operators_are_told_of_an_outage_without_any_request(redis: RedisServer, tmp_path: Path) -> None:
    async with whole_gateway("http://127.0.0.1:1/v1", store=store(redis, tmp_path)) as gateway:
        await until_ready(gateway)
        redis.freeze()
        async with asyncio.timeout(10):
            while (await gateway.request("GET", "/readyz", admin=True)).status == 200:
                await asyncio.sleep(TIMEOUT_S / 10)
            while not gateway.lines:  # The answer is no sooner than the probe that finds the outage.
                await asyncio.sleep(TIMEOUT_S / 10)
        redis.thaw()
        async with asyncio.timeout(10):
            while len(gateway.lines) < 2:
                await asyncio.sleep(TIMEOUT_S / 10)
        told = [(line["event"], bool(line.get("reason"))) for line in gateway.lines]
        assert told == [("store unavailable", True), ("store available", False)]


async def test_a_stream_that_outlives_the_store_is_charged_when_it_is_back(redis: RedisServer, tmp_path: Path) -> None:
    limits: Json = {"limits": [{"tokens": 1_000, "per": "month"}, {"concurrent": 1}]}
    model = {"max_output_tokens": 100}
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, store=store(redis, tmp_path), team=limits, model=model) as gateway,
    ):
        asking = asyncio.create_task(gateway.open_stream())
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("a"))
        stream = await asking
        redis.kill()
        turn.send(finish() + event(choices=[], usage=usage(30, 12)) + DONE)
        turn.end_stream()
        assert (await stream.rest()).body.endswith(DONE)
        await gateway.ended()
        assert "gateway_unsettled_requests 1" in await gateway.metrics()
        assert len(journals(tmp_path)) == 1

        redis.start()
        await until_settled(gateway)
        billed = await gateway.ledger()
        assert (billed.requests, billed.input, billed.output) == (1, 30, 12)
        told = await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})
        limit_status = {limit["meter"]: limit for limit in told.json["data"]}
        assert (limit_status["tokens"]["used"], limit_status["tokens"]["held"]) == (42, 0)
        assert limit_status["concurrent"]["held"] == 0


async def test_requests_can_be_let_through_and_charged_later(redis: RedisServer, tmp_path: Path) -> None:
    limits: Json = {"limits": [{"requests": 3, "per": "day"}]}
    async with (
        DemoUpstream(TEN_TOKENS) as upstream,
        whole_gateway(upstream.base_url, store=store(redis, tmp_path, on_outage="allow"), team=limits) as gateway,
    ):
        redis.kill()
        assert [(await gateway.chat()).status for _ in range(5)] == [200] * 5
        assert (await gateway.request("GET", "/readyz", admin=True)).status == 200
        for _ in range(5):
            await gateway.ended()
        assert "gateway_unsettled_requests 5" in await gateway.metrics()

        redis.start()
        await until_settled(gateway)
        assert ((await gateway.ledger()).requests, (await gateway.ledger()).output) == (5, 20)
        refused = await gateway.chat()
        assert (refused.status, refused.json["limit"]["used"]) == (429, 5)


async def test_what_the_disk_refuses_is_charged_all_the_same(redis: RedisServer, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    allowed = store(redis, folder, on_outage="allow")
    async with DemoUpstream(TEN_TOKENS) as upstream, whole_gateway(upstream.base_url, store=allowed) as gateway:
        await until_key_is_kept(folder)
        redis.kill()
        take_away(folder)
        assert (await gateway.chat()).status == 200
        await gateway.ended()
        assert (await gateway.chat()).status == 503
        assert "gateway_unsettled_requests 1" in await gateway.metrics()

        redis.start()
        await until_settled(gateway)
        assert (await gateway.ledger()).requests == 1
        assert 'gateway_journal_entries_total{outcome="replayed"} 1' in await gateway.metrics()

        give_back(folder)
        redis.kill()
        async with asyncio.timeout(10):
            while (await gateway.chat()).status != 200:
                await asyncio.sleep(TIMEOUT_S / 10)
        await until_unsettled(gateway, 1)
        redis.start()
        await until_settled(gateway)
        assert (await gateway.ledger()).requests == 2
        assert 'gateway_journal_entries_total{outcome="lost"} 0' in await gateway.metrics()


async def until_key_is_kept(folder: Path) -> None:
    """The key of the journals is the last that a start writes there."""
    async with asyncio.timeout(10):
        while not (folder / KEY_FILE).exists():
            await asyncio.sleep(TIMEOUT_S / 10)


def take_away(folder: Path) -> None:
    (folder / KEY_FILE).unlink()
    folder.rmdir()


def give_back(folder: Path) -> None:
    folder.mkdir()


async def test_the_next_start_takes_up_what_waits_on_the_disk(redis: RedisServer, tmp_path: Path) -> None:
    allowed = store(redis, tmp_path, on_outage="allow")
    async with DemoUpstream(TEN_TOKENS) as upstream:
        redis.kill()
        async with whole_gateway(upstream.base_url, store=allowed) as gateway:
            assert [(await gateway.chat()).status for _ in range(3)] == [200] * 3
        assert len(journals(tmp_path)) == 1
        redis.start()
        for _ in range(2):
            async with whole_gateway(upstream.base_url, store=allowed) as gateway:
                await until_ready(gateway)
                await until_settled(gateway)
                async with asyncio.timeout(10):
                    while journals(tmp_path):
                        await asyncio.sleep(TIMEOUT_S / 10)
                billed = await gateway.ledger()
                assert (billed.requests, billed.input, billed.output) == (3, 18, 12)
