"""A turn of the event loop: what was to be written in it is written together, at its end.

To write to a socket wakes the process that reads it, unless that is awake. Where much is written in a turn, each time
after a while of computing, the reader has gone to sleep again each time: a quarter of the processor time of an event of
a stream was that. Written together, the first one wakes it for those that follow, and what is to be written twice to
one socket goes there in one piece.

What is first in a turn is written at once, since most turns have no other; what came from a socket waits all the same,
since the end of the turn is next then. A turn that has much is written in portions.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

PASSED_BYTES = 32_768
"""What of streams is passed on at once in a turn: some 150 single events, or two full reads, which take less time."""

_LONG_BYTES = 65_536
"""What is longer is not held: to send it takes longer than to wake its reader. Of one connection no more is held, so
that it tells soon that its client does not read."""

_MOST = 128
"""For how many connections something is held. libuv goes on with sockets that have become readable meanwhile, 48 times,
as long as each look finds 1024 of them: a turn can have fifty thousand events, and take seconds."""


class Written(Protocol):
    """A connection."""

    held: bytes
    """The turn's: what it holds for this connection. Here, since who writes has the connection, and would have to look
    it up in a table."""

    def write_now(self, data: bytes) -> None:
        """Give it to the socket. Nothing is done where the connection has ended."""
        ...


class Turn:
    """One for all connections of an event loop, in which it is made. What is written to one of them keeps its order;
    what is written to its socket besides has to come behind what `take` gives."""

    def __init__(self) -> None:
        self._call_soon = asyncio.get_running_loop().call_soon
        self._holding: list[Written] = []
        """For which something was held in this turn, in order."""
        self.left = PASSED_BYTES
        """How many bytes of streams may still be passed on in this turn. Who passes a piece on takes them off; where
        none are left, a piece waits (relay_queue.py), and has the next share. Else there is one in each turn."""
        self._end: asyncio.Handle | None = None
        """The end of the turn, where it has begun: where anything was written or is held."""

    def write(self, connection: Written, data: bytes) -> None:
        """Write at once what is the first of this turn, or long, else at its end."""
        if self._end is None:
            self._end = self._call_soon(self._end_turn)
            connection.write_now(data)
        elif len(data) > _LONG_BYTES:
            connection.write_now(self.take(connection) + data)
        else:
            self.hold(connection, data)

    def hold(self, connection: Written, data: bytes) -> None:
        """Write at the end of this turn. For what came from a socket and so is followed by what others have sent: the
        end of the turn is next then, where a task would wait for what comes in a further one."""
        if connection.held:
            data = connection.held + data
            if len(data) > _LONG_BYTES:
                connection.held = b""
                connection.write_now(data)
            else:
                connection.held = data
            return
        connection.held = data
        holding = self._holding
        holding.append(connection)
        if self._end is None:
            self._end = self._call_soon(self._end_turn)
        elif len(holding) >= _MOST:
            self._write()

    def take(self, connection: Written) -> bytes:
        """What is held for a connection, to be written now or dropped."""
        held, connection.held = connection.held, b""
        return held

    def _end_turn(self) -> None:
        self._end = None
        if self.left > 0:
            self.left = PASSED_BYTES
        if self._holding:
            self._write()

    def _write(self) -> None:
        # What is held from here on, as by a source that goes on, is of a connection that has what is held now.
        holding, self._holding = self._holding, []
        left = iter(holding)
        try:
            for connection in left:
                data = connection.held
                if data:  # Else it was taken.
                    connection.held = b""
                    connection.write_now(data)
        finally:
            rest = [*left]
            if rest:  # One has raised, which must cost the others nothing.
                self._holding = rest + self._holding
                if self._end is None:
                    self._end = self._call_soon(self._end_turn)
