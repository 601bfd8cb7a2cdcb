"""A busy event loop is no outage of Redis: its pauses are not the server's, however often they come."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.reservation import Reservation
from gateway.core.store_url import read_store_url
from gateway.runtime.name_lookup import NameLookups, ResolvedAddress
from gateway.runtime.name_lookup import resolve as resolve_really
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis import RedisStore
from gateway.store.in_redis.connection import ConnectionDown, RedisConnection, RedisStream
from gateway.store.in_redis.discovery import RedisConnector
from tests.contract.store.asking import admitted, ask, bill, limit, truth, used_and_held
from tests.contract.store.keepers import UTC, redis_options
from tests.redis_servers import RedisServer, redis_server

TIMEOUT_S = 0.25
STALL_S = 1.0
LONG_TURN_S = 1.5 * TIMEOUT_S
MANY = 2_000
QUOTA = limit("requests", "day", 100)


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis_options(redis.url, timeout_s=TIMEOUT_S), UTC)
    yield opened
    redis.thaw()
    await opened.close()


async def after_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def every_turn_takes_long() -> AsyncIterator[None]:
    """Other work holds the loop up for longer than the time-out, in each of its turns."""

    async def work() -> None:
        while True:
            time.sleep(LONG_TURN_S)  # noqa: ASYNC251 # This is what is tried.
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait([working])


async def counts_of(store: RedisStore, requests: int) -> tuple[int, int]:
    """How many were admitted and how many refused, of so many at once."""
    verdicts = await asyncio.gather(*[store.admit(ask(QUOTA)) for _ in range(requests)])
    admitted = sum(isinstance(verdict, Reservation) for verdict in verdicts)
    return admitted, requests - admitted


@pytest.mark.parametrize("turns", range(5))
async def test_answers_that_came_while_the_loop_was_busy_are_read(store: RedisStore, turns: int) -> None:
    await store.ping()
    asking = asyncio.create_task(counts_of(store, 300))
    await after_turns(turns)
    time.sleep(STALL_S)  # noqa: ASYNC251 # This is what is tried.
    assert await asking == (100, 200)
    assert store.trouble is None


async def test_what_is_settled_while_the_loop_is_busy_is_settled(store: RedisStore) -> None:
    tokens = limit("tokens", "month", 10_000)
    made = [await admitted(store, ask(tokens)) for _ in range(100)]
    settling = asyncio.gather(*[store.settle(truth(one, 7, bill())) for one in made])
    await after_turns(2)
    time.sleep(STALL_S)  # noqa: ASYNC251 # This is what is tried.
    await settling
    assert await used_and_held(store, tokens) == (700, 0)


@pytest.mark.slow
async def test_a_burst_in_which_every_turn_takes_long_is_judged_by_the_limits(store: RedisStore) -> None:
    await store.ping()
    async with every_turn_takes_long():
        assert await counts_of(store, MANY) == (100, MANY - 100)
    assert store.trouble is None


@pytest.mark.slow
async def test_so_is_a_burst_that_must_connect_first(store: RedisStore) -> None:
    async with every_turn_takes_long():
        assert await counts_of(store, MANY) == (100, MANY - 100)
    assert store.trouble is None


async def test_a_frozen_redis_is_noticed_though_the_loop_pauses(redis: RedisServer, store: RedisStore) -> None:
    await store.ping()
    redis.freeze()
    asking = asyncio.gather(*[store.admit(ask(QUOTA)) for _ in range(100)], return_exceptions=True)
    for _ in range(3):
        await after_turns(5)
        time.sleep(LONG_TURN_S)  # noqa: ASYNC251 # This is what is tried.
    began = time.perf_counter()
    assert all(isinstance(one, StoreUnavailable) for one in await asking)
    assert time.perf_counter() - began < 10 * TIMEOUT_S
    assert store.trouble


async def test_a_slow_report_delays_no_admission(store: RedisStore) -> None:
    await store.ping()
    waiting = asyncio.ensure_future(store.client.background.ask("gw", ("BLPOP", "gw:none", TIMEOUT_S / 2)))
    await after_turns(5)
    await admitted(store, ask(QUOTA))
    await store.settle(truth(await admitted(store, ask(QUOTA)), 7, bill()))
    assert not waiting.done()
    assert await waiting is None


async def test_what_waits_in_the_background_is_judged_by_itself(store: RedisStore) -> None:
    """A report that hangs fails, and says why; admissions go on meanwhile."""
    await store.ping()
    waiting = asyncio.ensure_future(store.client.background.ask("gw", ("BLPOP", "gw:none", 0)))
    while not waiting.done():
        await admitted(store, ask(limit("requests", "day", 1_000_000)))
    with pytest.raises(StoreUnavailable):
        await waiting
    async with asyncio.timeout(10):
        while store.trouble:
            await asyncio.sleep(TIMEOUT_S / 10)
    await store.ping()


async def test_an_admission_that_is_not_waited_for_any_more_is_not_sent(redis: RedisServer, store: RedisStore) -> None:
    await store.ping()
    with contextlib.closing(redis.client()) as client:
        client.config_resetstat()
        first = asyncio.ensure_future(store.client.admissions.ask("gw", ("TIME",)))  # It is sent at once.
        asking = asyncio.ensure_future(store.client.admissions.ask("gw", ("PING",)))
        asyncio.get_running_loop().call_soon(asking.cancel)
        await asyncio.wait([first, asking])
        await store.ping()
        assert "cmdstat_ping" not in client.info("commandstats")


class Failures:
    """What background tasks log and count."""

    def __init__(self) -> None:
        self.logged: list[BaseException] = []
        self.counted: list[str] = []
        self.tasks = BackgroundTasks(self._log, self.counted.append, first_pause_s=0.01)

    def _log(self, doing: str, error: BaseException) -> None:
        self.logged.append(error)


async def test_a_connection_survives_what_was_not_foreseen(redis: RedisServer) -> None:
    failures = Failures()
    connect = RedisConnector(read_store_url(redis.url), NameLookups(failures.tasks)).to(("", 0))
    errors: list[Exception] = [ZeroDivisionError("once"), KeyError("twice")]

    async def connect_at_third() -> RedisStream:
        if errors:
            raise errors.pop(0)
        return await connect()

    connection = RedisConnection(connect_at_third, TIMEOUT_S, failures.tasks)
    with pytest.raises(ConnectionDown, match="once"):
        await connection.call(("PING",))
    async with asyncio.timeout(10):
        while connection.trouble:
            await asyncio.sleep(0)
    assert await connection.call(("PING",)) == b"PONG"
    assert [type(error) for error in failures.logged] == [ZeroDivisionError, KeyError]
    assert failures.counted == ["connect to Redis"] * 2
    connection.close()
    await failures.tasks.close()


async def test_a_server_is_reached_while_the_names_of_others_hang() -> None:
    """The loop's own look-ups share two threads."""
    freed = threading.Event()

    def resolve(host: str, port: int) -> list[ResolvedAddress]:
        if host != "redis.example":
            freed.wait()
        return resolve_really("127.0.0.1", port)

    failures = Failures()
    with redis_server(tcp=True) as server:
        connector = RedisConnector(read_store_url(server.url), NameLookups(failures.tasks, resolve))
        hanging = [asyncio.create_task(connector.open((f"sentinel-{number}.example", 26379))) for number in range(3)]
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        stream = await connector.open(("redis.example", port))
        assert await stream.ask(("PING",)) == [b"PONG"]
        stream.abort()
    for one in hanging:
        assert not one.done()
        one.cancel()
    freed.set()
    await failures.tasks.close()


async def test_a_server_of_another_protocol_is_an_outage() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = RedisStore(redis_options(f"redis://127.0.0.1:{port}", timeout_s=TIMEOUT_S), UTC)
    with pytest.raises(StoreUnavailable):
        await store.admit(ask(QUOTA))
    assert "protocol of Redis" in (store.trouble or ""), store.trouble
    await store.close()
    server.close()


async def test_a_command_that_cannot_be_made_fails_alone(redis: RedisServer) -> None:
    """Of several in one turn: those around it are sent, and each gets its own reply."""
    failures = Failures()
    connect = RedisConnector(read_store_url(redis.url), NameLookups(failures.tasks)).to(("", 0))
    connection = RedisConnection(connect, TIMEOUT_S, failures.tasks)
    with contextlib.closing(connection):
        for place in range(4):
            words = ["a", "b", "c", "d"]
            words[place] = "\ud800"
            async with asyncio.timeout(10):
                replies: list[Any] = await asyncio.gather(
                    *[connection.call(("ECHO", word)) for word in words], return_exceptions=True
                )
            assert isinstance(replies[place], UnicodeEncodeError)
            del words[place], replies[place]
            assert replies == [word.encode() for word in words]
    await failures.tasks.close()
