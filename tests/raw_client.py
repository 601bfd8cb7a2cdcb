"""A client that says exactly the bytes it is given: for what no HTTP library would send."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from multidict import CIMultiDict

from tests.whole_gateway import KEY, PATIENCE_S, Reply, chat_body


class RawClient:
    """One connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def port(self) -> int:
        """Its own end's."""
        return int(self._writer.get_extra_info("sockname")[1])

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def takes(self, data: bytes, patience_s: float = 0.3) -> bool:
        """Send, and tell whether the gateway takes nearly all of it in time."""
        self._writer.write(data)
        try:
            async with asyncio.timeout(patience_s):
                await self._writer.drain()
        except TimeoutError:
            return False
        return True

    def hang_up(self) -> None:
        """Leave without a word."""
        self._writer.transport.abort()

    def end_sending(self) -> None:
        """Say that nothing more is sent, and still listen."""
        self._writer.write_eof()

    async def head(self) -> tuple[int, CIMultiDict[str]]:
        """The status line and headers of the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = CIMultiDict((name, value) for name, _, value in (line.partition(": ") for line in lines[1:-2]))
        return int(lines[0].split(" ")[1]), headers

    async def answer(self) -> Reply:
        """The next answer, to its end. Raises IncompleteReadError where there is none."""
        status, headers = await self.head()
        return Reply(status, headers, await self._body(headers))

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            if headers.get("transfer-encoding") == "chunked":
                return b"".join([piece async for piece in self._chunks()])
            if "content-length" in headers:
                return await self._reader.readexactly(int(headers["content-length"]))
            return await self._reader.read()

    async def read(self, size: int, patience_s: float = PATIENCE_S) -> bytes:
        """Up to so many bytes, as they came. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            return await self._reader.read(size)

    async def until(self, end: bytes) -> bytes:
        """What comes up to these bytes, as it came."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(end)

    async def rest(self, patience_s: float = PATIENCE_S) -> bytes:
        """All that comes until the gateway closes the connection. Raises TimeoutError."""
        async with asyncio.timeout(patience_s):
            return await self._reader.read()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)


@asynccontextmanager
async def raw_client(port: int, *, receive_bytes: int | None = None) -> AsyncIterator[RawClient]:
    """`receive_bytes` makes the client's socket and buffers small, so that it is soon too slow."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_bytes or 2**16)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def http_chat(
    body: bytes | None = None, *, headers: Mapping[str, str] | None = None, version: str = "1.1", **fields: object
) -> bytes:
    """A chat completion as it stands on the wire."""
    payload = json.dumps(chat_body(**fields)).encode() if body is None else body
    given = {
        "host": "gateway",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": str(len(payload)),
        **(headers or {}),
    }
    return http_head(f"POST /v1/chat/completions HTTP/{version}", given) + payload


def http_head(first_line: str, headers: Mapping[str, str]) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")
