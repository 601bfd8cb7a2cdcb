"""A hundred thousand keys in the store: a gateway starts, lists and looks up as if there were few."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from gateway.identity.contract import AuditEntry, StoredKey
from tests.contract.identity.conftest import keys_in_redis
from tests.gateway_process import GatewayProcess, gateway_process
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import Json, configuration

KEYS = 100_000
AT_ONCE = 1_000
TOKEN = "operators-token-77ac3e"
SECRET = "gw_key-number-{}"
START_S = 2.0
MEMORY_BYTES = 5 * 2**20


def key_of(number: int) -> StoredKey:
    digest = hashlib.sha256(SECRET.format(number).encode()).hexdigest()
    return StoredKey(digest[:12], digest, f"key-{number}", "search", 1_700_000_000_000 + number, digest[:12])


class Measured(NamedTuple):
    started_s: float
    bytes_used: int


@contextlib.asynccontextmanager
async def started(redis: RedisServer, folder: Path) -> AsyncIterator[tuple[GatewayProcess, float]]:
    store = {"url": redis.url, "journal": str(folder / "journal")}
    config = configuration("http://127.0.0.1:1/v1", admin={"listen": "127.0.0.1:0", "token": TOKEN}, store=store)
    began = time.monotonic()
    # With its configuration it would search the whole store for secrets at the end.
    file = written(folder, config)
    async with gateway_process("-c", str(file), folder=folder) as process:
        yield process, time.monotonic() - began


def written(folder: Path, config: Json) -> Path:
    folder.mkdir()
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(config))
    return file


def memory_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def lookups(redis: RedisServer) -> int:
    with contextlib.closing(redis.client()) as client:
        return int(client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))


async def measured(redis: RedisServer, folder: Path) -> Measured:
    """Once it has listed a page and let some keys in."""
    async with started(redis, folder) as (process, started_s), aiohttp.ClientSession() as session:
        admin, token = f"http://127.0.0.1:{process.admin_port}/admin/v1/keys", {"authorization": f"Bearer {TOKEN}"}
        async with session.get(admin, params={"limit": "100", "source": "store"}, headers=token) as answer:
            assert answer.status == 200
            page: Json = await answer.json()
        for number in range(10 if page["data"] else 0):
            before = lookups(redis)
            for _ in range(3):
                headers = {"authorization": f"Bearer {SECRET.format(number * 9_973)}"}
                async with session.get(f"http://127.0.0.1:{process.port}/v1/models", headers=headers) as answer:
                    assert answer.status == 200
            assert lookups(redis) - before == 1
        return Measured(started_s, memory_of(process.pid))


@pytest.mark.slow
async def test_a_hundred_thousand_keys_cost_a_gateway_nothing_until_they_are_used(tmp_path: Path) -> None:
    with redis_server(tcp=True) as redis:
        without = await measured(redis, tmp_path / "without")
        async with keys_in_redis(redis.url) as keys:
            for first in range(0, KEYS, AT_ONCE):
                made = [key_of(number) for number in range(first, first + AT_ONCE)]
                assert await keys.write(made, AuditEntry("a test", "key.import", f"{AT_ONCE} keys")) is not None
            listed, cursor = 0, ""
            while page := await keys.page("search", cursor, AT_ONCE):
                listed, cursor = listed + len(page.keys), page.next
                if not cursor:
                    break
            assert listed == KEYS
        full = await measured(redis, tmp_path / "full")
    assert full.started_s - without.started_s < START_S
    assert full.bytes_used - without.bytes_used < MEMORY_BYTES
