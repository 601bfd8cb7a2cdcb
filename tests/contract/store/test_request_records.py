"""Records that explain requests: kept with their settlement, found by request id, bounded in number and time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from gateway.core.request_record import ALIKE_MAX, KeptRecord, RequestRecord
from gateway.core.reservation import Holds, Settlement
from gateway.store.backlog import Policy
from gateway.store.contract import Store, UsageQuery
from gateway.store.in_redis import RedisStore
from gateway.store.journal import Journal
from gateway.store.outbox import OutboxStore
from tests.contract.store.asking import admitted, ask, bill, limit, truth
from tests.contract.store.keepers import UTC, Keeper, redis_options, sure_tasks
from tests.redis_servers import RedisServer

QUOTA = limit("tokens", "month", 1_000)
HOUR_MS = 3_600_000


def kept(
    request_id: str = "req-1",
    *,
    name: str = "",
    team: str = "red",
    keep_ms: int = HOUR_MS,
    most: int = 100,
    at_ms: int = 1,
) -> KeptRecord:
    record = RequestRecord(name or f"own-{request_id}-{at_ms}", request_id, at_ms, 503, 1.5, team=team)
    return KeptRecord(record, keep_ms, most)


def recorded(settlement: Settlement, record: KeptRecord) -> Settlement:
    return msgspec.structs.replace(settlement, record=record)


async def ids(store: Store, request_id: str, *teams: str) -> list[str]:
    return [record.id for record in await store.request_records(request_id, teams)]


async def test_a_record_is_kept_with_its_settlement_once(store: Store) -> None:
    settlement = recorded(truth(await admitted(store, ask(QUOTA)), 7, bill()), kept())
    for _ in range(3):
        await store.settle(settlement)
    assert await store.request_records("req-1", ("red",)) == [kept().record]
    assert (await store.usage(UsageQuery()))[0].requests == 1
    assert (await store.limit_statuses([QUOTA]))[0].used == 7


async def test_a_record_of_a_request_that_cost_nothing_is_kept_too(store: Store) -> None:
    await store.settle(recorded(truth(await admitted(store, ask(QUOTA)), 0), kept()))
    await store.settle(recorded(Settlement("without-limits", 1, Holds(), (), None), kept("req-2", team="blue")))
    assert await ids(store, "req-1", "red", "blue") == ["own-req-1-1"]
    assert await ids(store, "req-2", "red", "blue") == ["own-req-2-1"]
    assert (await store.limit_statuses([QUOTA]))[0].held == 0


async def test_a_record_is_kept_where_an_end_user_is_billed(store: Store) -> None:
    await store.settle(recorded(truth(await admitted(store, ask(QUOTA)), 7, bill(user="ann")), kept()))
    assert await ids(store, "req-1", "red") == ["own-req-1-1"]
    (row,) = await store.usage(UsageQuery(by=("user",)))
    assert (row.user, row.input) == ("ann", 10)


async def test_records_without_a_settlement_are_written_together(store: Store) -> None:
    await store.keep_records([kept("a"), kept("b"), kept("c", team="blue"), kept("d", team="")])
    assert [await ids(store, name, "red", "blue") for name in "abcd"] == [
        ["own-a-1"], ["own-b-1"], ["own-c-1"], ["own-d-1"]
    ]  # fmt: skip
    assert await ids(store, "e", "red", "blue") == []


async def test_teams_that_choose_one_request_id_have_records_of_their_own_the_newest_first(store: Store) -> None:
    await store.keep_records([kept(at_ms=1), kept(team="blue", at_ms=3, name="blue's"), kept(at_ms=2)])
    assert await ids(store, "req-1", "red", "blue") == ["blue's", "own-req-1-2", "own-req-1-1"]


async def test_of_one_request_id_the_newest_few_are_kept(store: Store) -> None:
    for at_ms in range(1, ALIKE_MAX + 3):
        await store.keep_records([kept(at_ms=at_ms)])
    newest = [f"own-req-1-{at_ms}" for at_ms in range(ALIKE_MAX + 2, 2, -1)]
    assert await ids(store, "req-1", "red") == newest


async def test_a_team_that_has_too_many_loses_its_oldest_and_no_other_team_any(store: Store) -> None:
    await store.keep_records([kept("other", team="blue", most=3)])
    for number in range(5):
        await store.keep_records([kept(f"r{number}", most=3)])
    assert [len(await ids(store, f"r{number}", "red")) for number in range(5)] == [0, 0, 1, 1, 1]
    assert await ids(store, "other", "blue") == ["own-other-1"]


async def test_a_record_ends_after_its_time(keeper: Keeper) -> None:
    await keeper.store.keep_records([kept("old", keep_ms=150)])
    await keeper.pass_ms(200)
    assert await ids(keeper.store, "old", "red") == []
    # One that is written again keeps the key alive, and not what is too old in it.
    await keeper.store.keep_records([kept("first", keep_ms=300)])
    await keeper.pass_ms(200)
    await keeper.store.keep_records([kept("second", keep_ms=300)])
    await keeper.pass_ms(200)
    await keeper.store.keep_records([kept("third", keep_ms=300)])
    assert [await ids(keeper.store, name, "red") for name in ("first", "second")] == [[], ["own-second-1"]]


async def test_a_key_that_somebody_else_has_written_to_holds_no_settlement_up(redis: RedisServer) -> None:
    client = redis.client()
    client.set("gw:1:{t/red}:x", "another program's")
    client.set("gw:1:{t/blue}:xo", "another program's")
    store = RedisStore(redis_options(redis.url), UTC)
    try:
        for team in ("red", "blue"):
            settlement = truth(await admitted(store, ask(QUOTA)), 7, bill())
            await store.settle(recorded(settlement, kept(team=team)))
        assert (await store.limit_statuses([QUOTA]))[0].used == 14
    finally:
        client.close()
        await store.close()


async def test_a_record_that_cannot_be_written_holds_no_settlement_up(redis: RedisServer, tmp_path: Path) -> None:
    store = RedisStore(redis_options(redis.url), UTC)
    journal, policy = Journal(tmp_path, "one", sure_tasks()), Policy(lambda _complaint: None, pause_s=0.01)
    steady = OutboxStore(store, journal, policy, UTC, sure_tasks())
    steady.start()
    try:
        settlement = truth(await admitted(steady, ask(QUOTA)), 7, bill())
        await steady.settle(recorded(settlement, kept(name="half a character: \ud83d")))
        async with asyncio.timeout(10):
            while steady.unsettled:
                await asyncio.sleep(policy.pause_s)
        assert (await steady.limit_statuses([QUOTA]))[0].used == 7
    finally:
        await steady.close()


async def test_a_record_that_this_version_cannot_read_hides_no_other(redis: RedisServer) -> None:
    store = RedisStore(redis_options(redis.url), UTC)
    try:
        await store.keep_records([kept(at_ms=1)])
        newer = msgspec.json.encode({**msgspec.to_builtins(kept(at_ms=2).record), "limits": "another shape", "more": 1})
        with redis.client() as client:
            known = client.hget("gw:1:{t/red}:x", "req-1")
            client.hset("gw:1:{t/red}:x", "req-1", newer + b"\n" + known)
        assert await ids(store, "req-1", "red") == ["own-req-1-1"]
    finally:
        await store.close()


async def test_a_settlement_from_the_journal_brings_its_record(redis: RedisServer) -> None:
    dead, alive = RedisStore(redis_options(redis.url, "dead"), UTC), RedisStore(redis_options(redis.url, "alive"), UTC)
    try:
        settlement = recorded(truth(await admitted(dead, ask(QUOTA)), 7, bill()), kept())
        for _ in range(2):
            await alive.replay("dead", 1, settlement)
        assert await ids(alive, "req-1", "red") == ["own-req-1-1"]
        assert (await alive.limit_statuses([QUOTA]))[0].used == 7
    finally:
        await asyncio.gather(dead.close(), alive.close())


async def test_a_team_that_is_no_longer_configured_is_still_found_by_its_ledger(redis: RedisServer) -> None:
    store = RedisStore(redis_options(redis.url), UTC)
    try:
        await store.settle(recorded(truth(await admitted(store, ask(QUOTA)), 7, bill()), kept()))
        assert await ids(store, "req-1") == ["own-req-1-1"]
    finally:
        await store.close()
