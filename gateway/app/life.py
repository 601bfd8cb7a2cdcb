"""One life of a worker, as its supervisor sees it: from its start to its end."""

from __future__ import annotations

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Sequence

import msgspec

from gateway.app.asking import ask
from gateway.app.post import SERVING, Post
from gateway.web.passing import Asked, Reply


class Life:
    def __init__(
        self, post: Post, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.serves = False
        self._post = post
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, command: Sequence[str], post: Post) -> Life:
        """Start a process: the command, with its post as the last argument. Raises OSError."""
        ours, its = socket.socketpair()
        # A session of its own: Ctrl-C on a terminal reaches the supervisor alone, which passes it on as an order.
        process = await asyncio.create_subprocess_exec(
            *command, msgspec.json.encode(post).decode(), stdin=its.fileno(), start_new_session=True
        )
        its.close()
        return cls(post, process, *await asyncio.open_unix_connection(sock=ours))

    async def begun(self) -> bool:
        """Wait until it serves, or has ended without."""
        try:
            self.serves = await self._reader.readline() == SERVING
        except ConnectionError:
            self.serves = False
        return self.serves

    def order(self, word: bytes) -> None:
        """One of the orders of gateway.app.post; one that has ended hears nothing."""
        self._writer.write(word)

    async def ask(self, asked: Asked) -> Reply:
        """Raises NoReply."""
        return await ask(self._post.socket, asked)

    async def ended(self) -> int:
        """Wait for its end. Its exit status, negative for a signal's number."""
        status = await self._process.wait()
        self.serves = False
        self._writer.close()
        return status


def status_text(status: int) -> str:
    """What ended a process: `exit 1`, `SIGKILL`."""
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
