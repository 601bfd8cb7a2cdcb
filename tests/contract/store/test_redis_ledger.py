"""The two schemas of the ledger on one Redis: an older gateway and a new one at one time, an upgrade, a rollback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count
from struct import pack, unpack

import pytest

from gateway.core.reservation import Holds, LedgerEntry, Settlement
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import UsageQuery, UsageRow
from gateway.store.in_redis import RedisStore
from tests.contract.store.asking import bill
from tests.contract.store.keepers import UTC, redis_options
from tests.contract.store.older_gateway import DAY_MS, OlderGateway
from tests.redis_servers import RedisServer

AT_MS = 1_793_880_000_000
LEDGER = "gw:1:{t/red}:l:2026-11-05"

_numbers = count()


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_options(redis.url), UTC)
    yield opened
    await opened.close()


@pytest.fixture
def older(redis: RedisServer) -> OlderGateway:
    return OlderGateway(redis, "older")


def settlement(entry: LedgerEntry) -> Settlement:
    return Settlement(f"s{next(_numbers)}", AT_MS, Holds(), (), entry)


def first_figures(row: UsageRow) -> tuple[float, ...]:
    return (row.requests, row.input, row.cached_input, row.output, row.reasoning, row.estimated, row.cost)


async def as_an_older_one_sees_it(store: RedisStore) -> dict[str, tuple[float, ...]]:
    rows = await store.usage(UsageQuery(by=("team", "day", "key", "model")))
    return {f"{row.team}|{row.day}|{row.key}|{row.model}": first_figures(row) for row in rows}


async def test_an_upgrade_and_a_rollback_lose_nothing(store: RedisStore, older: OlderGateway) -> None:
    entries = [
        bill(cost=1),
        bill(cost=2, model="a|b"),
        bill(cost=4, key="k2", day="2026-11-04"),
        bill(cost=8, team="t"),
    ]
    for turn in range(3):
        for entry in entries:
            older.settle(settlement(entry))
        assert await as_an_older_one_sees_it(store) == older.usage()
        for entry in entries:
            await store.settle(settlement(entry))
            await store.settle(settlement(with_user(entry)))
        assert await as_an_older_one_sees_it(store) == older.usage()
        assert sum(figures[0] for figures in older.usage().values()) == 12 * (turn + 1)


def with_user(entry: LedgerEntry) -> LedgerEntry:
    usage = Usage(input=20, output=5, cache_write=9, images=2)
    return bill(cost=16, team=entry.team, key=entry.key, model=entry.model, day=entry.day, user="ann", usage=usage)


async def test_what_an_older_gateway_settled_has_no_upstream_and_no_user(
    store: RedisStore, older: OlderGateway
) -> None:
    for entry in (bill(cost=1), bill(cost=2, user="ann"), bill(cost=4, upstream="up2", user="bob")):
        older.settle(settlement(entry))
        await store.settle(settlement(entry))

    async def costs(*by: str) -> dict[tuple[str, ...], int]:
        rows = await store.usage(UsageQuery(by=by))
        return {tuple(getattr(row, name) for name in by): row.cost for row in rows}

    assert await costs("upstream", "cost_center") == {("", ""): 7, ("up1", "4711"): 3, ("up2", "4711"): 4}
    assert await costs("user") == {("",): 8, ("ann",): 2, ("bob",): 4}
    assert await costs("team") == {("red",): 14}


async def test_a_request_is_billed_once_whichever_gateway_settles_it_again(
    redis: RedisServer, store: RedisStore
) -> None:
    """As when the journal of a process is replayed by another version."""
    older = OlderGateway(redis, "one")
    first, second = settlement(bill(cost=1)), settlement(bill(cost=2))
    older.settle(first)
    await store.settle(second)
    for one in (first, second):
        older.settle(one)
        await store.settle(one)
    assert [row.cost for row in await store.usage(UsageQuery())] == [3]
    assert [figures[-1] for figures in older.usage().values()] == [3]


async def test_a_row_of_fewer_columns_and_one_of_all_add_up(redis: RedisServer, store: RedisStore) -> None:
    """As when a version without the last column serves beside this one, or has served before."""
    details, day = b'["k1","m","up1","4711"]', "gw:2:{t/red}:l:2026-11-05"
    usage = Usage(audio_ms=2_000, estimated_ms=2_000, source=UsageSource.ESTIMATED)
    await store.settle(settlement(bill(usage=usage)))
    with contextlib.closing(redis.client()) as client:
        client.hset(day, details, pack("<17d", *unpack("<18d", client.hget(day, details))[:17]))
        await store.settle(settlement(bill(usage=usage)))
        await store.settle(settlement(bill()))
        assert unpack("<18d", client.hget(day, details))[15:] == (4_000, 0, 2_000)
    [row] = await store.usage(UsageQuery(by=("model", "upstream")))
    assert (row.requests, row.audio_ms, row.estimated_ms) == (3, 4_000, 2_000)


async def test_both_schemas_are_written_byte_by_byte_as_documented(redis: RedisServer, store: RedisStore) -> None:
    usage = Usage(input=10, output=5, cached_input=4, reasoning=2, cache_write=3, characters=6)
    await store.settle(settlement(bill(user="ann", usage=usage)))
    await store.settle(settlement(bill()))
    with contextlib.closing(redis.client()) as client:
        assert client.hgetall(LEDGER) == {b"k1|m": pack("<7d", 2, 20, 8, 10, 4, 0, 14)}
        details = b'["k1","m","up1","4711"]'
        # Requests to micro-dollars, cache writes of 5 minutes and an hour, audio and image in and out, units.
        assert client.hgetall("gw:2:{t/red}:l:2026-11-05") == {
            details: pack("<18d", 2, 20, 8, 10, 4, 0, 14, 3, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0)
        }
        assert client.hgetall("gw:2:{t/red}:u:2026-11-05") == {
            details + b"\nann": pack("<18d", 1, 10, 4, 5, 2, 0, 7, 3, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0)
        }
        [(field, score)] = client.zrange("gw:2:{t/red}:s:2026-11-05", 0, -1, withscores=True)
        assert client.hgetall("gw:2:{t/red}:n:2026-11-05") == {b"ann": details}
    assert field == b"ann"
    assert score == pytest.approx(7 + 16e-6)


async def test_a_row_that_an_older_gateway_wrote_is_read(redis: RedisServer, store: RedisStore) -> None:
    with contextlib.closing(redis.client()) as client:
        client.sadd("gw:1:{o}:teams", "red")
        client.zadd("gw:1:{t/red}:days", {"2026-11-05": AT_MS})
        client.hset(LEDGER, "k1|m", bytes.fromhex("000000000000f03f" + "0000000000002440" + "0000000000000000" * 5))
    [row] = await store.usage(UsageQuery(by=("key", "model", "upstream")))
    assert (row.key, row.model, row.upstream, first_figures(row)) == ("k1", "m", "", (1, 10, 0, 0, 0, 0, 0))


async def test_late_users_are_added_to_the_others_once_the_scores_have_ended(
    redis: RedisServer, store: RedisStore
) -> None:
    for number in range(5):
        await store.settle(settlement(bill(user=f"user {number}")))
    with contextlib.closing(redis.client()) as client:
        for key in ("gw:2:{t/red}:s:2026-11-05", "gw:2:{t/red}:n:2026-11-05"):
            assert 0 < client.pttl(key) <= 8 * DAY_MS
            client.delete(key)
        for name in ("late", "user 4"):
            await store.settle(settlement(bill(user=name)))
        assert client.exists("gw:2:{t/red}:s:2026-11-05") == 0
        assert client.hlen("gw:2:{t/red}:u:2026-11-05") == 4
    rows = await store.usage(UsageQuery(by=("user",)))
    assert {row.user: row.requests for row in rows} == {"(others)": 3, "user 2": 1, "user 3": 1, "user 4": 2}


async def test_reports_while_requests_are_settled_never_show_one_without_its_upstream(store: RedisStore) -> None:
    async def settle() -> None:
        for number in range(200):
            await store.settle(settlement(bill(key=f"k{number % 40}", user=f"user {number % 3}")))

    settling = asyncio.create_task(settle())
    while not settling.done():
        rows = await store.usage(UsageQuery(by=("upstream", "user")))
        assert {row.upstream for row in rows} <= {"up1"}
        assert "" not in {row.user for row in rows}
    await settling
    assert sum(row.requests for row in await store.usage(UsageQuery(by=("user",)))) == 200
