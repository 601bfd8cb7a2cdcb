from __future__ import annotations

from random import Random
from zoneinfo import ZoneInfo

import msgspec
import pytest

from gateway.core.limits import Scope
from gateway.core.reservation import Reservation
from gateway.store.contract import HOLD_TTL_MS, UsageQuery
from gateway.store.in_memory import InMemoryStore
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import FalseClock

UTC = ZoneInfo("UTC")
DAY_MS = 86_400_000


async def test_counters_that_are_whole_again_are_forgotten() -> None:
    clock = FalseClock()
    store = InMemoryStore(clock, UTC)
    each = limit("requests", "minute", 60, scope=Scope.USER)
    for number in range(5_000):
        await admitted(store, ask(each.for_user(f"user-{number}")))
        clock.at_ms += 100
    assert len(store._counters) < 100


async def test_counters_in_use_are_not_forgotten_for_new_ones() -> None:
    store = InMemoryStore(FalseClock(), UTC)
    each = limit("requests", "minute", 1, scope=Scope.USER)
    for number in range(100):
        await admitted(store, ask(each.for_user(f"user-{number}")))
    assert [await used_and_held(store, each.for_user(f"user-{number}")) for number in range(100)] == [(1, 0)] * 100


async def test_a_counter_that_is_charged_beside_a_new_one_is_kept() -> None:
    store = InMemoryStore(FalseClock(), UTC)
    old = limit("tokens", "minute", 60)
    await store.settle(truth(await admitted(store, ask(old)), 0))
    reservation = await admitted(store, ask(old, limit("tokens", "hour", 60), limit("tokens", "day", 60)))
    assert await used_and_held(store, old) == (0, 30)
    await store.settle(truth(reservation, 9))
    assert await used_and_held(store, old) == (9, 0)


async def test_a_counter_that_was_forgotten_is_charged_by_no_request() -> None:
    clock = FalseClock()
    store = InMemoryStore(clock, UTC)
    known, new = limit("tokens", "minute", 60), limit("tokens", "hour", 60)
    running = await admitted(store, ask(known, fixed=0, likely=0, most=0, least=0))
    clock.at_ms += 120_000
    await admitted(store, ask(new))
    await admitted(store, ask(new))
    assert known.identity not in store._counters
    await store.settle(truth(running, 9))
    assert await used_and_held(store, known) == (9, 0)
    await store.settle(truth(await admitted(store, ask(known)), 5))
    assert await used_and_held(store, known) == (14, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_requests_with_the_same_tuple_of_limits_are_charged_as_those_with_another(seed: int) -> None:
    clock, dice = FalseClock(), Random(seed)
    shared, other = InMemoryStore(clock, UTC), InMemoryStore(clock, UTC)
    windows = [("requests", "minute"), ("tokens", "minute"), ("tokens", "day"), ("concurrent", None), ("usd", "month")]
    limits = tuple([limit(meter, per, dice.choice([20, 300, 5_000])) for meter, per in windows])
    running: list[tuple[Reservation, Reservation]] = []
    for _ in range(60):
        if running and dice.random() < 0.5:
            used = dice.choice([0, 10, 60])
            for store, reservation in zip((shared, other), running.pop(dice.randrange(len(running))), strict=True):
                await store.settle(truth(reservation, used))
        else:
            asked = ask(*limits, fixed=dice.choice([0, 10, 40]), most=dice.choice([20, 100]))
            one = await shared.admit(msgspec.structs.replace(asked, limits=limits))
            another = await other.admit(asked)
            assert one == another
            if isinstance(one, Reservation) and isinstance(another, Reservation):
                running.append((one, another))
        if dice.random() < 0.1:
            await other.admit(ask(limit("tokens", "hour", 60)))
        clock.at_ms += dice.choice([0, 100, 3_000, 70_000])
        assert await shared.limit_statuses(limits) == await other.limit_statuses(limits)
    assert shared._known.keys() <= {id(limits)}


async def test_looking_at_limits_keeps_nothing() -> None:
    store = InMemoryStore(FalseClock(), UTC)
    await store.limit_statuses([limit("tokens", "minute", 60, subject=str(number)) for number in range(100)])
    assert store._counters == {}


async def test_the_memory_for_settled_requests_is_bounded() -> None:
    store = InMemoryStore(FalseClock(), UTC)
    for _ in range(70_000):
        await store.settle(truth(await admitted(store, ask()), 0))
    assert len(store._settled) + len(store._settled_before) <= 65_536
    assert not store._held


async def test_a_quota_begins_anew_with_its_window() -> None:
    clock = FalseClock()
    store = InMemoryStore(clock, ZoneInfo("Asia/Kathmandu"))
    quota = limit("tokens", "day", 100)
    straddling, settled = await admitted(store, ask(quota)), await admitted(store, ask(quota))
    await store.settle(truth(settled, 60))
    # Noon in UTC is 17:45 in Kathmandu.
    clock.at_ms += 6 * 3_600_000 + 15 * 60_000 - 1
    assert await used_and_held(store, quota) == (60, 0)
    clock.at_ms += 1
    assert await used_and_held(store, quota) == (0, 0)
    await store.settle(truth(straddling, 25))
    assert await used_and_held(store, quota) == (0, 0)


async def test_a_hold_lives_for_five_to_six_sixths_of_its_time() -> None:
    clock = FalseClock()
    store = InMemoryStore(clock, UTC)
    clock.at_ms += 3_000
    quota = limit("tokens", "week", 100)
    await admitted(store, ask(quota))
    clock.at_ms += HOLD_TTL_MS * 5 // 6
    assert await used_and_held(store, quota) == (0, 30)
    clock.at_ms += HOLD_TTL_MS // 6
    assert await used_and_held(store, quota) == (0, 0)


async def test_the_ledger_forgets_a_day_after_400_days() -> None:
    clock = FalseClock()
    store = InMemoryStore(clock, UTC)
    await store.settle(truth(await admitted(store, ask()), 0, bill(day="2026-11-05")))
    clock.at_ms += 400 * DAY_MS
    await store.settle(truth(await admitted(store, ask()), 0, bill(day="2027-12-10")))
    assert [row.day for row in await store.usage(UsageQuery(by=("day",)))] == ["2026-11-05", "2027-12-10"]
    clock.at_ms += DAY_MS
    await store.settle(truth(await admitted(store, ask()), 0, bill(day="2027-12-11")))
    assert [row.day for row in await store.usage(UsageQuery(by=("day",)))] == ["2027-12-10", "2027-12-11"]
