"""A gateway is restarted: what it has learned about requests is kept in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.input_size import InputSize
from gateway.demo import DemoScript, DemoUpstream
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import MODEL, PATIENCE_S, Json, WholeGateway, whole_gateway

SIZE = InputSize(10_000)
REQUESTS = 40


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def store_at(redis: RedisServer, folder: Path) -> Json:
    return {"url": redis.url, "journal": str(folder), "timeout": "5s"}


async def learn(gateway: WholeGateway) -> None:
    """The upstream reports far more tokens than a few words have."""
    for _ in range(REQUESTS):
        assert (await gateway.chat()).status == 200
        await gateway.ended()


def estimates(gateway: WholeGateway, model: str = MODEL) -> tuple[int, int]:
    estimator = gateway.gateway.services.estimates.of("search", model)
    return estimator.input_tokens(SIZE), estimator.output_tokens()


async def test_a_gateway_estimates_as_before_it_was_restarted(redis: RedisServer, tmp_path: Path) -> None:
    store = store_at(redis, tmp_path)
    async with DemoUpstream(DemoScript(chunks=30, prompt_tokens=30)) as upstream:
        async with whole_gateway(upstream.base_url, store=store) as gateway:
            at_first = estimates(gateway)
            await learn(gateway)
            learned = estimates(gateway)
            assert learned != at_first
            assert learned[1] == 30
        async with whole_gateway(upstream.base_url, store=store) as gateway, asyncio.timeout(PATIENCE_S):
            while estimates(gateway) != learned:
                await asyncio.sleep(0)
            assert estimates(gateway, "another model") == at_first


async def test_a_gateway_without_its_redis_just_learns_alone(redis: RedisServer, tmp_path: Path) -> None:
    store = store_at(redis, tmp_path) | {"on_outage": "allow", "timeout": "100ms"}
    async with DemoUpstream(DemoScript(chunks=30, prompt_tokens=30)) as upstream:
        redis.stop()
        async with whole_gateway(upstream.base_url, store=store) as gateway:
            at_first = estimates(gateway)
            await learn(gateway)
            assert estimates(gateway) != at_first
            assert not [line for line in gateway.lines if "estimates" in str(line.get("event"))]
