from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from gateway.store.contract import Store
from tests.contract.store.keepers import HOLD_TTL_MS, Keeper, MemoryKeeper, RedisKeeper
from tests.redis_servers import RedisServer, redis_cluster, redis_server

ON_BOTH_LOOPS = {"test_redis_client.py", "test_redis_outage.py"}
"""What is about timers and sockets holds on the loop that the gateway runs on and on Python's own."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    pythons: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop} | pythons if item.path.name in ON_BOTH_LOOPS else pythons


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[list[RedisServer]]:
    with redis_cluster() as nodes:
        yield nodes


def emptied(*servers: RedisServer) -> None:
    for server in servers:
        with contextlib.closing(server.client()) as client:
            client.flushall()


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """A server that has nothing."""
    emptied(shared_redis)
    return shared_redis


@pytest.fixture(params=["memory", "redis", pytest.param("cluster", marks=pytest.mark.slow)])
async def keeper(request: pytest.FixtureRequest) -> AsyncIterator[Keeper]:
    """A module that is not about the end of holds sets `HOLDS_LAST_MS`, so that no hold ends on a busy machine."""
    kept: Keeper
    last_ms: int = getattr(request.module, "HOLDS_LAST_MS", HOLD_TTL_MS)
    if request.param == "memory":
        kept = MemoryKeeper(hold_ttl_ms=last_ms)
    elif request.param == "redis":
        server = request.getfixturevalue("redis")
        kept = RedisKeeper(server.url, [server], hold_ttl_ms=last_ms)
    else:
        nodes = request.getfixturevalue("shared_cluster")
        emptied(*nodes)
        kept = RedisKeeper(f"redis+cluster://127.0.0.1:{nodes[0].port}", nodes, hold_ttl_ms=last_ms)
    yield kept
    await kept.store.close()


@pytest.fixture
def store(keeper: Keeper) -> Store:
    return keeper.store
