"""Writes together, at the end of a turn of the event loop, what was to be written in it.

To write to a socket wakes the process that reads it, unless that is awake. Where much is written in a turn, each time
after a while of computing, the reader has gone to sleep again each time: a quarter of the processor time of an event of
a stream was that. Written together, the first one wakes it for those that follow, and what is to be written twice to
one socket goes there in one piece.

Only what comes in a turn with more waits. A turn's first is written at once, since most turns have no other.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

_LONG_BYTES = 65_536
"""What is longer is not held: to send it takes longer than to wake its reader."""


class Written(Protocol):
    """A connection."""

    def write_now(self, data: bytes) -> None:
        """Give it to the socket. Nothing is done where the connection has ended. Never raises."""
        ...


class TurnWrites:
    """One for many connections of one event loop. What is written to one of them keeps its order; what is written to
    its socket besides has to come behind what `take` gives."""

    def __init__(self) -> None:
        self._held: dict[Written, bytes] = {}
        self._end: asyncio.Handle | None = None
        """The end of the turn, where it has begun: where anything was written or is held."""

    def write(self, connection: Written, data: bytes) -> None:
        """Write at once what is the first of this turn, or long, else at its end."""
        if self._end is None:
            self._end = asyncio.get_running_loop().call_soon(self._write)
            connection.write_now(data)
        elif len(data) > _LONG_BYTES:
            connection.write_now(self.take(connection) + data)
        else:
            self.hold(connection, data)

    def hold(self, connection: Written, data: bytes) -> None:
        """Write at the end of this turn. For what came from a socket and so is followed by what others have sent: the
        end of the turn is next then, where a task would wait for what comes in a further one."""
        held = self._held
        held[connection] = held[connection] + data if connection in held else data
        if self._end is None:
            self._end = asyncio.get_running_loop().call_soon(self._write)

    def take(self, connection: Written) -> bytes:
        """What is held for a connection, to be written now or dropped."""
        return self._held.pop(connection, b"")

    def _write(self) -> None:
        self._end = None
        held = self._held
        if held:
            self._held = {}
            for connection, data in held.items():
                connection.write_now(data)
