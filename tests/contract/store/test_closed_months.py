"""Months that are closed: what is settled later goes to the first open day, with a mark."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import date, timedelta
from typing import Any

import pytest

from gateway.core.end_users import OTHER_USERS
from gateway.core.reservation import Holds, LedgerEntry, Settlement
from gateway.store.contract import Store, UsageQuery
from gateway.store.in_redis import RedisStore
from tests.contract.store.asking import admitted, ask, bill, truth
from tests.contract.store.keepers import UTC, Keeper, RedisKeeper, redis_options
from tests.redis_servers import RedisServer


class Months:
    """Three months by the store's clock. The one before the last can be closed on every day of a month."""

    def __init__(self, today: date) -> None:
        self.today = today
        self.this = self.today.replace(day=1)
        self.last = (self.this - timedelta(days=1)).replace(day=1)
        self.closed = (self.last - timedelta(days=1)).replace(day=1)

    @property
    def closed_name(self) -> str:
        return f"{self.closed:%Y-%m}"


@pytest.fixture
def months(keeper: Keeper) -> Months:
    return Months(keeper.today())


@pytest.fixture
async def redis_months(redis: RedisServer) -> Months:
    return Months(RedisKeeper(redis.url, [redis]).today())


async def settle(store: Store, entry: LedgerEntry) -> None:
    await store.settle(truth(await admitted(store, ask()), 0, entry))


def bill_of(day: date, **other: object) -> LedgerEntry:
    return bill(day=day.isoformat(), **other)


async def rows(store: Store, *by: str, **filters: Any) -> dict[str, int]:
    found = await store.usage(UsageQuery(by=by, **filters))
    return {"/".join(getattr(row, name) for name in by): row.cost for row in found}


async def test_nothing_is_closed_at_first(store: Store) -> None:
    assert await store.closed_until() == ""


async def test_a_closed_month_changes_no_more_and_what_is_late_goes_to_the_next_with_a_mark(
    store: Store, months: Months
) -> None:
    await settle(store, bill_of(months.closed, cost=1, user="ann"))
    await settle(store, bill_of(months.last, cost=2))
    assert await store.close_ledger(months.last.isoformat())
    assert await store.closed_until() == months.last.isoformat()
    before = await store.usage(UsageQuery(by=("day", "user", "key", "model"), until=months.last.isoformat()))

    await settle(store, bill_of(months.closed, cost=4, user="ann"))
    await settle(store, bill_of(months.last - timedelta(days=1), cost=8, user="bob", key="new"))
    await settle(store, bill_of(months.last, cost=16))
    await settle(store, bill_of(months.today, cost=32))

    assert await store.usage(UsageQuery(by=("day", "user", "key", "model"), until=months.last.isoformat())) == before
    late = months.closed_name
    assert await rows(store, "day", "late", "user", since=months.last.isoformat()) == {
        f"{months.last}//": 2 + 16,
        f"{months.last}/{late}/ann": 4,
        f"{months.last}/{late}/bob": 8,
    } | {f"{months.today}//": 32}
    assert await rows(store, "late") == {"": 1 + 2 + 16 + 32, late: 12}
    assert await rows(store, "late", "key", "model", "upstream", "cost_center") == {
        "/k1/m/up1/4711": 51,
        f"{late}/k1/m/up1/4711": 4,
        f"{late}/new/m/up1/4711": 8,
    }


async def test_what_is_late_is_settled_once(store: Store, months: Months) -> None:
    assert await store.close_ledger(months.last.isoformat())
    settlement = truth(await admitted(store, ask()), 0, bill_of(months.closed, user="ann"))
    for _ in range(3):
        await store.settle(settlement)
    assert await rows(store, "month", "late", "user") == {f"{months.last:%Y-%m}/{months.closed_name}/ann": 7}


async def test_a_month_is_not_closed_before_the_second_day_of_the_next(store: Store, months: Months) -> None:
    tomorrow, yesterday = months.today + timedelta(days=1), months.today - timedelta(days=1)
    for day in (months.today, tomorrow, date(9998, 1, 1)):
        assert not await store.close_ledger(day.isoformat())
    assert await store.closed_until() == ""
    await settle(store, bill_of(months.closed))
    assert await rows(store, "late") == {"": 7}
    assert await store.close_ledger(yesterday.isoformat())


async def test_what_is_closed_stays_closed_when_an_earlier_day_is_closed_again(store: Store, months: Months) -> None:
    assert await store.close_ledger(months.last.isoformat())
    assert await store.close_ledger(months.closed.isoformat())
    assert await store.close_ledger(months.last.isoformat())
    assert await store.closed_until() == months.last.isoformat()
    await settle(store, bill_of(months.closed))
    assert list(await rows(store, "day", "late")) == [f"{months.last}/{months.closed_name}"]


async def test_a_team_that_comes_later_finds_the_month_closed(store: Store, months: Months) -> None:
    await settle(store, bill_of(months.closed, team="red"))
    assert await store.close_ledger(months.last.isoformat())
    await settle(store, bill_of(months.closed, team="new"))
    assert await rows(store, "team", "month", "late") == {
        f"red/{months.closed:%Y-%m}/": 7,
        f"new/{months.last:%Y-%m}/{months.closed_name}": 7,
    }


async def test_users_of_late_requests_are_bounded_as_all_are(store: Store, months: Months) -> None:
    assert await store.close_ledger(months.last.isoformat())
    for number in range(6):
        await settle(store, bill_of(months.closed, user=f"u{number}", cost=number))
    told = await rows(store, "late", "user")
    assert sum(told.values()) == 15
    assert f"{months.closed_name}/{OTHER_USERS}" in told


async def test_sums_are_whole_while_a_month_is_closed_and_its_last_requests_are_settled(
    redis: RedisServer, redis_months: Months
) -> None:
    """What the final report had stays as it was, whatever is settled by whichever gateway in the same moment."""
    gateways = [RedisStore(redis_options(redis.url, f"p{number}"), UTC) for number in range(3)]
    closer = RedisStore(redis_options(redis.url, "closer"), UTC)
    in_closed_month = UsageQuery(by=("team", "key"), until=redis_months.last.isoformat())

    async def settle_many(number: int) -> None:
        for turn in range(60):
            entry = bill_of(redis_months.closed, team=f"t{turn % 7}", key=f"k{turn % 3}", user=f"u{turn % 5}", cost=1)
            await gateways[number].settle(Settlement(f"s{number}-{turn}", 1_793_880_000_000, Holds(), (), entry))

    settling = [asyncio.create_task(settle_many(number)) for number in range(3)]
    while not await closer.usage(in_closed_month):
        await asyncio.sleep(0)
    assert await closer.close_ledger(redis_months.last.isoformat())
    final = await closer.usage(in_closed_month)
    await asyncio.gather(*settling)
    assert await closer.usage(in_closed_month) == final
    assert sum(row.requests for row in await closer.usage(UsageQuery())) == 180
    for one in (*gateways, closer):
        await one.close()


async def test_a_journal_that_is_replayed_after_the_closing_is_late(redis: RedisServer, redis_months: Months) -> None:
    store = RedisStore(redis_options(redis.url), UTC)
    assert await store.close_ledger(redis_months.last.isoformat())
    for place in (1, 1, 2):
        await store.replay(
            "dead", place, Settlement(f"s{place}", 1_793_880_000_000, Holds(), (), bill_of(redis_months.closed))
        )
    assert await rows(store, "month", "late") == {f"{redis_months.last:%Y-%m}/{redis_months.closed_name}": 14}
    await store.close()


async def test_every_key_of_a_closing_ends_some_day(redis: RedisServer, redis_months: Months) -> None:
    store = RedisStore(redis_options(redis.url), UTC)
    assert await store.close_ledger(redis_months.last.isoformat())
    await store.settle(Settlement("s", 1_793_880_000_000, Holds(), (), bill_of(redis_months.closed)))
    with contextlib.closing(redis.client()) as client:
        keys = client.keys("gw:*")
        assert b"gw:2:{o}:closed" in keys
        assert [key for key in keys if client.pttl(key) <= 0] == []
    await store.close()
