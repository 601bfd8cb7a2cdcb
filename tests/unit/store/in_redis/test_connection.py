from __future__ import annotations

import asyncio
from typing import Any

from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.connection import RedisConnection, RedisStream

PING = ("PING",)


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


class FakeServer:
    def __init__(self) -> None:
        self.streams: list[RedisStream] = []
        self.transports: list[FakeTransport] = []

    async def connect(self) -> RedisStream:
        stream = RedisStream()
        transport = FakeTransport(stream)
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
    reply = connection.call(PING)
    server.transports[0].close()
    asyncio.get_running_loop().call_later(0, server.streams[0].connection_lost, None)
    assert await reply == b"OK"
    assert b"PING" in server.transports[1].written
    assert failures == []
    connection.close()
