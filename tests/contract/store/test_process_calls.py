"""Questions to every process of a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.store.contract import ProcessReplies, Store
from gateway.store.in_redis import RedisStore
from tests.contract.store.keepers import PATIENCE_S, UTC, redis_options
from tests.redis_servers import RedisServer


async def answered_by(store: Store, processes: int, question: bytes = b"who") -> ProcessReplies:
    """What is replied once so many processes listen."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            replies = await store.ask_processes(question)
            if replies.asked == processes:
                return replies


def _hear(name: str, question: bytes) -> bytes:
    return f"{name} hears {question.decode()}".encode()


@asynccontextmanager
async def processes(server: RedisServer, *names: str) -> AsyncIterator[list[RedisStore]]:
    stores = [RedisStore(redis_options(server.url, name), UTC) for name in names]
    for name, store in zip(names, stores, strict=True):
        store.answer_processes(partial(_hear, name))
    try:
        yield stores
    finally:
        await asyncio.gather(*[store.close() for store in stores])


async def test_a_process_answers_itself(store: Store) -> None:
    store.answer_processes(lambda question: question + b"!")
    assert (await answered_by(store, 1)).replies == [b"who!"]


async def test_nobody_answers_where_nobody_serves(store: Store) -> None:
    assert await store.ask_processes(b"who") == ProcessReplies([], 0)


async def test_every_process_of_the_store_answers_whoever_asks(redis: RedisServer) -> None:
    asker = RedisStore(redis_options(redis.url, "asker"), UTC)
    try:
        async with processes(redis, "one", "two", "three"):
            replies = await answered_by(asker, 3, b"a question with spaces")
            heard = {f"{name} hears a question with spaces".encode() for name in ("one", "two", "three")}
            assert set(replies.replies) == heard
        await answered_by(asker, 0)
    finally:
        await asker.close()


async def test_a_process_that_fails_to_answer_is_missed(redis: RedisServer) -> None:
    async with processes(redis, "one", "two") as (one, two):
        await answered_by(one, 2)
        with redis.client() as client:
            # As a process that is stuck: it has the question, and does not read it.
            deaf = client.pubsub()
            deaf.subscribe("gw:1:{o}:calls")
            replies = await answered_by(two, 3)
            deaf.close()
        assert len(replies.replies) == 2


async def test_processes_listen_again_after_the_store_was_away(redis: RedisServer) -> None:
    async with processes(redis, "one") as (one,):
        await answered_by(one, 1)
        with redis.client() as client:
            client.client_kill_filter(_type="pubsub")
        await answered_by(one, 1)


async def test_a_store_that_is_out_cannot_be_asked() -> None:
    store = RedisStore(redis_options("redis://127.0.0.1:1/0"), UTC)
    try:
        with pytest.raises(StoreUnavailable):
            await store.ask_processes(b"who")
    finally:
        await store.close()
