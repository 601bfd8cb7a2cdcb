"""Disconnects a client that for a while reads nothing of what was written for it, whether its answer is complete or
not: else it could keep a connection, and what is still to be sent, for as long as it likes."""

from __future__ import annotations

import asyncio


class SlowClient:
    """A client that is behind with what was written for it, watched from now until `end`: it must take some of that in
    each period of `stalled_s` seconds."""

    __slots__ = ("_loop", "_stalled_s", "_timer", "_transport", "_unread")

    def __init__(self, transport: asyncio.Transport, stalled_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._stalled_s = stalled_s
        self._expect_progress()

    def end(self) -> None:
        """It has caught up, or is gone."""
        self._timer.cancel()

    def _expect_progress(self) -> None:
        self._unread = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._stalled_s, self._check_progress)

    def _check_progress(self) -> None:
        # While the client is behind, its source is paused and nothing is added.
        if self._transport.get_write_buffer_size() >= self._unread:
            self._transport.abort()
        else:
            self._expect_progress()
