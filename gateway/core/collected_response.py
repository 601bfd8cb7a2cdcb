"""An answer that is not a stream, as far as it has been collected before the client gets any of it.

Until the client has a byte, another target can still be asked: where the answer breaks, or where its body says that the
provider failed. What is longer than `max_bytes` is held no further: the rest waits at the upstream until the answer is
passed on.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.refusals import Fault
from gateway.core.response import UpstreamResponse


class CollectedResponse(UpstreamResponse):
    """Gives what was collected first, then what the upstream still sends. `on_too_long` is called once more than
    `max_bytes` have come."""

    def __init__(self, response: UpstreamResponse, max_bytes: int, on_too_long: Callable[[], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self.sent_at = response.sent_at
        self.first_byte_at = response.first_byte_at
        self.is_whole = False
        """Whether `body` is all of it."""

        self.fault: Fault | None = None
        """Whose fault the failure is that the status reports; None for a status below 400."""

        self._response = response
        self._max_bytes = max_bytes
        self._on_too_long = on_too_long
        self._pieces: list[bytes] = []
        self._size = 0
        response.deliver_to(self._take)

    @property
    def body(self) -> bytes:
        """What has come so far."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    @property
    def is_too_long(self) -> bool:
        return self._size > self._max_bytes

    def deliver_to(self, into: Callable[[bytes], None]) -> None:
        for piece in self._pieces:
            into(piece)
        self._pieces.clear()
        self._response.deliver_to(into)

    async def finished(self) -> None:
        await self._response.finished()

    def pause(self) -> None:
        self._response.pause()

    def resume(self) -> None:
        self._response.resume()

    def abandon(self) -> None:
        self._response.abandon()

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self.is_too_long:
            self._response.pause()
            self._on_too_long()
