"""Both stores of keys. The promises are those of gateway/identity/contract.py."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from zoneinfo import ZoneInfo

import pytest

from gateway.identity.contract import KeyStore
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.identity.in_redis import RedisKeyStore
from gateway.runtime.system_clock import SystemClock
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.store import RedisOptions, RedisStore
from tests.redis_servers import RedisServer, redis_cluster, redis_server


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[list[RedisServer]]:
    with redis_cluster() as nodes:
        yield nodes


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """A server that has nothing."""
    emptied(shared_redis)
    return shared_redis


def emptied(*servers: RedisServer) -> None:
    for server in servers:
        with contextlib.closing(server.client()) as client:
            client.flushall()


def _no_defect(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


@contextlib.asynccontextmanager
async def keys_in_redis(url: str) -> AsyncIterator[RedisKeyStore]:
    store = RedisStore(RedisOptions(url, "a-process"), ZoneInfo("UTC"))
    keys = RedisKeyStore(store.client.background, "gw", BackgroundTasks(_no_defect))
    try:
        yield keys
    finally:
        await keys.close()
        await store.close()


@pytest.fixture(params=["memory", "redis", pytest.param("cluster", marks=pytest.mark.slow)])
async def keys(request: pytest.FixtureRequest) -> AsyncIterator[KeyStore]:
    if request.param == "memory":
        yield InMemoryKeyStore(SystemClock())
        return
    if request.param == "redis":
        url = request.getfixturevalue("redis").url
    else:
        nodes = request.getfixturevalue("shared_cluster")
        emptied(*nodes)
        url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
    async with keys_in_redis(url) as store:
        yield store
