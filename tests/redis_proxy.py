"""A proxy in front of a Redis server: it holds a script's next call, or the reply to it, and cuts every connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.store.in_redis.scripts import ADMIT, LuaScript
from tests.redis_servers import RedisServer
from tests.whole_gateway import PATIENCE_S


class _Held:
    """The next call of a script. `reply`: Redis carries it out, and its reply is what is held."""

    def __init__(self, script: LuaScript, reply: bool) -> None:
        self.sha = script.sha.encode()
        self.reply = reply
        self.met = False
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class RedisProxy:
    """`admitting` is the process that asked for an admission last. A connection whose call is held stays stuck."""

    def __init__(self, server: RedisServer) -> None:
        self.path = server.folder / "proxy.sock"
        self.admitting = 0
        self._server_path = str(server.socket)
        self._listening: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._held: _Held | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def open(self) -> None:
        self._listening = await asyncio.start_unix_server(self._serve, self.path)

    def cut(self) -> None:
        """Redis is out for who comes through here."""
        assert self._listening is not None
        self._listening.close()
        self.path.unlink(missing_ok=True)  # From Python 3.13 on, the server has removed it.
        for writer in self._writers:
            writer.transport.abort()

    def hold_call(self, script: LuaScript) -> None:
        self._held = _Held(script, reply=False)

    def hold_reply(self, script: LuaScript) -> None:
        self._held = _Held(script, reply=True)

    async def held(self) -> int:
        """The process whose call it was, once it is held."""
        assert self._held is not None
        return await asyncio.wait_for(self._held.pid, PATIENCE_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server_path)
        self._writers |= {writer, to_server}
        pid = _peer(writer)
        stuck: list[_Held] = []
        with suppress(ConnectionError):
            await asyncio.gather(
                self._forward(reader, to_server, pid, stuck), self._answer(from_server, writer, pid, stuck)
            )

    async def _forward(
        self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter, pid: int, stuck: list[_Held]
    ) -> None:
        """`stuck` gets the call whose reply is to be held."""
        while data := await reader.read(2**16):
            if ADMIT.sha.encode() in data:
                self.admitting = pid
            held = self._held
            if held is not None and not held.met and held.sha in data:
                held.met = True
                if not held.reply:
                    held.pid.set_result(pid)
                    return
                stuck.append(held)
            to_server.write(data)
        to_server.close()

    async def _answer(
        self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int, stuck: list[_Held]
    ) -> None:
        while data := await from_server.read(2**16):
            if stuck:
                stuck[0].pid.set_result(pid)
                return
            writer.write(data)
        writer.close()


def _peer(writer: asyncio.StreamWriter) -> int:
    """The process at the other end (unix(7), SO_PEERCRED)."""
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)


@asynccontextmanager
async def redis_proxy(server: RedisServer) -> AsyncIterator[RedisProxy]:
    proxy = RedisProxy(server)
    await proxy.open()
    try:
        yield proxy
    finally:
        if proxy.path.exists():
            proxy.cut()
