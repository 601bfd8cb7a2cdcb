from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.connection import ConnectionDown, ErrorReply, RedisConnection, RedisStream

PING = ("PING",)
TIMEOUT_S = 0.2
PAUSE_S = TIMEOUT_S / 4
SCRIPT_OF_6_2 = "ERR Error running script (call to f_1028a5dba704e1d8a01fd96efeba25bb78f62df2): @user_script"


class FakeTransport(asyncio.Transport):
    """Answers each command with OK in the next turn of the loop. Once closed it takes nothing, as uvloop's."""

    def __init__(self, stream: RedisStream) -> None:
        super().__init__()
        self.written = b""
        self._stream = stream
        self._closed = False

    def write(self, data: Any) -> None:
        if self._closed:
            raise RuntimeError("unable to perform operation; the handler is closed")
        self.written += data
        asyncio.get_running_loop().call_soon(lambda: self._stream.data_received(b"+OK\r\n" * len(self._stream.sent)))

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True

    def abort(self) -> None:
        self._closed = True


class SlowTransport(FakeTransport):
    """Answers one command at a time, each after a pause."""

    def write(self, data: Any) -> None:
        self._answer_next_later()

    def _answer_next_later(self) -> None:
        asyncio.get_running_loop().call_later(PAUSE_S, self._answer_next)

    def _answer_next(self) -> None:
        self._stream.data_received(b"+OK\r\n")
        if self._stream.sent:
            self._answer_next_later()


class FrozenTransport(FakeTransport):
    """Answers all at once, when it goes on."""

    def write(self, data: Any) -> None:
        self.written += data

    def thaw(self) -> None:
        self._stream.data_received(b"+OK\r\n" * len(self._stream.sent))


class FakeServer:
    def __init__(self, transport: type[FakeTransport] = FakeTransport) -> None:
        self._transport = transport
        self.streams: list[RedisStream] = []
        self.transports: list[FakeTransport] = []

    async def connect(self) -> RedisStream:
        stream = RedisStream()
        transport = self._transport(stream)
        stream.connection_made(transport)
        self.streams.append(stream)
        self.transports.append(transport)
        return stream


def unexpected(doing: str, error: BaseException) -> None:
    raise AssertionError(doing) from error


async def test_what_is_called_on_a_closed_connection_that_is_not_lost_yet_waits_for_the_next_one() -> None:
    server, failures = FakeServer(), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    connection = RedisConnection(server.connect, 10.0, BackgroundTasks(unexpected))
    assert await connection.call(PING) == b"OK"
    server.transports[0].close()
    reply = connection.call(PING)
    asyncio.get_running_loop().call_later(0, server.streams[0].connection_lost, None)
    assert await reply == b"OK"
    assert b"PING" in server.transports[1].written
    assert failures == []
    connection.close()


async def test_the_first_call_of_a_turn_is_sent_at_once_and_the_others_together() -> None:
    server = FakeServer()
    connection = RedisConnection(server.connect, 10.0, BackgroundTasks(unexpected))
    await connection.call(PING)
    [transport] = server.transports
    for _ in range(2):  # In each of two turns.
        before = len(transport.written)
        calls = [connection.call(PING)]
        alone = len(transport.written) - before
        calls += [connection.call(PING) for _ in range(3)]
        assert len(transport.written) - before == alone > 0
        await asyncio.sleep(0)
        assert len(transport.written) - before == 4 * alone
        assert await asyncio.gather(*calls) == [b"OK"] * 4
    connection.close()


@pytest.mark.parametrize("calls", [1, 3])
async def test_who_awaits_the_only_call_on_its_way_goes_on_where_the_reply_arrives_and_others_together(
    calls: int,
) -> None:
    server, seen = FakeServer(FrozenTransport), list[bytes]()
    connection = RedisConnection(server.connect, 10.0, BackgroundTasks(unexpected))
    first = connection.call(PING)
    while not (server.transports and server.transports[0].written):
        await asyncio.sleep(0)
    [frozen] = server.transports
    assert isinstance(frozen, FrozenTransport)
    while not first.done():  # Loads the scripts, too.
        frozen.thaw()
        await asyncio.sleep(0)

    async def wait() -> None:
        seen.append(await connection.send(PING))

    tasks = [asyncio.create_task(wait()) for _ in range(calls)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    over: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    def arrive() -> None:
        frozen.thaw()
        over.set_result([*seen])

    asyncio.get_running_loop().call_soon(arrive)
    assert await over == [b"OK"]  # Of several, that is the first, which was alone when it was sent.
    await asyncio.gather(*tasks)
    assert seen == [b"OK"] * calls
    connection.close()


async def test_a_server_that_answers_slowly_is_not_out() -> None:
    """Together the calls take longer than the time-out, but one is answered now and then."""
    connection = RedisConnection(FakeServer(SlowTransport).connect, TIMEOUT_S, BackgroundTasks(unexpected))
    assert await asyncio.gather(*[connection.call(PING) for _ in range(12)]) == [b"OK"] * 12
    assert connection.trouble is None
    connection.close()


@pytest.mark.parametrize("in_the_same_turn", [True, False])
async def test_a_server_that_is_replaced_while_it_stands_still_is_not_used_when_it_goes_on(
    in_the_same_turn: bool,
) -> None:
    old, new = FakeServer(FrozenTransport), FakeServer()
    named = old

    async def connect() -> RedisStream:
        return await named.connect()

    connection = RedisConnection(connect, 10.0, BackgroundTasks(unexpected))
    first = connection.call(PING)
    while not old.transports or not old.transports[0].written:
        await asyncio.sleep(0)
    named = new
    connection.reconnect("is no longer the master")
    if not in_the_same_turn:
        await asyncio.sleep(0)
    [frozen] = old.transports
    assert isinstance(frozen, FrozenTransport)
    frozen.thaw()
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionDown):
            await first
        while connection.trouble:
            await asyncio.sleep(0)
        assert await connection.call(PING) == b"OK"
    assert b"PING" in new.transports[0].written
    assert frozen.is_closing()
    connection.close()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        ("READONLY You can't write against a read only replica. script: 1028a5, on @user_script:1.", "READONLY"),
        (f"{SCRIPT_OF_6_2}:4: @user_script: 4: -READONLY You can't write against a read only replica.", "READONLY"),
        (f"{SCRIPT_OF_6_2}:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        (f"{SCRIPT_OF_6_2}:3: attempt to index a nil value", "ERR"),
    ],
)
def test_an_error_within_a_script_has_the_code_of_that_error(text: str, code: str) -> None:
    assert ErrorReply(text).code == code
