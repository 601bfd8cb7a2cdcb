"""The rest of a request, where only its beginning was at hand: sent as its source gives it and the upstream takes it.

An answer that begins before all is sent ends the sending: the upstream wants no more (RFC 9112, 9.5).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.core.request import BodyTail
from gateway.upstream.contract import Outgoing
from gateway.upstream.incoming import Incoming

_LAST_CHUNK = b"0\r\n\r\n"


class Outlet(Protocol):
    """The connection, as an upload sees it."""

    @property
    def congested(self) -> bool:
        """Whether the upstream has not taken all of what was put; `Upload.relieved` is called when it has."""
        ...

    def put(self, data: bytes) -> None: ...

    def lull(self) -> None:
        """There is nothing to put: it is the source that is waited for."""
        ...

    def sent(self) -> None:
        """All was put and taken: the answer is waited for."""
        ...


class Upload:
    """`over` says that the request is sent to its end."""

    def __init__(self, rest: BodyTail, outlet: Outlet) -> None:
        self.over = False
        self._rest = rest
        self._outlet = outlet
        self._room: asyncio.Future[None] | None = None

    async def go_on_until(self, answer: Incoming) -> None:
        """Send until the answer begins. Raises what its `begun` raises, and what the source raises."""

        def told(sending: asyncio.Task[None]) -> None:
            error = None if sending.cancelled() else sending.exception()
            if isinstance(error, Exception) and not answer.first_byte_at:
                answer.failed(error)

        sending = asyncio.get_running_loop().create_task(self._send())
        sending.add_done_callback(told)
        try:
            await answer.begun()
        finally:
            sending.cancel()

    def relieved(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _send(self) -> None:
        is_chunked = self._rest.length is None
        await self._taken()
        while piece := await self._rest.piece():
            self._outlet.put(_chunk(piece) if is_chunked else piece)
            await self._taken()
        if is_chunked:
            self._outlet.put(_LAST_CHUNK)
            await self._taken()
        self.over = True
        self._outlet.sent()

    async def _taken(self) -> None:
        """Wait until the upstream has taken what was put."""
        if self._outlet.congested:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._outlet.lull()


def beginning(outgoing: Outgoing) -> bytes:
    """The body as far as it is at hand, in the framing in which the rest follows."""
    is_chunked = outgoing.rest is not None and outgoing.rest.length is None
    return _chunk(outgoing.body) if is_chunked and outgoing.body else outgoing.body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
