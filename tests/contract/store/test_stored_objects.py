"""Whose is what upstreams keep: the first settlement that names it says so, and no other one changes it."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from gateway.core.reservation import Settlement
from gateway.core.stored_objects import ObjectKind, ObjectName, StoredObject
from gateway.store.contract import OBJECT_LIFE_MS, Store
from gateway.store.in_memory import InMemoryStore
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import UTC, FalseClock, RedisKeeper
from tests.redis_servers import RedisServer

QUOTA = limit("tokens", "month", 1000)
RESPONSE = ObjectName(ObjectKind.RESPONSE, "resp_1")


def made(team: str = "red", name: ObjectName = RESPONSE) -> StoredObject:
    return StoredObject(name, team, "up1", "openai/gpt-oss-120b")


async def settlement(store: Store, created: StoredObject) -> Settlement:
    return msgspec.structs.replace(truth(await admitted(store, ask(QUOTA)), 7, bill()), created=created)


async def test_what_a_settlement_names_is_found_with_its_team_and_upstream(store: Store) -> None:
    assert await store.stored_object(RESPONSE) is None
    await store.settle(await settlement(store, made()))
    assert await store.stored_object(RESPONSE) == made()
    assert await used_and_held(store, QUOTA) == (7, 0)


async def test_a_response_and_a_conversation_of_one_id_are_two(store: Store) -> None:
    await store.settle(await settlement(store, made()))
    assert await store.stored_object(ObjectName(ObjectKind.CONVERSATION, "resp_1")) is None


async def test_whoever_names_it_first_has_it(store: Store) -> None:
    await store.settle(await settlement(store, made()))
    await store.settle(await settlement(store, made("blue")))
    assert await store.stored_object(RESPONSE) == made()


async def test_of_many_at_once_one_has_it(store: Store) -> None:
    every = [await settlement(store, made(f"team{number}")) for number in range(20)]
    await asyncio.gather(*[store.settle(one) for one in every])
    first = await store.stored_object(RESPONSE)
    assert first in [one.created for one in every]
    await asyncio.gather(*[store.settle(one) for one in every])
    assert await store.stored_object(RESPONSE) == first


async def test_in_memory_it_is_forgotten_in_time() -> None:
    clock = FalseClock()
    store = InMemoryStore(clock, UTC)
    for kind, life_ms in OBJECT_LIFE_MS.items():
        name = ObjectName(kind, "x1")
        await store.settle(await settlement(store, made(name=name)))
        clock.at_ms += life_ms - 1
        assert await store.stored_object(name) is not None
        clock.at_ms += 1
        assert await store.stored_object(name) is None
        await store.settle(await settlement(store, made("blue", name)))
        assert (await store.stored_object(name) or made()).team == "blue"


async def test_in_redis_it_expires(redis: RedisServer) -> None:
    keeper = RedisKeeper(redis.url, [redis])
    await keeper.store.settle(await settlement(keeper.store, made()))
    with contextlib.closing(redis.client()) as client:
        (key,) = client.keys("*{s/*")
        assert 0 < OBJECT_LIFE_MS[ObjectKind.RESPONSE] - client.pttl(key) < 60_000
    await keeper.store.close()


async def test_a_replayed_settlement_names_it_once_more(redis: RedisServer) -> None:
    keeper = RedisKeeper(redis.url, [redis])
    store = keeper.store
    kept = await settlement(store, made())
    await store.replay("one", 1, kept)  # type: ignore[attr-defined]  # Only the store in Redis has a journal.
    await store.settle(kept)
    assert await store.stored_object(RESPONSE) == made()
    await store.close()
