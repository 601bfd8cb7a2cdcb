"""A caller who repeats what was refused costs Redis nothing, and is let through as soon as Redis would do it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.core.grants import Grant
from gateway.core.reservation import AdmissionRequest
from gateway.store.in_redis import RedisStore
from gateway.store.in_redis.remembered_refusals import AHEAD_MS, REPEATED_MS, RememberedRefusals
from tests.contract.store.asking import admitted, ask, limit, refused, truth
from tests.contract.store.keepers import UTC, redis_options
from tests.redis_servers import RedisServer

SPENT_DAY = limit("requests", "day", 1)
OVER_S = REPEATED_MS / 1000 + 0.02


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_options(redis.url), UTC)
    yield opened
    await opened.close()


def scripts_run(redis: RedisServer) -> int:
    with contextlib.closing(redis.client()) as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def again(request: AdmissionRequest, **other: object) -> AdmissionRequest:
    """Another request of the same caller."""
    return msgspec.structs.replace(request, **({"id": f"{request.id}+"} | other))


async def test_what_is_repeated_at_once_asks_redis_once(redis: RedisServer, store: RedisStore) -> None:
    first = ask(SPENT_DAY)
    await admitted(store, first)
    told = await refused(store, again(first))
    before = scripts_run(redis)
    repeated = [await refused(store, again(first)) for _ in range(20)]
    assert scripts_run(redis) == before
    for one in repeated:
        assert (one.why, one.requested, one.limit_status) == (told.why, told.requested, told.limit_status)
        assert one.at_ms + one.retry_after_ms == told.at_ms + told.retry_after_ms


async def test_after_a_moment_redis_is_asked_again(redis: RedisServer, store: RedisStore) -> None:
    first = ask(SPENT_DAY)
    await admitted(store, first)
    await refused(store, again(first))
    before = scripts_run(redis)
    await asyncio.sleep(OVER_S)
    await refused(store, again(first))
    assert scripts_run(redis) == before + 1


async def test_what_asks_for_less_is_judged_by_itself(store: RedisStore) -> None:
    first = ask(limit("tokens", "day", 1_000), fixed=900, likely=1, most=1)
    reservation = await admitted(store, first)
    await store.settle(truth(reservation, 950))
    await refused(store, again(first))
    await admitted(store, again(first, fixed=[10]))


@pytest.mark.parametrize(
    "one", [limit("concurrent", None, 1), limit("tokens", "day", 30), limit("tokens", "minute", 30)]
)
async def test_what_is_only_held_is_free_as_soon_as_it_is_settled(store: RedisStore, one: object) -> None:
    first = ask(one)  # type: ignore[arg-type]
    reservation = await admitted(store, first)
    await refused(store, again(first))
    await store.settle(truth(reservation, 0))
    await admitted(store, again(first))


async def test_a_grant_lets_through_at_once_here_and_after_a_moment_elsewhere(
    redis: RedisServer, store: RedisStore
) -> None:
    other = RedisStore(redis_options(redis.url, "two"), UTC)
    try:
        first = ask(SPENT_DAY)
        await admitted(store, first)
        for each in (store, other):
            await refused(each, again(first))
        now_ms = store.now_ms()
        await store.grant(SPENT_DAY, Grant("0123456789ab", 5, now_ms + 60_000))
        await admitted(store, again(first))
        await asyncio.sleep(OVER_S)
        await admitted(other, again(first, id="from-two"))
    finally:
        await other.close()


async def test_what_a_grant_has_raised_is_judged_each_time(redis: RedisServer, store: RedisStore) -> None:
    first = ask(SPENT_DAY)
    await store.grant(SPENT_DAY, Grant("0123456789ab", 1, store.now_ms() + 60_000))
    for name in ("one", "two"):
        await admitted(store, again(first, id=name))
    await refused(store, again(first))
    before = scripts_run(redis)
    assert (await refused(store, again(first))).limit_status.limit.granted == 1
    assert scripts_run(redis) == before + 1


async def test_a_rate_lets_through_when_it_said_it_would(store: RedisStore) -> None:
    first = ask(limit("requests", "second", 25, burst=1))
    await admitted(store, first)
    told = await refused(store, again(first))
    assert 0 < told.retry_after_ms <= 40
    await asyncio.sleep((told.retry_after_ms + 5) / 1000)
    await admitted(store, again(first))


async def test_what_is_not_refused_any_more_by_the_clock_is_not_repeated(store: RedisStore) -> None:
    """To the millisecond, and also where the clock is set back."""
    first = ask(SPENT_DAY)
    await admitted(store, first)
    told = msgspec.structs.replace(await refused(store, again(first)), retry_after_ms=30)
    times = iter([told.at_ms + 29, told.at_ms + 30, told.at_ms - 1])
    known = RememberedRefusals(lambda: next(times))
    known.remember(first, told)
    repeated = known.repeated(again(first))
    assert repeated is not None
    assert repeated.retry_after_ms == 1
    assert known.repeated(again(first)) is None
    known.remember(first, told)
    assert known.repeated(again(first)) is None


async def test_shortly_before_its_time_is_over_one_asks_redis_and_the_others_are_refused(store: RedisStore) -> None:
    first = ask(SPENT_DAY)
    await admitted(store, first)
    told = await refused(store, again(first))
    times = [0, REPEATED_MS - AHEAD_MS - 1, *[REPEATED_MS - AHEAD_MS] * 3, REPEATED_MS - 1, REPEATED_MS]
    now_ms = iter([told.at_ms + each for each in times])
    known = RememberedRefusals(lambda: next(now_ms))
    known.remember(first, told)
    assert [known.repeated(again(first)) is not None for _ in times] == [True, True, False, True, True, True, False]


async def test_what_a_rate_lets_through_soon_is_not_asked_ahead(store: RedisStore) -> None:
    first = ask(SPENT_DAY)
    await admitted(store, first)
    told = msgspec.structs.replace(await refused(store, again(first)), retry_after_ms=REPEATED_MS - 1)
    now_ms = iter([told.at_ms + REPEATED_MS - 2, told.at_ms + REPEATED_MS - 1])
    known = RememberedRefusals(lambda: next(now_ms))
    known.remember(first, told)
    assert known.repeated(again(first)) is not None
    assert known.repeated(again(first)) is None


async def test_within_a_millisecond_a_flood_gets_the_very_same_refusal(store: RedisStore) -> None:
    first = ask(SPENT_DAY)
    await admitted(store, first)
    told = await refused(store, again(first))
    times = iter([told.at_ms, told.at_ms + 1, told.at_ms + 1, told.at_ms + 2, told.at_ms + 1])
    known = RememberedRefusals(lambda: next(times))
    known.remember(first, told)
    at_once, one, same, later, earlier = [known.repeated(again(first)) for _ in range(5)]
    assert at_once is told
    assert one is same
    for each, left_ms in ((one, 1), (later, 2), (earlier, 1)):
        assert each is not None
        assert (each.at_ms, each.retry_after_ms) == (told.at_ms + left_ms, told.retry_after_ms - left_ms)
        assert each.repeats is told
