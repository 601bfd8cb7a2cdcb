"""Sends the rest of a request whose beginning was sent with the head: as the source gives it and the upstream takes it.

A response that begins before all is sent ends the sending: the upstream does not want the rest (RFC 9112, 9.5).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.request import BodyTail
from gateway.runtime.tasks import BackgroundTasks
from gateway.upstream.response_stream import ResponseStream

if TYPE_CHECKING:  # A connection makes its upload, which writes through it in turn.
    from gateway.upstream.connection import Connection

_LAST_CHUNK = b"0\r\n\r\n"


class Upload:
    """`over` says that the request is sent to its end."""

    def __init__(self, rest: BodyTail, connection: Connection, tasks: BackgroundTasks) -> None:
        self.over = False
        self._sent_bytes = 0
        self._rest = rest
        self._connection = connection
        self._tasks = tasks
        self._room: asyncio.Future[None] | None = None
        self._sending: asyncio.Task[None] | None = None

    def start(self, response: ResponseStream) -> None:
        """Send until `stop`. The response fails with what the source raises."""
        self._sending = self._tasks.start("upload", self._send_for(response))

    def stop(self) -> None:
        """The response has begun, or is not waited for any more."""
        if self._sending is not None:
            self._sending.cancel()

    def writable(self) -> None:
        """The upstream has taken all that was written."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _send_for(self, response: ResponseStream) -> None:
        try:
            await self._send()
        except Exception as error:  # noqa: BLE001 # Whatever it is, it ends the request, and who waits for that raises it.
            if not response.first_byte_at:
                response.fail_with(error)

    async def _send(self) -> None:
        is_chunked = self._rest.length is None
        await self._written()
        while piece := await self._rest.piece():
            self._sent_bytes += len(piece)
            self._connection.write_now(_chunk(piece) if is_chunked else piece)
            await self._written()
        if is_chunked:
            self._connection.write_now(_LAST_CHUNK)
            await self._written()
        self.over = True
        self._connection.flushed()

    async def _written(self) -> None:
        """Wait until the upstream has taken what was written."""
        if self._connection.congested:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._connection.waiting_for_client(self._sent_bytes)


def beginning(body: bytes, rest: BodyTail) -> bytes:
    """The body as far as it is available, in the framing in which the rest follows."""
    return _chunk(body) if body and rest.length is None else body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
