"""Counters that a gateway of the first version has written: a newer one goes on from them, and the older one from what
that writes, while both run and after a rollback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.core.grants import Grant
from gateway.core.limits import Limit
from gateway.core.reservation import Refusal, Reservation
from gateway.store.in_redis import RedisStore
from tests.contract.store.asking import ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import UTC, redis_options
from tests.contract.store.older_gateway import STEP_MS, OlderGateway
from tests.redis_servers import RedisServer

QUOTAS = [limit("tokens", per, 1_000) for per in ("day", "week", "month", "total")]
RATE = limit("tokens", "hour", 1_000)
CONCURRENT = limit("concurrent", None, 6)
REQUESTS = [limit("requests", "day", 8), limit("requests", "hour", 8)]


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    # Holds last as in earnest, as those of the older one do.
    options = msgspec.structs.replace(redis_options(redis.url, "newer"), hold_ttl_ms=6 * STEP_MS)
    opened = RedisStore(options, UTC)
    yield opened
    await opened.close()


@pytest.fixture
def older(redis: RedisServer) -> OlderGateway:
    return OlderGateway(redis, "older")


async def newer_admits(store: RedisStore, one: Limit, *, fixed: int, output: int) -> Reservation | None:
    verdict = await store.admit(ask(one, fixed=fixed, likely=output, most=output))
    return None if isinstance(verdict, Refusal) else verdict


@pytest.mark.parametrize("one", [*QUOTAS, RATE], ids=lambda one: one.name)
async def test_what_either_version_uses_and_holds_counts_for_the_other(
    store: RedisStore, older: OlderGateway, one: Limit
) -> None:
    for number in (1, 2):
        first = older.admit(one, fixed=60, output=40)
        assert first is not None
        assert await used_and_held(store, one) == (250 * number - 250, 100)
        second = await newer_admits(store, one, fixed=100, output=100)
        assert second is not None
        assert await used_and_held(store, one) == (250 * number - 250, 300)
        older.settle(truth(first, 70))
        await store.settle(truth(second, 180))
        assert await used_and_held(store, one) == (250 * number, 0)
    assert older.admit(one, fixed=501, output=0) is None
    assert await newer_admits(store, one, fixed=501, output=0) is None
    assert older.admit(one, fixed=490, output=5) is not None


@pytest.mark.parametrize("one", REQUESTS, ids=lambda one: one.name)
async def test_requests_of_both_versions_are_counted_together(
    store: RedisStore, older: OlderGateway, one: Limit
) -> None:
    admitted = []
    for _ in range(5):
        admitted += [older.admit(one, fixed=1, output=0), await newer_admits(store, one, fixed=1, output=0)]
    assert [verdict is not None for verdict in admitted] == [True] * 8 + [False] * 2
    assert (await used_and_held(store, one))[0] == 8


async def test_requests_at_one_time_are_counted_over_both_versions(store: RedisStore, older: OlderGateway) -> None:
    mine = [await newer_admits(store, CONCURRENT, fixed=1, output=0) for _ in range(3)]
    assert [older.admit(CONCURRENT, fixed=1, output=0) is not None for _ in range(4)] == [True, True, True, False]
    assert await newer_admits(store, CONCURRENT, fixed=1, output=0) is None
    for each in mine:
        assert each is not None
        await store.settle(truth(each, 0))
    assert older.admit(CONCURRENT, fixed=1, output=0) is not None


@pytest.mark.parametrize("one", [QUOTAS[0], RATE], ids=lambda one: one.name)
async def test_what_one_version_has_admitted_the_other_can_settle_once(redis: RedisServer, one: Limit) -> None:
    """As when the journal of a process is replayed by another version."""
    options = msgspec.structs.replace(redis_options(redis.url, "one"), hold_ttl_ms=6 * STEP_MS)
    store, older = RedisStore(options, UTC), OlderGateway(redis, "one")
    try:
        first = older.admit(one, fixed=60, output=40)
        second = await newer_admits(store, one, fixed=60, output=40)
        assert first is not None
        assert second is not None
        for _ in range(2):
            await store.settle(truth(first, 90, bill(cost=1)))
            older.settle(truth(second, 30, bill(cost=2)))
            older.settle(truth(first, 90, bill(cost=1)))
            await store.settle(truth(second, 30, bill(cost=2)))
        assert await used_and_held(store, one) == (120, 0)
        assert sum(figures[-1] for figures in older.usage().values()) == 3
    finally:
        await store.close()


@pytest.mark.parametrize("one", [*QUOTAS, RATE, limit("tokens", "minute", 61)], ids=lambda one: one.name)
async def test_an_older_version_drops_a_grant_and_nothing_that_was_counted_under_it(
    store: RedisStore, older: OlderGateway, one: Limit
) -> None:
    amount = one.amount
    hour_ms = 3_600_000
    at_ms = (await store.admit(ask())).at_ms
    await store.grant(one, Grant("0123456789ab", 2 * amount + 7, at_ms + hour_ms))
    running = await newer_admits(store, one, fixed=amount, output=amount)
    assert running is not None
    assert (await used_and_held(store, one))[1] == 2 * amount
    # It has no room by what it knows, and changes nothing.
    assert older.admit(one, fixed=1, output=0) is None
    assert await newer_admits(store, one, fixed=amount // 2, output=0) is not None
    older_limit = msgspec.structs.replace(one, amount=8 * amount, burst=8 * amount)
    assert older.admit(older_limit, fixed=amount, output=0) is not None
    assert (await used_and_held(store, one))[1] == 3 * amount + amount // 2
    [seen] = await store.limit_statuses([one])
    assert seen.limit == one
