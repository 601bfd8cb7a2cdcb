"""What is charged in the end, once, whatever happens in between."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.core.reservation import Hold, Holds, Settlement
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import HOLD_STEPS, Store, UsageQuery
from tests.contract.store.asking import admitted, ask, bill, limit, refused, truth, used_and_held
from tests.contract.store.keepers import HOLD_TTL_MS, STEP_MS, Keeper

REQUESTS = limit("requests", "day", 100)
RATE = limit("tokens", "hour", 1000)
QUOTA = limit("tokens", "month", 1000)
LANES = limit("concurrent", None, 2)
ATTEMPTS = 20


@pytest.mark.parametrize("used", [0, 7, 30, 400])
async def test_what_was_used_replaces_what_was_held(store: Store, used: int) -> None:
    reservation = await admitted(store, ask(REQUESTS, RATE, QUOTA, LANES))
    await store.settle(truth(reservation, used))
    limit_statuses = await store.limit_statuses([REQUESTS, RATE, QUOTA, LANES])
    assert [(one.used, one.held) for one in limit_statuses] == [(1, 0), (used, 0), (used, 0), (0, 0)]


async def test_settling_again_changes_nothing(store: Store) -> None:
    settlement = truth(await admitted(store, ask(REQUESTS, RATE, QUOTA, LANES)), 7, bill())
    await asyncio.gather(*[store.settle(settlement) for _ in range(5)])
    await store.settle(settlement)
    limit_statuses = await store.limit_statuses([REQUESTS, RATE, QUOTA, LANES])
    assert [(one.used, one.held) for one in limit_statuses] == [(1, 0), (7, 0), (7, 0), (0, 0)]
    assert (await store.usage(UsageQuery()))[0].requests == 1


async def test_what_is_admitted_is_open_until_it_is_settled(store: Store) -> None:
    first, second = [await admitted(store, ask(QUOTA, LANES, name=name)) for name in ("a", "b")]
    await refused(store, ask(LANES, name="c"))
    assert list(store.open_ids) == ["a", "b"]
    await store.settle(truth(first, 5))
    assert (list(store.open_ids), "a" in store.open_ids, "b" in store.open_ids) == (["b"], False, True)
    await store.settle(truth(second, 5))
    assert not store.open_ids


async def test_settling_one_request_leaves_the_holds_of_another(store: Store) -> None:
    first, second = await admitted(store, ask(QUOTA, LANES)), await admitted(store, ask(QUOTA, LANES))
    await store.settle(truth(first, 5))
    assert await used_and_held(store, QUOTA) == (5, 30)
    assert await used_and_held(store, LANES) == (0, 1)
    await store.settle(truth(second, 6))
    assert await used_and_held(store, QUOTA) == (11, 0)


async def test_a_lane_is_free_again_once_settled(store: Store) -> None:
    first, _ = await admitted(store, ask(LANES)), await admitted(store, ask(LANES))
    await refused(store, ask(LANES))
    await store.settle(truth(first, 0))
    await admitted(store, ask(LANES))


async def test_more_used_than_a_bucket_holds_is_paid_off_in_time(store: Store) -> None:
    bucket = limit("tokens", "hour", 100)
    await store.settle(truth(await admitted(store, ask(bucket)), 300))
    refusal = await refused(store, ask(bucket))
    assert (refusal.limit_status.used, refusal.limit_status.left) == (300, 0)
    assert 8_200_000 < refusal.retry_after_ms <= 8_280_000


async def test_a_request_stays_counted_though_it_came_to_nothing(store: Store) -> None:
    reservation = await admitted(store, ask(REQUESTS, QUOTA))
    await store.settle(truth(reservation, 0))
    assert await used_and_held(store, REQUESTS) == (1, 0)
    assert await store.usage(UsageQuery()) == []


async def test_a_request_that_was_let_through_unasked_is_charged_all_the_same(store: Store) -> None:
    reservation = await admitted(store, ask(REQUESTS, QUOTA))
    await store.settle(truth(reservation, 0))
    unasked = msgspec.structs.replace(reservation.holds, amounts=[0, 0])
    await store.settle(Settlement("unasked", reservation.at_ms, unasked, [1, 9], None))
    assert await used_and_held(store, REQUESTS) == (2, 0)
    assert await used_and_held(store, QUOTA) == (9, 0)


async def test_a_rate_of_requests_counts_one_that_was_let_through_unasked(store: Store) -> None:
    """Admission has used nothing of it at once, so settlement does."""
    rate = limit("requests", "hour", 100)
    reservation = await admitted(store, ask(rate))
    await store.settle(truth(reservation, 0))
    unasked = msgspec.structs.replace(reservation.holds, amounts=[0])
    await store.settle(Settlement("unasked", reservation.at_ms, unasked, [1], None))
    assert await used_and_held(store, rate) == (2, 0)


async def test_a_hold_that_nobody_renews_returns_by_itself(keeper: Keeper) -> None:
    store = keeper.store
    await admitted(store, ask(RATE, QUOTA, LANES))
    await keeper.pass_ms(HOLD_TTL_MS)
    limit_statuses = await store.limit_statuses([RATE, QUOTA, LANES])
    assert [(one.used, one.held) for one in limit_statuses] == [(0, 0)] * 3


async def test_a_hold_that_is_renewed_stays(keeper: Keeper) -> None:
    store = keeper.store
    reservation = await admitted(store, ask(RATE, QUOTA, LANES))
    left = await admitted(store, ask(RATE, QUOTA, LANES))
    for _ in range(3):
        await keeper.pass_ms(HOLD_TTL_MS // 2)
        await store.renew([reservation.id, "unknown"])
    limit_statuses = await store.limit_statuses([RATE, QUOTA, LANES])
    assert [(one.used, one.held) for one in limit_statuses] == [(0, 30), (0, 30), (0, 1)]
    await store.settle(truth(reservation, 7))
    await store.settle(truth(left, 8))
    limit_statuses = await store.limit_statuses([RATE, QUOTA, LANES])
    assert [(one.used, one.held) for one in limit_statuses] == [(15, 0), (15, 0), (0, 0)]


async def test_a_hold_that_has_returned_is_not_given_back_twice(keeper: Keeper) -> None:
    store = keeper.store
    late = await admitted(store, ask(QUOTA, LANES))
    await keeper.pass_ms(HOLD_TTL_MS)
    await admitted(store, ask(QUOTA, LANES))
    await store.settle(truth(late, 12))
    assert await used_and_held(store, QUOTA) == (12, 30)
    assert await used_and_held(store, LANES) == (0, 1)


async def test_a_hold_that_has_returned_takes_none_from_one_that_is_about_to(keeper: Keeper) -> None:
    store = keeper.store
    # Redis' time passes by itself: on a busy machine the other hold may have ended, too, when it is looked at.
    settled = 0
    for _ in range(ATTEMPTS):
        late = await admitted(store, ask(QUOTA, LANES))
        await keeper.pass_ms(HOLD_TTL_MS // HOLD_STEPS)
        await admitted(store, ask(QUOTA, LANES))
        while (await used_and_held(store, QUOTA))[1] == 60:
            await keeper.pass_ms(HOLD_TTL_MS // HOLD_STEPS // 5)
        await store.settle(truth(late, 12))
        settled += 12
        limit_statuses = await store.limit_statuses([QUOTA, LANES])
        if limit_statuses[0].held:
            break
        await keeper.pass_ms(HOLD_TTL_MS // HOLD_STEPS)
    assert [(one.used, one.held) for one in limit_statuses] == [(settled, 30), (0, 1)]


async def test_holds_outlive_a_clock_that_is_set_back_and_end_all_the_same(keeper: Keeper) -> None:
    store, total = keeper.store, limit("tokens", "total", 1000)
    first, second, left = [await admitted(store, ask(total, limit("concurrent", None, 4))) for _ in range(3)]
    lanes = first.holds[1].limit
    keeper.set_clock(-3_600_000)
    await store.settle(truth(first, 7))
    assert await used_and_held(store, lanes) == (0, 2)
    assert await used_and_held(store, total) == (7, 60)
    new = await admitted(store, ask(total, lanes))
    await keeper.pass_ms(STEP_MS)
    await store.renew([second.id, new.id])
    assert await used_and_held(store, lanes) == (0, 3)
    await store.settle(truth(second, 8))
    assert await used_and_held(store, lanes) == (0, 2)
    for _ in range(3):
        await keeper.pass_ms(HOLD_TTL_MS // 3)
        await store.renew([new.id])
    assert await used_and_held(store, lanes) == (0, 1)
    await store.settle(truth(left, 9))
    await store.settle(truth(new, 10))
    assert await used_and_held(store, lanes) == (0, 0)
    assert await used_and_held(store, total) == (34, 0)


async def test_a_rate_refills_after_the_clock_was_set_back(keeper: Keeper) -> None:
    store, rate = keeper.store, limit("requests", "second", 20, burst=2)
    for _ in range(2):
        await admitted(store, ask(rate))
    keeper.set_clock(-3_600_000)
    refusal = await refused(store, ask(rate))
    assert 0 < refusal.retry_after_ms <= 50
    await keeper.pass_ms(refusal.retry_after_ms)
    await admitted(store, ask(rate))
    assert (await store.limit_statuses([rate]))[0].used <= 2


async def test_renewing_what_is_settled_brings_nothing_back(store: Store) -> None:
    reservation = await admitted(store, ask(QUOTA, LANES))
    await store.settle(truth(reservation, 12))
    await store.renew([reservation.id])
    assert await used_and_held(store, QUOTA) == (12, 0)
    assert await used_and_held(store, LANES) == (0, 0)


async def test_what_began_in_a_past_window_does_not_burden_the_present_one(store: Store) -> None:
    reservation = await admitted(store, ask(QUOTA))
    holds = Holds.of([Hold(QUOTA, 30, reservation.holds[0].window_ms - 86_400_000)])
    await store.settle(Settlement("old", reservation.at_ms, holds, [12], None))
    assert await used_and_held(store, QUOTA) == (0, 30)


async def test_the_ledger_sums_what_was_settled(store: Store) -> None:
    guess = Usage(input=3, output=4, source=UsageSource.ESTIMATED)
    for entry in (bill(), bill(), bill(usage=guess, cost=1), bill(key="k2"), bill(day="2026-11-06", model="n")):
        await store.settle(truth(await admitted(store, ask(QUOTA)), 15, entry))
    total = (await store.usage(UsageQuery()))[0]
    assert (total.requests, total.input, total.cached_input, total.output, total.reasoning) == (5, 43, 16, 24, 8)
    assert (total.estimated, total.cost, total.day, total.team) == (7, 29, "", "")


async def test_the_ledger_is_told_by_group_and_in_order(store: Store) -> None:
    for entry in (bill(key="k2"), bill(), bill(), bill(day="2026-11-04"), bill(team="blue", key="k3", model="n")):
        await store.settle(truth(await admitted(store, ask(QUOTA)), 15, entry))
    by_key = await store.usage(UsageQuery(by=("team", "key")))
    assert [(row.team, row.key, row.model, row.requests) for row in by_key] == [
        ("blue", "k3", "", 1),
        ("red", "k1", "", 3),
        ("red", "k2", "", 1),
    ]
    by_day = await store.usage(UsageQuery(by=("day",)))
    assert [(row.day, row.requests) for row in by_day] == [("2026-11-04", 1), ("2026-11-05", 4)]


@pytest.mark.parametrize(
    ("query", "requests"),
    [
        (UsageQuery(team="red"), 3),
        (UsageQuery(key="k3"), 1),
        (UsageQuery(model="n", team="red"), 0),
        (UsageQuery(since="2026-11-05"), 3),
        (UsageQuery(until="2026-11-05"), 1),
        (UsageQuery(since="2026-11-04", until="2026-11-05"), 1),
    ],
)
async def test_the_ledger_is_filtered(store: Store, query: UsageQuery, requests: int) -> None:
    for entry in (bill(key="k2"), bill(), bill(day="2026-11-04"), bill(team="blue", key="k3", model="n")):
        await store.settle(truth(await admitted(store, ask(QUOTA)), 15, entry))
    assert sum(row.requests for row in await store.usage(query)) == requests


async def test_a_store_that_is_there_answers(store: Store) -> None:
    await store.ping()
