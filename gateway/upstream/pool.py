"""The connections to one upstream: the one used last is used first, and there are never too many.

A request that may not have one waits in line; the line and the connecting share the connect timeout.

Models share the connections of their upstream. One that hangs keeps each connection for minutes, and
would soon have them all; so a model may only take another while it holds less than HELD_PER_FREE times
what is free. This is the dynamic threshold by which switches share a packet buffer (Choudhury and Hahne,
1998): a single model gets three quarters of the connections, two get three sevenths each, and whoever
comes next finds some free. A model that holds no more than any other of its upstream may always take
one: what is kept free is kept for those that hold less, and for nobody where there is no such model.
From the line, who holds least is served first, then who has waited longest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Collection
from functools import cache, partial

from gateway.core.errors import UpstreamUnreachable
from gateway.core.snapshot import Upstream
from gateway.upstream.connect import CannotConnect, Connector, UpstreamOrigin
from gateway.upstream.connection import ClientOptions, Connection
from gateway.upstream.contract import FailureReason
from gateway.upstream.tls import client_context

HELD_PER_FREE = 3

Waiter = asyncio.Future[Connection | None]
"""Gets a connection, or leave to open one (None). Either is counted for its model already."""


class ConnectionShares:
    """How many connections each model holds, used or being opened, and who may take one more. `models` are
    all that the upstream serves; requests of the gateway's own count as a model without a name."""

    def __init__(self, total: int) -> None:
        self.models: Collection[str] = ()
        self.free = total
        self._held: Counter[str] = Counter()

    def held(self, model: str) -> int:
        return self._held[model]

    def may_take(self, model: str) -> bool:
        held = self._held[model]
        if not self.free or held < HELD_PER_FREE * self.free:
            return self.free > 0
        return all(held <= self._held[other] for other in self.models)

    def take(self, model: str) -> None:
        self.free -= 1
        self._held[model] += 1

    def give_back(self, model: str) -> None:
        self.free += 1
        self._held[model] -= 1
        if not self._held[model]:
            del self._held[model]


class Pool:
    """Owner of the connections to one upstream. `emptied` is called when the last of them is gone."""

    def __init__(
        self, upstream: Upstream, origin: UpstreamOrigin, options: ClientOptions, emptied: Callable[[], None]
    ) -> None:
        self.origin = origin
        self.shares = ConnectionShares(upstream.max_connections)
        self._upstream = upstream
        self._options = options
        # Files of its own are read for the first connection, and once.
        tls = cache(partial(client_context, upstream.tls)) if upstream.tls is not None else lambda: options.tls
        self._connector = Connector(origin, tls, options.tasks)
        self._emptied = emptied
        self._idle: deque[Connection] = deque()
        self._in_use: dict[Connection, str] = {}
        self._lines: dict[str, deque[Waiter]] = {}
        self._is_closed = False
        self._all_gone = asyncio.Event()

    def take_idle(self, model: str) -> Connection | None:
        """A connection for one exchange of this model, if one is idle and the model may have it."""
        if not self._idle or not self.shares.may_take(model):
            return None
        connection = self._pop_idle(model)
        if connection is not None:
            self.shares.take(model)
        return connection

    async def acquire(self, model: str, fresh: bool = False) -> Connection:
        """The same, waiting for one or opening a new one, which it is in any case if `fresh`. Raises
        UpstreamUnreachable."""
        if not fresh and (idle := self.take_idle(model)) is not None:
            return idle
        may_take = self.shares.may_take(model)
        if may_take:
            self.shares.take(model)
        timeout = self._upstream.timeouts.connect
        missing = f"had none of its {self._upstream.max_connections} connections free"
        failing = FailureReason("no_connection_free", f"{missing} for the model {model!r}" if model else missing)
        try:
            async with asyncio.timeout(timeout):
                given = None if may_take else await self._wait_in_line(model)
                if given is not None and not fresh:
                    return given
                failing = FailureReason("connect_timeout", "did not accept a connection")
                return await self._connect(model, instead_of=given)
        except TimeoutError:
            late = FailureReason(failing.outcome, f"{failing.text} within {timeout:g} s")
            raise late.error(self._upstream.name, UpstreamUnreachable) from None

    async def close(self) -> None:
        self._is_closed = True
        for connection in [*self._idle, *self._in_use]:
            connection.shut_down()
        if self._idle or self._in_use:
            await self._all_gone.wait()

    def released(self, connection: Connection) -> None:
        if not self._options.may_reuse(self._upstream.name):
            connection.abort()
            return
        self._idle.append(connection)
        self._give_back(self._in_use.pop(connection))

    def lost(self, connection: Connection) -> None:
        model = self._in_use.pop(connection, None)
        if model is None and connection not in self._idle:
            return  # It never came to be used, or was replaced: whoever did that has its place.
        if model is None:
            self._idle.remove(connection)
        if not self._idle and not self._in_use:
            self._all_gone.set()
        self._give_back(model)

    def unrequested_bytes(self) -> None:
        """No connection of such an upstream is used again: a second answer may be on its way there."""
        self._options.note_unrequested_bytes(self._upstream.name)
        for connection in self._idle:
            connection.abort()

    def _pop_idle(self, model: str) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.has_unread_bytes():
                connection.abort()
                self.unrequested_bytes()
            if not connection.closed:
                self._in_use[connection] = model
                return connection
        return None

    async def _wait_in_line(self, model: str) -> Connection | None:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._lines.setdefault(model, deque()).append(waiter)
        try:
            return await waiter
        except BaseException:
            self._leave_line(model, waiter)
            raise

    def _leave_line(self, model: str, waiter: Waiter) -> None:
        """Whoever gives up waiting passes on what it was given in the same moment."""
        if waiter.cancelled():
            line = self._lines.get(model, deque())
            with contextlib.suppress(ValueError):  # It may have been skipped and dropped already.
                line.remove(waiter)
            if not line:
                self._lines.pop(model, None)
        elif (given := waiter.result()) is None:
            self._give_back(model)
        elif not given.closed:
            self.released(given)

    def _give_back(self, model: str | None) -> None:
        """A model has one less (None: an idle connection has gone)."""
        if model is not None:
            self.shares.give_back(model)
        while (served := self._next_in_line()) is not None:
            model, waiter = served
            self.shares.take(model)
            waiter.set_result(self._pop_idle(model))
        if not self._idle and self.shares.free == self._upstream.max_connections:
            self._emptied()

    def _next_in_line(self) -> tuple[str, Waiter] | None:
        while eligible := [model for model in self._lines if self.shares.may_take(model)]:
            model = min(eligible, key=self.shares.held)
            line = self._lines.pop(model)
            waiter = line.popleft()
            if line:
                self._lines[model] = line  # Behind the others that hold as many.
            if not waiter.done():
                return model, waiter
        return None

    async def _connect(self, model: str, instead_of: Connection | None) -> Connection:
        if instead_of is not None:
            del self._in_use[instead_of]
            instead_of.abort()
        elif self._idle and len(self._idle) > self.shares.free:
            self._idle.popleft().abort()
        try:
            connection = await self._connector.connect(lambda: Connection(self._upstream.name, self, self._options))
            if self._is_closed:
                connection.abort()
            if connection.closed:
                raise CannotConnect("it closed the connection at once")
        except BaseException as error:
            self._give_back(model)
            if isinstance(error, CannotConnect):
                reason = FailureReason("not_reached", f"cannot be reached: {error}")
                raise reason.error(self._upstream.name, UpstreamUnreachable) from error
            raise
        self._in_use[connection] = model
        self._all_gone.clear()
        return connection
