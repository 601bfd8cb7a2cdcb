"""Between a client and whatever it talks to: passes every byte on as it comes, and keeps what the client sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import httptools


class Sent(NamedTuple):
    """A request as the client sent it. `at_s` is on the monotonic clock: when its last byte had come."""

    at_s: float
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class RequestReader:
    """The requests within the bytes of one connection, put into `found` as they end."""

    def __init__(self, found: list[Sent]) -> None:
        self._found = found
        self._parser = httptools.HttpRequestParser(self)
        self._is_http = True

    def feed(self, data: bytes) -> None:
        if not self._is_http:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_http = False

    def on_message_begin(self) -> None:
        self._target, self._body = b"", b""
        self._headers: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode().lower(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, target = self._parser.get_method().decode(), self._target.decode()
        self._found.append(Sent(time.monotonic(), method, target, tuple(self._headers), self._body))


class RequestTap:
    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.sent: list[Sent] = []
        self._target_port = target_port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        requests = RequestReader(self.sent)
        await asyncio.gather(_copy(reader, to_writer, requests), _copy(to_reader, writer, None))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: RequestReader | None) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(2**16):
            if requests:
                requests.feed(data)
            writer.write(data)
            await writer.drain()
    with suppress(ConnectionError, OSError):
        writer.close()


@asynccontextmanager
async def request_tap(target_port: int) -> AsyncIterator[RequestTap]:
    tap = RequestTap(target_port)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()
