"""What processes have learned about requests, as they share it."""

from __future__ import annotations

import contextlib
from struct import pack

import msgspec
import pytest

from bench.free_ports import free_port
from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import EstimateSubject, LearnedEstimate
from gateway.store.contract import ESTIMATES_DAYS, ESTIMATES_MERGED, CallRefused, Store
from gateway.store.in_redis import RedisStore
from tests.contract.store.keepers import UTC, redis_options
from tests.redis_servers import RedisServer

RED, BLUE = EstimateSubject("red", "m"), EstimateSubject('b|"\n', "ü")
ROWS = "gw:1:{o}:e"


def learned(ratio: float = 3.0, lessons: float = 20.0) -> LearnedEstimate:
    return LearnedEstimate(lessons, 5.0, ratio, 2.5, 200.0, 50.0)


async def test_nothing_is_known_before_anything_is_shared(store: Store) -> None:
    assert await store.shared_estimates() == {}
    await store.share_estimates({})
    assert await store.shared_estimates() == {}


async def test_what_is_shared_is_read_again(store: Store) -> None:
    await store.share_estimates({RED: learned(3.0), BLUE: learned(5.0)})
    assert await store.shared_estimates() == {RED: learned(3.0), BLUE: learned(5.0)}


async def test_a_process_replaces_what_it_shared_before(store: Store) -> None:
    await store.share_estimates({RED: learned(3.0), BLUE: learned(5.0)})
    await store.share_estimates({RED: learned(2.0)})
    assert await store.shared_estimates() == {RED: learned(2.0), BLUE: learned(5.0)}


async def test_what_cannot_be_is_read_within_bounds_or_not_at_all(store: Store) -> None:
    await store.share_estimates({RED: learned(1e9), BLUE: learned(float("nan"))})
    assert await store.shared_estimates() == {RED: learned(16.0)}


async def share_as(redis: RedisServer, process: str, estimate: LearnedEstimate) -> None:
    store = RedisStore(redis_options(redis.url, process), UTC)
    await store.share_estimates({RED: estimate})
    await store.close()


@pytest.fixture
async def reader(redis: RedisServer) -> object:
    store = RedisStore(redis_options(redis.url, "reader"), UTC)
    yield store
    await store.close()


async def test_processes_are_merged_and_one_bad_one_decides_nothing(redis: RedisServer, reader: RedisStore) -> None:
    for number, ratio in enumerate((3.0, 3.2, 16.0, 3.4, 1.0)):
        await share_as(redis, f"p{number}", learned(ratio))
    assert await reader.shared_estimates() == {
        RED: msgspec.structs.replace(learned(3.2, lessons=100.0), wide_lessons=25.0)
    }


async def test_the_rows_of_old_processes_are_bounded(redis: RedisServer, reader: RedisStore) -> None:
    for number in range(3 * ESTIMATES_MERGED):
        await share_as(redis, f"p{number}", learned(2.0 if number < 2 * ESTIMATES_MERGED else 6.0))
    assert (await reader.shared_estimates())[RED].characters_per_token == 6.0
    with contextlib.closing(redis.client()) as client:
        assert client.hlen(ROWS) == ESTIMATES_MERGED
        assert 0 < client.pttl(ROWS) <= ESTIMATES_DAYS * 86_400_000


async def test_what_is_old_or_no_row_or_from_the_future_is_taken_away(redis: RedisServer, reader: RedisStore) -> None:
    with contextlib.closing(redis.client()) as client:
        now_ms = client.time()[0] * 1000
        rows = {
            '["red","m","old"]': pack("<7d", now_ms - 31 * 86_400_000, 20, 5, 16, 1, 1, 1),
            '["red","m","ahead"]': pack("<7d", now_ms + 86_400_000, 20, 5, 16, 1, 1, 1),
            '["red","m","nan"]': pack("<7d", float("nan"), 20, 5, 16, 1, 1, 1),
            '["red","m","short"]': b"1",
            "no name": pack("<7d", now_ms, 20, 5, 16, 1, 1, 1),
            "[1,2,3]": pack("<7d", now_ms, 20, 5, 16, 1, 1, 1),
        }
        client.hset(ROWS, mapping=rows)
        await reader.share_estimates({RED: learned()})
        assert await reader.shared_estimates() == {RED: learned()}
        assert client.hkeys(ROWS) == [b'["red","m","reader"]']


async def test_a_row_is_as_documented(redis: RedisServer, reader: RedisStore) -> None:
    await reader.share_estimates({RED: learned(3.0)})
    with contextlib.closing(redis.client()) as client:
        [(name, row)] = client.hgetall(ROWS).items()
    assert name == b'["red","m","reader"]'
    assert row[8:] == pack("<6d", 20, 5, 3, 2.5, 200, 50)


async def test_a_key_of_somebody_else_is_left_alone(redis: RedisServer, reader: RedisStore) -> None:
    with contextlib.closing(redis.client()) as client:
        client.set(ROWS, "else")
        with pytest.raises(CallRefused):
            await reader.shared_estimates()
        with pytest.raises(CallRefused):
            await reader.share_estimates({RED: learned()})
        assert client.get(ROWS) == b"else"


async def test_a_store_that_is_out_says_so() -> None:
    store = RedisStore(redis_options(f"redis://127.0.0.1:{free_port()}"), UTC)
    with pytest.raises(StoreUnavailable):
        await store.shared_estimates()
    with pytest.raises(StoreUnavailable):
        await store.share_estimates({RED: learned()})
    await store.close()
