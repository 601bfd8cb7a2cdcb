"""Grants: what is added to a limit for a while counts at once, for everybody, and to the millisecond."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator
from itertools import count
from multiprocessing.synchronize import Barrier
from pathlib import Path
from struct import pack

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.buckets import RateParts, pace, restored_rate
from gateway.core.errors import StoreUnavailable
from gateway.core.grants import Grant, Grants, with_grant
from gateway.core.limits import Limit, Meter, Mode, Scope
from gateway.core.reservation import RefusalReason, Reservation
from gateway.store.contract import Store
from gateway.store.in_redis import RedisOptions, RedisStore
from gateway.store.in_redis.grants import HISTORY_UNIT, grants_of
from tests.contract.store.asking import admitted, ask, clock_of, limit, refused, set_clock, truth, used_and_held
from tests.contract.store.keepers import HOLD_TTL_MS, UTC, Keeper, MemoryKeeper, redis_options
from tests.redis_servers import RedisServer, redis_server

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
POLL_S = 0.02
_numbers = count(1)


def named(one: Limit) -> str:
    return f"{one.scope}-{one.name}"


KINDS = [
    limit("requests", "hour", 3),
    limit("requests", "day", 3),
    limit("requests", "total", 3),
    limit("concurrent", None, 3),
    limit("requests", "week", 3, scope=Scope.ORGANISATION, subject="", team=""),
    limit("requests", "month", 3, scope=Scope.MODEL, subject="org/m", team=""),
    limit("requests", "day", 3, scope=Scope.USER, subject="ann"),
    limit("requests", "hour", 3, scope=Scope.KEY, subject="0123456789ab"),
]


def a_grant(amount: int, until_ms: int) -> Grant:
    return Grant(f"{next(_numbers):012x}", amount, until_ms)


async def now_ms(store: Store) -> int:
    """By the store's clock."""
    return (await admitted(store, ask())).at_ms


async def granted(store: Store, one: Limit, amount: int, for_ms: int = HOUR_MS) -> Grant:
    grant = a_grant(amount, await now_ms(store) + for_ms)
    await store.grant(one, grant)
    return grant


async def passing(store: Store, one: Limit, tries: int = 12) -> int:
    verdicts = [await store.admit(ask(one)) for _ in range(tries)]
    return sum(isinstance(verdict, Reservation) for verdict in verdicts)


@pytest.mark.parametrize("one", KINDS, ids=named)
async def test_a_limit_admits_what_it_has_and_what_is_granted_and_no_more(store: Store, one: Limit) -> None:
    await granted(store, one, 4)
    assert await passing(store, one) == 7


@pytest.mark.parametrize("one", KINDS, ids=named)
async def test_a_grant_counts_at_once_where_a_limit_is_spent(store: Store, one: Limit) -> None:
    assert await passing(store, one) == 3
    await granted(store, one, 2)
    assert await passing(store, one) == 2


@pytest.mark.parametrize("one", KINDS, ids=named)
async def test_grants_add_up_and_each_counts_once(store: Store, one: Limit) -> None:
    first = await granted(store, one, 1)
    await granted(store, one, 2)
    await store.grant(one, first)
    assert await passing(store, one) == 6


@pytest.mark.parametrize("one", KINDS, ids=named)
async def test_a_grant_that_is_withdrawn_counts_no_more(store: Store, one: Limit) -> None:
    first, second = await granted(store, one, 2), await granted(store, one, 1)
    await store.withdraw(one, first)
    await store.withdraw(one, first)
    assert await passing(store, one) == 4
    await store.withdraw(one, second)
    await refused(store, ask(one))


@pytest.mark.parametrize("one", KINDS, ids=named)
async def test_a_grant_ends_by_the_store_s_clock_without_a_call(keeper: Keeper, one: Limit) -> None:
    store = keeper.store
    # What is asked meanwhile takes its time on a busy machine; holds of `concurrent` must outlive it.
    for_ms = HOLD_TTL_MS * (2 if one.meter is Meter.CONCURRENT else 5) // 3
    await granted(store, one, 4, for_ms=for_ms)
    assert await passing(store, one) == 7
    [raised] = await store.limit_statuses([one])
    assert (raised.limit.amount, raised.limit.granted) == (7, 4)
    await keeper.pass_ms(for_ms)
    [after] = await store.limit_statuses([one])
    assert after.limit == one
    await refused(store, ask(one))


async def test_a_grant_whose_end_is_over_changes_nothing(store: Store) -> None:
    await store.grant(KINDS[0], a_grant(5, await now_ms(store) - 1))
    assert await passing(store, KINDS[0]) == 3


async def test_of_two_grants_each_ends_by_itself(keeper: Keeper) -> None:
    store, one = keeper.store, limit("requests", "total", 1)
    await granted(store, one, 2, for_ms=2 * HOLD_TTL_MS)
    await granted(store, one, 1, for_ms=HOUR_MS)
    await keeper.pass_ms(2 * HOLD_TTL_MS)
    assert await passing(store, one) == 2


async def test_a_quota_is_raised_in_each_of_its_windows(keeper: Keeper) -> None:
    store, one = keeper.store, limit("requests", "day", 1)
    await granted(store, one, 1, for_ms=2 * DAY_MS)
    assert await passing(store, one) == 2
    if isinstance(keeper, MemoryKeeper):
        for _ in range(2):
            await keeper.pass_ms(DAY_MS - HOUR_MS)
            assert await passing(store, one) == 2
        await keeper.pass_ms(DAY_MS)
        assert await passing(store, one) == 1


async def test_a_refusal_and_a_reservation_show_the_raised_amount(store: Store) -> None:
    for one in (limit("tokens", "hour", 30), limit("tokens", "day", 30)):
        await granted(store, one, 50)
        reservation = await admitted(store, ask(one))
        [seen] = reservation.limit_statuses
        assert (seen.limit, seen.held, seen.left) == (one.raised(50), 30, 50)
        assert reservation.limit_statuses.are_raised
        assert reservation.holds[0].limit == one
        refusal = await refused(store, ask(one, fixed=60))
        assert (refusal.limit_status.limit.amount, refusal.limit_status.limit.granted) == (80, 50)
        assert refusal.why is RefusalReason.HELD
        too_large = await refused(store, ask(one, fixed=90, most=0))
        assert too_large.why is RefusalReason.NEVER


async def test_limits_without_a_grant_stand_beside_one_that_has_one(store: Store) -> None:
    plain, raised = limit("requests", "hour", 9), limit("requests", "day", 1)
    others = [limit("requests", "hour", 9, subject=f"k{number}") for number in range(4)]
    await granted(store, raised, 1)
    reservation = await admitted(store, ask(plain, raised, *others))
    assert [seen.limit.granted for seen in reservation.limit_statuses] == [0, 1, 0, 0, 0, 0]
    assert [(seen.used, seen.left) for seen in reservation.limit_statuses][:2] == [(1, 8), (1, 1)]
    await admitted(store, ask(plain, raised, *others))
    assert (await refused(store, ask(plain, raised, *others))).limit_status.limit == raised.raised(1)


async def test_what_is_settled_and_given_back_is_counted_under_a_grant_as_without(store: Store) -> None:
    for per in ("hour", "total"):
        one = limit("tokens", per, 100)
        await granted(store, one, 900)
        reservation = await admitted(store, ask(one, fixed=10, likely=500, most=500))
        await store.settle(truth(reservation, 300))
        assert (await used_and_held(store, one))[0] in (299, 300)
        await store.renew([reservation.id])
        assert (await used_and_held(store, one))[1] == 0


async def test_a_request_larger_than_the_bucket_itself_is_held_in_full(store: Store) -> None:
    one = limit("tokens", "hour", 100)
    await granted(store, one, 900)
    reservation = await admitted(store, ask(one, fixed=10, likely=500, most=500))
    assert reservation.holds[0].amount == 510


async def test_a_shadow_limit_that_is_raised_would_refuse_later(store: Store) -> None:
    shadow = limit("requests", "hour", 1, mode=Mode.SHADOW)
    await granted(store, shadow, 1)
    verdicts = [await admitted(store, ask(shadow)) for _ in range(3)]
    assert [bool(each.would_refuse) for each in verdicts] == [False, False, True]


async def test_holds_last_through_a_renewal_and_the_grant_with_them(keeper: Keeper) -> None:
    store, one = keeper.store, limit("concurrent", None, 1)
    await granted(store, one, 1)
    reservations = [await admitted(store, ask(one)) for _ in range(2)]
    for _ in range(4):
        await keeper.pass_ms(200)
        await store.renew([each.id for each in reservations])
    assert await used_and_held(store, one) == (0, 2)
    await refused(store, ask(one))
    [seen] = await store.limit_statuses([one])
    assert seen.limit.granted == 1


async def test_a_grant_outlives_a_clock_that_is_set_back(keeper: Keeper) -> None:
    store, one = keeper.store, limit("requests", "hour", 2)
    await granted(store, one, 1)
    assert await passing(store, one) == 3
    keeper.set_clock(-HOUR_MS // 2)
    await refused(store, ask(one))
    [seen] = await store.limit_statuses([one])
    assert (seen.limit.granted, seen.used) == (1, 3)


# What only Redis can get wrong.


@pytest.fixture
async def in_redis(redis: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_options(redis.url), UTC)
    yield opened
    await opened.close()


@pytest.mark.parametrize("one", KINDS, ids=named)
async def test_a_counter_lives_as_long_as_its_grants_and_has_an_end(
    redis: RedisServer, in_redis: RedisStore, one: Limit
) -> None:
    grant = await granted(in_redis, one, 4, for_ms=3 * DAY_MS)
    await admitted(in_redis, ask(one))
    with contextlib.closing(redis.client()) as client:
        lives = {key: client.pttl(key) for key in client.scan_iter("*:c:*")}
    assert min(lives.values()) > 0
    assert max(lives.values()) > 3 * DAY_MS - 60_000
    await in_redis.withdraw(one, grant)
    with contextlib.closing(redis.client()) as client:
        assert [key for key in lives if client.strlen(key) > 88] == []


async def test_a_day_s_quota_gets_its_grant_in_each_window_until_the_end(
    redis: RedisServer, in_redis: RedisStore
) -> None:
    one = limit("requests", "day", 3)
    grant = a_grant(1, (await now_ms(in_redis)) // DAY_MS * DAY_MS + 10 * DAY_MS)
    await in_redis.grant(one, grant)
    with contextlib.closing(redis.client()) as client:
        windows = {int(key.rpartition(b":")[2]): client.get(key) for key in client.scan_iter("*:c:*")}
    first = min(windows)
    assert sorted(windows) == [first + DAY_MS * day for day in range(10)]
    for value in windows.values():
        assert grants_of(memoryview(value).cast("d")[16:].tolist()) == (grant,)


async def test_gateways_see_a_grant_without_a_word_and_a_restart_keeps_it(tmp_path: Path) -> None:
    one = limit("requests", "day", 1)
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        stores = [RedisStore(redis_options(server.url, name), UTC) for name in ("one", "two")]
        try:
            await granted(stores[0], one, 2)
            await admitted(stores[1], ask(one))
            await admitted(stores[0], ask(one))
            server.kill()
            server.start()
            await admitted_again(stores[1], one)
            await refused(stores[0], ask(one))
        finally:
            for store in stores:
                await store.close()


async def admitted_again(store: Store, one: Limit) -> None:
    """Once the store has found its server again."""
    async with asyncio.timeout(20):
        while True:
            try:
                await admitted(store, ask(one))
            except StoreUnavailable:
                await asyncio.sleep(POLL_S)
            else:
                return


async def test_an_admission_under_a_grant_whose_answer_is_lost_is_taken_back_whole(redis: RedisServer) -> None:
    """It holds more than the limit has by itself, and would for a minute."""
    one = limit("tokens", "hour", 100)
    store, hasty = [RedisStore(RedisOptions(redis.url, name, timeout_s=0.5), UTC) for name in ("store", "hasty")]
    await granted(store, one, 900)
    await hasty.ping()
    with contextlib.closing(redis.client()) as client:
        client.config_resetstat()
    # As in test_redis.py: the call is in time for the server, once it goes on.
    set_clock(clock_of(hasty), hasty.now_ms() + 450)
    redis.freeze()
    with pytest.raises(StoreUnavailable):
        await hasty.admit(ask(one, fixed=10, likely=500, most=500))
    redis.thaw()
    with contextlib.closing(redis.client()) as client:
        async with asyncio.timeout(10):
            while "cmdstat_hdel" not in client.info("commandstats"):
                await asyncio.sleep(POLL_S)
    assert await used_and_held(store, one) == (0, 0)
    for each in (store, hasty):
        await each.close()


rates = st.builds(
    lambda per, amount: limit("tokens", per, amount),
    st.sampled_from(["second", "minute", "hour"]),
    st.integers(1, 10**6),
)
raises = st.lists(st.tuples(st.integers(1, 10**6), st.integers(-5_000, 100_000)), min_size=1, max_size=4)
BEGIN_MS = 1_793_880_000_000
PROBE = """
now = tonumber(ARGV[2])
local current = counter_functions()
local step_ms, first, second = 10000, tonumber(ARGV[3]), tonumber(ARGV[4])
local counter = current(KEYS[1], ARGV[1], RATE, first, second, floor(now / step_ms))
return { counter[1], counter[2], counter[3], counter.raised or 0, counter.grants and #counter.grants or 0 }
"""


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=rates, spans=raises, debt=st.integers(0, 10**9), elapsed=st.integers(0, 120_000))
def test_redis_and_the_core_let_a_raised_rate_flow_back_alike(
    shared_redis: RedisServer, one: Limit, spans: list[tuple[int, int]], debt: int, elapsed: int
) -> None:
    grants: Grants = ()
    for amount, after_ms in spans:
        grants = with_grant(grants, a_grant(amount, BEGIN_MS + max(1, after_ms)))
    flow, scale = pace(one)
    period = one.per.rate_ms if one.per else 0
    numbers: list[float] = [debt, scale, BEGIN_MS, 0, BEGIN_MS // 10_000, *[0] * 11]
    for grant in grants:
        written = (int(grant.id, 16), grant.amount, grant.until_ms, period or 0)
        numbers += [number * HISTORY_UNIT for number in written]
    counter = Path("gateway/store/in_redis/lua/counter.lua").read_text(encoding="utf-8")
    with contextlib.closing(shared_redis.client()) as client:
        value = pack(f"<{len(numbers)}d", *numbers)
        reply = client.eval(counter + PROBE, 1, "unused", value, BEGIN_MS + elapsed, flow, scale)
    bucket = restored_rate(one, grants, RateParts(debt, scale, BEGIN_MS), BEGIN_MS + elapsed)
    lasting = [grant for grant in grants if grant.until_ms > BEGIN_MS + elapsed]
    assert reply == [bucket.debt, bucket.scale, bucket.stamp_ms, bucket.granted, len(lasting)]


WRITING = """
now = tonumber(ARGV[1])
local current, write = counter_functions()
local counter, holding = current(KEYS[1], call('GET', KEYS[1]), QUOTA, 0, 2 ^ 52, floor(now / 10000))
write(KEYS[1], counter, holding, QUOTA, 0, 2 ^ 52, 10000)
"""


@pytest.mark.parametrize("grants", [0, 1])
def test_a_counter_is_as_long_as_what_it_has(redis: RedisServer, grants: int) -> None:
    """Written in place where it keeps its size, and else not: no part of a grant that has ended stays behind."""
    used = [70, 1, BEGIN_MS, 2**52, BEGIN_MS // 10_000, 5, *[0] * 5]
    history = [80 * HISTORY_UNIT, *[BEGIN_MS * HISTORY_UNIT] * 2, HISTORY_UNIT, HISTORY_UNIT]
    ended = [number * HISTORY_UNIT for number in (1, 30, BEGIN_MS + 1, 0)] * grants
    counter = Path("gateway/store/in_redis/lua/counter.lua").read_text(encoding="utf-8")
    with contextlib.closing(redis.client()) as client:
        client.set("counter", pack(f"<{16 + 4 * grants}d", *used, *history, *ended), px=HOUR_MS)
        client.config_resetstat()
        client.eval(counter + WRITING, 1, "counter", BEGIN_MS + 2)
        assert client.get("counter") == pack("<16d", *used[:2], BEGIN_MS + 2, *used[3:], *history)
        assert 0 < client.pttl("counter") <= HOUR_MS
        assert ("cmdstat_setrange" in client.info("commandstats")) == (grants == 0)


def _storm(url: str, one: Limit, process: str, together: Barrier, results: multiprocessing.Queue[int]) -> None:
    async def rush() -> int:
        store = RedisStore(RedisOptions(url, process, timeout_s=20.0), UTC)
        try:
            await store.ping()
            await asyncio.to_thread(together.wait)
            admissions = [store.admit(ask(one, name=f"{process}-{number}")) for number in range(100)]
            verdicts = await asyncio.gather(*admissions)
        finally:
            await store.close()
        return sum(isinstance(verdict, Reservation) for verdict in verdicts)

    results.put(uvloop.run(rush()))


@pytest.mark.slow
@pytest.mark.parametrize("one", [limit("requests", "day", 50), limit("concurrent", None, 50)], ids=named)
async def test_four_processes_are_admitted_exactly_as_far_as_limit_and_grants_go(
    redis: RedisServer, one: Limit
) -> None:
    """Grants come while the processes race: all are admitted that fit at the end, and no more."""
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = spawn.Queue()
    together = spawn.Barrier(5)
    names = [f"p{number}" for number in range(4)]
    processes = [spawn.Process(target=_storm, args=(redis.url, one, name, together, results)) for name in names]
    for process in processes:
        process.start()
    store = RedisStore(RedisOptions(redis.url, "operator", timeout_s=20.0), UTC)
    try:
        kept = [await granted(store, one, 7)]
        await asyncio.to_thread(together.wait)
        kept += [await granted(store, one, 3) for _ in range(10)]
        counts = await asyncio.to_thread(lambda: [results.get(timeout=60) for _ in processes])
        rest = await passing(store, one, tries=100)
    finally:
        await store.close()
    for process in processes:
        process.join(timeout=60)
    assert sum(counts) + rest == 50 + sum(grant.amount for grant in kept)
