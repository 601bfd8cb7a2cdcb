"""The connections to one upstream: the last used is the first used again, and there are never too many.

Whoever finds none free waits in line; the line and the dialling share the connect timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from gateway.core.errors import UpstreamUnreachable
from gateway.core.snapshot import Upstream
from gateway.upstream.complaint import Complaint
from gateway.upstream.connection import Connection
from gateway.upstream.dial import CannotConnect, Dialler
from gateway.upstream.fittings import Fittings
from gateway.upstream.origin import Origin


class Pool:
    """Keeper of the connections to one upstream. `deserted` is called when the last of them is gone."""

    def __init__(self, upstream: Upstream, fittings: Fittings, deserted: Callable[[], None]) -> None:
        self.origin = Origin(upstream)
        self._upstream = upstream
        self._fittings = fittings
        self._dialler = Dialler(self.origin, fittings)
        self._deserted = deserted
        self._connections: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        self._slots_taken = 0
        self._is_closed = False
        self._all_gone = asyncio.Event()

    async def acquire(self, fresh: bool = False) -> Connection:
        """A connection for one exchange, a new one if `fresh`. Raises UpstreamUnreachable."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        timeout = self._upstream.timeouts.connect
        failing = Complaint("no_connection_free", f"had none of its {self._upstream.max_connections} connections free")
        try:
            async with asyncio.timeout(timeout):
                given = await self._slot()
                if given is not None:
                    return given
                failing = Complaint("connect_timeout", "did not accept a connection")
                return await self._dial()
        except TimeoutError:
            late = Complaint(failing.outcome, f"{failing.text} within {timeout:g} s")
            raise late.about(self._upstream.name, UpstreamUnreachable) from None

    async def close(self) -> None:
        self._is_closed = True
        for connection in list(self._connections):
            connection.dismiss()
        if self._connections:
            await self._all_gone.wait()

    # The connections' side.

    def freed(self, connection: Connection) -> None:
        waiter = self._next_in_line()
        if waiter is not None:
            waiter.set_result(connection)
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        if connection not in self._connections:
            return  # It never came to be used: whoever dialled it gives the slot back.
        self._connections.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._give_slot_back()
        if not self._connections:
            self._all_gone.set()

    # Within.

    async def _slot(self) -> Connection | None:
        """Leave to open a connection (None), or one that became free meanwhile."""
        if self._slots_taken < self._upstream.max_connections:
            self._slots_taken += 1
            return None
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._line.append(waiter)
        try:
            return await waiter
        except BaseException:
            self._leave_line(waiter)
            raise

    def _leave_line(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Whoever gives up waiting passes on what it was given in the same moment."""
        if waiter.cancelled():
            with contextlib.suppress(ValueError):  # It may have been skipped and dropped already.
                self._line.remove(waiter)
        elif (given := waiter.result()) is None:
            self._give_slot_back()
        elif not given.closed:
            self.freed(given)

    def _next_in_line(self) -> asyncio.Future[Connection | None] | None:
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                return waiter
        return None

    def _give_slot_back(self) -> None:
        waiter = self._next_in_line()
        if waiter is not None:
            waiter.set_result(None)
            return
        self._slots_taken -= 1
        if not self._slots_taken:
            self._deserted()

    async def _dial(self) -> Connection:
        try:
            connection = await self._dialler.dial(lambda: Connection(self._upstream.name, self, self._fittings))
            if self._is_closed:
                connection.abort()
            if connection.closed:
                raise CannotConnect("it closed the connection at once")
        except BaseException as error:
            self._give_slot_back()
            if isinstance(error, CannotConnect):
                complaint = Complaint("not_reached", f"cannot be reached: {error}")
                raise complaint.about(self._upstream.name, UpstreamUnreachable) from error
            raise
        self._connections.add(connection)
        self._all_gone.clear()
        return connection
