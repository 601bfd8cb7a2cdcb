"""A model server that plays bytes: one list of steps for each connection, in the order of their coming.

    server = await play([hears, says(OK), hangs_up], [hears, says(OK)])

A connection whose steps are done stays open until the test is over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.core.snapshot import Upstream
from gateway.runtime.listening import stop_listening

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Heard:
    """One request, as it came."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known == name]
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None


@dataclass
class Peer:
    """The server's side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[Heard]
    gone: asyncio.Event

    @property
    def socket(self) -> socket.socket:
        found: socket.socket = self.writer.get_extra_info("socket")
        return found


Step = Callable[[Peer], Awaitable[None]]


async def hears(peer: Peer) -> None:
    """Read one whole request."""
    head = (await peer.reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
    line, *rest = head.split("\r\n")
    headers = [(name, value) for name, _, value in (each.partition(": ") for each in rest)]
    heard = Heard(line, headers, b"")
    heard.body = await peer.reader.readexactly(int(heard.header("content-length") or 0))
    peer.requests.append(heard)


async def hears_the_head(peer: Peer) -> None:
    """Read a request's head and leave its body where it is."""
    await peer.reader.readuntil(b"\r\n\r\n")


def says(data: bytes) -> Step:
    async def step(peer: Peer) -> None:
        peer.writer.write(data)
        await peer.writer.drain()

    return step


def says_in(*pieces: bytes) -> Step:
    """Each piece in a read of its own, as far as a server can bring that about."""

    async def step(peer: Peer) -> None:
        for piece in pieces:
            peer.writer.write(piece)
            await peer.writer.drain()
            await asyncio.sleep(0)

    return step


def notes(peers: list[Peer]) -> Step:
    async def step(peer: Peer) -> None:
        peers.append(peer)

    return step


def sets(event: asyncio.Event) -> Step:
    async def step(peer: Peer) -> None:
        event.set()

    return step


def waits_for(event: asyncio.Event) -> Step:
    async def step(peer: Peer) -> None:
        await event.wait()

    return step


async def hangs_up(peer: Peer) -> None:
    peer.writer.close()


async def resets(peer: Peer) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.writer.transport.abort()


def closes_under_a_request(peer: Peer) -> None:
    """Close at once, with no turn of the event loop in which the client could see it before it sends."""
    with socket.socket(fileno=os.dup(peer.socket.fileno())) as own:
        own.shutdown(socket.SHUT_RDWR)


def speaks_under_a_request(peer: Peer, data: bytes) -> None:
    """Send at once, with no turn of the event loop in which the client could read it before it sends."""
    with socket.socket(fileno=os.dup(peer.socket.fileno())) as own:
        own.sendall(data)


async def sees_the_client_leave(peer: Peer) -> None:
    """Ends with the connection. What else the client may say is dropped."""
    try:
        while await peer.reader.read(65_536):
            pass
    except ConnectionError:
        pass
    peer.gone.set()


async def talks_until_the_client_leaves(peer: Peer, piece: bytes = b"and so on " * 1_000, rest_s: float = 0.0) -> None:
    """What is written to a closed transport is an error of uvloop's, where asyncio drops it."""
    try:
        while not peer.writer.is_closing():
            peer.writer.write(piece)
            await peer.writer.drain()
            await asyncio.sleep(rest_s)
    except ConnectionError:
        pass
    peer.gone.set()


@dataclass
class Server:
    """What the test knows of it. `gone` is set once a `sees_the_client_leave` has seen it."""

    scripts: list[tuple[Step, ...]]
    tls: ssl.SSLContext | None = None
    requests: list[Heard] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _playing: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._connected, host, 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await stop_listening(self._server)
        for task in self._playing:
            task.cancel()
        failures = await asyncio.gather(*self._playing, return_exceptions=True)
        # A script that broke is the test's own mistake, or tells what the client did wrong.
        assert [failure for failure in failures if isinstance(failure, Exception)] == []

    def upstream(self, name: str = "inducta", path: str = "/v1", **rest: Any) -> Upstream:
        scheme = "https" if self.tls else "http"
        return Upstream(**{"name": name, "base_url": f"{scheme}://localhost:{self.port}{path}"} | rest)

    async def sees_the_client_gone(self) -> None:
        """Wait until a `sees_the_client_leave` has: soon, since no timeout is as short as this."""
        async with asyncio.timeout(5):
            await self.gone.wait()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._server.is_serving():
            writer.transport.abort()  # It came in as the test ended.
            return
        script = self.scripts[self.connections] if self.connections < len(self.scripts) else ()
        self.connections += 1
        peer = Peer(reader, writer, self.requests, self.gone)
        self._playing.append(asyncio.create_task(self._follow(script, peer)))

    async def _follow(self, script: tuple[Step, ...], peer: Peer) -> None:
        try:
            for step in script:
                await step(peer)
            await asyncio.Event().wait()
        except asyncio.IncompleteReadError as left:
            # A client may leave before it has asked anything, but not in the middle of it.
            if left.partial:
                raise
            self.gone.set()
        finally:
            peer.writer.transport.abort()
