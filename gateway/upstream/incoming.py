"""One answer on its way in: what the connection pushes on one side, what the relay sees on the other.

While it flows, a piece goes straight from the parser to the reader. Otherwise pieces wait in the
buffer, and past HELD_BYTES the connection is told to hold. The end comes after the last piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

from gateway.core.errors import UpstreamBroke, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.complaint import Complaint
from gateway.upstream.decoding import Buffer, Plain, Undecodable, buffer_for

HELD_BYTES = 65_536
"""What may wait for `deliver_to` before the upstream's socket is left unread."""

_ABANDONED = Complaint("abandoned", "was abandoned before the end of its answer")


class Source(Protocol):
    """The connection, as an answer sees it while it is still being received."""

    def hold(self) -> None:
        """Take no more from the socket."""
        ...

    def flow(self) -> None: ...

    def abort(self) -> None: ...


class Incoming:
    """Implements `contract.UpstreamResponse`. The connection calls `head`, `arrived`, then `whole` or `failed`."""

    def __init__(self, upstream_name: str, source: Source) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self._name = upstream_name
        self._source: Source | None = source
        self._buffer: Buffer = Plain()
        self._sink: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._direct = self._paused = self._received = self._over = False

    # The connection's side.

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        encoding = headers.get("content-encoding", "").strip().lower()
        buffer = buffer_for(encoding)
        if buffer is not None:
            self._buffer = buffer
        if buffer is not None and encoding:
            headers.pop("content-encoding")
            headers.pop("content-length", None)

    def arrived(self, piece: bytes) -> None:
        if self._direct:
            self._sink(piece)  # type: ignore[misc]  # `_direct` implies a sink
            return
        if not self.first_byte_at:
            self._begin()
        self._buffer.put(piece)
        self._deliver()

    def whole(self) -> None:
        """The message has ended as its framing says. The connection serves others from here on."""
        if not self.first_byte_at:
            self._begin()
        self._source = None
        self._received = True
        self._deliver()

    def broke(self, complaint: Complaint) -> None:
        """The message cannot end well."""
        kind = UpstreamBroke if self.first_byte_at else UpstreamUnreachable
        self.failed(complaint.about(self._name, kind))

    def timed_out(self, complaint: Complaint) -> None:
        # Whoever rests holds pieces back; they must not hold back the end of the time, too.
        self._buffer = Plain()
        self.failed(complaint.about(self._name, UpstreamTimedOut))

    def failed(self, failure: Exception) -> None:
        self._source = None
        self._received = True
        self._failure = self._failure or failure
        self._deliver()

    async def begun(self) -> None:
        """Wait for the first byte or the end. Raises what the connection said went wrong before."""
        if not self.first_byte_at and self._failure is None:
            await self._woken()
        if not self.first_byte_at and self._failure is not None:
            raise self._failure

    # The reader's side.

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        self._sink = into
        self._deliver()

    async def finished(self) -> None:
        if not self._over:
            await self._woken()
        if self._failure is not None:
            raise self._failure

    def pause(self) -> None:
        self._paused = True
        self._direct = False
        if self._source is not None:
            self._source.hold()

    def resume(self) -> None:
        self._paused = False
        self._deliver()

    def abandon(self) -> None:
        source, self._sink = self._source, None
        self._direct = False
        if self._over:
            return
        self._buffer = Plain()
        self.failed(_ABANDONED.about(self._name, UpstreamBroke))
        if source is not None:
            source.abort()

    # Within.

    def _begin(self) -> None:
        self.first_byte_at = monotonic()
        self._wake()

    def _deliver(self) -> None:
        """Hand over what is held, as far as it is wanted, and see whether that was all."""
        try:
            while self._sink is not None and not self._paused and (piece := self._buffer.get()):
                self._sink(piece)
            if self._received and not self._buffer.size:
                self._end()
        except Undecodable as error:
            self._spoil(str(error))
        self._direct = self._sink is not None and not self._paused and type(self._buffer) is Plain
        if self._source is not None:
            if self._paused or self._buffer.size > HELD_BYTES:
                self._source.hold()
            else:
                self._source.flow()

    def _end(self) -> None:
        if self._failure is None:
            self._buffer.check_whole()
        self._over = True
        self._wake()

    def _spoil(self, what: str) -> None:
        source, self._buffer = self._source, Plain()
        self.broke(Complaint("malformed", f"sent an answer that cannot be decoded: {what}"))
        if source is not None:
            source.abort()

    async def _woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
