"""One connection to one server: what it makes of time."""

from __future__ import annotations

import asyncio

from gateway.core.store_url import read_store_url
from gateway.store.in_redis.address import Address
from gateway.store.in_redis.line import Line, LineDown
from tests.contract.store.keepers import PATIENCE_S
from tests.redis_servers import RedisServer


def line_to(server: RedisServer) -> Line:
    return Line(Address(read_store_url(server.url)).dial_master(), PATIENCE_S)


async def test_calls_whose_time_is_over_when_they_are_made_fail_like_any_other(redis: RedisServer) -> None:
    line = line_to(redis)
    await line.call(("PING",), asyncio.get_running_loop().time() + PATIENCE_S)
    over = asyncio.get_running_loop().time()
    told = await asyncio.gather(*[line.call(("PING",), over) for _ in range(3)], return_exceptions=True)
    assert all(one == b"PONG" or isinstance(one, LineDown) for one in told)
    await line.close()
