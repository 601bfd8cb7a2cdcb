"""What an outage of Redis costs: at most one timeout, then nothing, until it is back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.core.errors import StoreUnavailable
from gateway.store.backlog import Policy
from gateway.store.contract import HOLD_TTL_MS as HOLD_TTL_IN_EARNEST_MS
from gateway.store.contract import UsageQuery
from gateway.store.in_redis import RedisStore
from gateway.store.journal import Journal
from gateway.store.outbox import OutboxStore
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import UTC, redis_options, sure_tasks
from tests.redis_servers import RedisServer, redis_server

TIMEOUT_S = 0.2
QUOTA = limit("tokens", "month", 1_000)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of its own, that writes down what it did before it says so."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as started:
        yield started


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_options(server.url, timeout_s=TIMEOUT_S), UTC)
    yield opened
    server.thaw()
    await opened.close()


async def seconds_to_fail(store: RedisStore) -> float:
    began = time.perf_counter()
    with pytest.raises(StoreUnavailable):
        await store.admit(ask(QUOTA))
    return time.perf_counter() - began


def fails_without_waiting(store: RedisStore) -> None:
    with pytest.raises(StoreUnavailable):
        store.admit(ask(QUOTA)).send(None)


async def test_a_failed_call_says_what_it_was_for_alone(server: RedisServer, store: RedisStore) -> None:
    reservation = await admitted(store, ask(QUOTA))
    server.freeze()
    with pytest.raises(StoreUnavailable, match=r"does not answer\. Nothing was forwarded; try again soon\.$"):
        await store.admit(ask(QUOTA))
    for call in (store.settle(truth(reservation, 7)), store.usage(UsageQuery()), store.limit_statuses([QUOTA])):
        with pytest.raises(StoreUnavailable, match=r"does not answer\.$"):
            await call


async def until_it_answers(store: RedisStore) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await store.ping()
            await asyncio.sleep(TIMEOUT_S / 10)


async def test_a_frozen_redis_costs_one_timeout_then_nothing(server: RedisServer, store: RedisStore) -> None:
    await store.ping()
    server.freeze()
    waits = await asyncio.gather(*[seconds_to_fail(store) for _ in range(20)])
    assert TIMEOUT_S * 0.9 < max(waits) < 10 * TIMEOUT_S  # One after the other they would wait for twenty.
    assert store.trouble
    for _ in range(20):
        fails_without_waiting(store)
    server.thaw()
    await until_it_answers(store)
    assert store.trouble is None
    await admitted(store, ask(QUOTA))


async def test_a_gateway_starts_without_redis_and_takes_it_up_when_it_comes(server: RedisServer) -> None:
    server.kill()
    store = RedisStore(redis_options(server.url, timeout_s=TIMEOUT_S), UTC)
    await seconds_to_fail(store)
    fails_without_waiting(store)
    server.start()
    await until_it_answers(store)
    await admitted(store, ask(QUOTA))
    await store.close()


async def test_a_redis_that_restarts_remembers_what_it_has_answered(server: RedisServer, store: RedisStore) -> None:
    reservation = await admitted(store, ask(QUOTA))
    await store.settle(truth(await admitted(store, ask(QUOTA)), 7, bill()))
    server.kill()
    server.start()
    await until_it_answers(store)
    await store.settle(truth(reservation, 8, bill()))
    assert await used_and_held(store, QUOTA) == (15, 0)
    assert (await store.usage(UsageQuery()))[0].requests == 2


async def test_a_connection_that_was_cut_is_made_anew_without_a_failure(server: RedisServer, store: RedisStore) -> None:
    await store.ping()
    with contextlib.closing(server.client()) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(TIMEOUT_S / 10)
        await admitted(store, ask(QUOTA))


async def test_what_was_settled_though_nobody_heard_of_it_is_not_settled_again(
    server: RedisServer, store: RedisStore
) -> None:
    settlement = truth(await admitted(store, ask(QUOTA)), 7, bill())
    server.freeze()
    with pytest.raises(StoreUnavailable):
        await store.settle(settlement)
    server.thaw()
    await until_it_answers(store)
    for _ in range(3):
        await store.settle(settlement)
    assert await used_and_held(store, QUOTA) == (7, 0)
    assert (await store.usage(UsageQuery()))[0].requests == 1


async def test_an_outage_is_told_with_a_time_to_come_back(server: RedisServer, store: RedisStore) -> None:
    server.kill()
    with pytest.raises(StoreUnavailable) as refused:
        await store.ping()
    assert refused.value.retry_after_ms == 1_000
    server.start()


async def test_every_call_is_told_to_who_looks(server: RedisServer) -> None:
    seen: list[tuple[str, str]] = []
    store = RedisStore(
        redis_options(server.url, timeout_s=TIMEOUT_S), UTC, lambda call, outcome, seconds: seen.append((call, outcome))
    )
    await admitted(store, ask(QUOTA))
    server.freeze()
    await seconds_to_fail(store)
    assert ("admit", "ok") in seen
    assert seen[-1] == ("admit", "unavailable")
    server.thaw()
    await store.close()


async def test_what_redis_refuses_for_ever_holds_up_no_other(
    server: RedisServer, store: RedisStore, tmp_path: Path
) -> None:
    """Somebody else has written to the ledger's key of one team."""
    complaints: list[str] = []
    steady = OutboxStore(
        store, Journal(tmp_path, "one", sure_tasks()), Policy(complaints.append, pause_s=0.01), UTC, sure_tasks()
    )
    made = [await admitted(steady, ask(QUOTA)) for _ in range(3)]
    with contextlib.closing(server.client()) as client:
        client.set("gw:1:{t/blue}:l:2026-11-05", "not a hash")
    server.freeze()
    for one, team in zip(made, ("blue", "red", "red"), strict=True):
        await steady.settle(truth(one, 7, bill(team=team)))
    assert steady.unsettled == 3
    server.thaw()
    steady.start()
    async with asyncio.timeout(10):
        while steady.unsettled:
            await asyncio.sleep(TIMEOUT_S / 10)
    [row] = await steady.usage(UsageQuery(by=("team",)))
    assert (row.team, row.requests) == ("red", 2)
    assert len(complaints) == 1
    assert "WRONGTYPE" in complaints[0]
    await steady.close()


async def test_an_entry_that_shows_that_redis_takes_others_is_charged_once(server: RedisServer, tmp_path: Path) -> None:
    """In the journal of a dead process, whose first entry is refused."""

    def started(process: str) -> OutboxStore:
        # Holds last as in earnest: what is not settled is still held, however long the restart takes.
        options = msgspec.structs.replace(redis_options(server.url, process), hold_ttl_ms=HOLD_TTL_IN_EARNEST_MS)
        store = RedisStore(options, UTC)
        policy = Policy(lambda _complaint: None, takes_unsigned=True, pause_s=0.01, orphans_s=0.01)
        steady = OutboxStore(store, Journal(tmp_path, process, sure_tasks()), policy, UTC, sure_tasks())
        steady.start()
        return steady

    dead, alive = started("dead"), started("alive")
    made = [await admitted(dead, ask(QUOTA)) for _ in range(3)]
    server.kill()
    for one, team in zip(made, ("blue", "red", "red"), strict=True):
        await dead.settle(truth(one, 7, bill(team=team)))
    await dead.close()
    server.start()
    with contextlib.closing(server.client()) as client:
        client.set("gw:1:{t/blue}:l:2026-11-05", "not a hash")
    async with asyncio.timeout(10):
        while (tmp_path / "dead.journal").exists():
            await asyncio.sleep(TIMEOUT_S / 10)
    [row] = await alive.usage(UsageQuery(by=("team",)))
    assert (row.team, row.requests) == ("red", 2)
    assert await used_and_held(alive, QUOTA) == (14, 30)
    await alive.close()


async def test_replaying_a_journal_twice_charges_once(server: RedisServer, store: RedisStore) -> None:
    dead = RedisStore(redis_options(server.url, "dead"), UTC)
    settlements = [truth(await admitted(dead, ask(QUOTA)), 10, bill()) for _ in range(3)]
    await dead.close()
    for _ in range(2):
        for place, settlement in enumerate(settlements, 1):
            await store.replay("dead", place, settlement)
    assert await used_and_held(store, QUOTA) == (30, 0)
    with contextlib.closing(server.client()) as client:
        for key in client.scan_iter("*:r:*"):
            client.delete(key)  # As hours later, when the records have ended.
    await store.replay("dead", 3, settlements[2])
    assert await used_and_held(store, QUOTA) == (30, 0)
    assert (await store.usage(UsageQuery()))[0].requests == 3
