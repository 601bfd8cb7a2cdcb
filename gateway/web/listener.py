"""The public and the admin listener's connections: how many there are, and how many of their requests begin at once.

Clients cannot use up what others need. A listener has a limited number of connections: for a new one the idle
connection that was used least recently is closed, or, if the oldest are all at work, the new one is refused.
In one turn of the event loop a few requests begin; those beyond wait (runtime/turn_queue.py), and a request that was
sent ahead of an answer waits in another line than one of a client that waits for its answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import NamedTuple

from aiohttp import web

from gateway.runtime.timer_sweep import TimerSweep
from gateway.runtime.turn import Turn
from gateway.runtime.turn_queue import TurnQueue
from gateway.web.client_request import ClientRequest
from gateway.web.http_connection import Handler, HttpConnection

_LAST_WRITE_S = 5.0
"""How long clients may take, when everything closes, to read what was written for them already."""

BEGUN_PER_TURN = 24
"""Requests, whatever they ask for: twice as many as of all teams begin behind it (runtime/start_queue.py), so that a
request soon waits in the line of its team. To refuse as many takes 4 ms."""

_LOOKED_AT = 100
"""Connections, of those used least recently, of which one is sought that is idle: a full listener stays quick."""


class ClientLimits(NamedTuple):
    """`connections` at any time; `stalled_s` is how long a client may take nothing of what was written for it, as nginx
    has it (`send_timeout`); `idle_s` is how long a connection stays without a whole head, from its
    beginning or its last answer on (`keepalive_timeout`)."""

    connections: int
    stalled_s: float = 60.0
    idle_s: float = 75.0


ADMIN_CLIENTS = ClientLimits(connections=256)
"""Of the admin listener: apart from those of clients, so that a flood of these leaves operators and probes in."""


class Listener(web.Server):
    """Makes a HttpConnection for each connection; a client that leaves cancels its request. `refused` counts the
    connections that were turned away, and idle ones that were closed for others."""

    def __init__(self, handler: Handler, new_id: Callable[[], str], limits: ClientLimits, turn: Turn) -> None:
        # aiohttp's connection would call the handler; ours does it itself.
        super().__init__(handler, handler_cancellation=True)  # type: ignore[arg-type]
        self.limits = limits
        self.refused = 0
        self._handler = handler
        self._new_id = new_id
        self._begins = TurnQueue(BEGUN_PER_TURN)
        self._timers = TimerSweep()
        self._turn = turn
        self._open: dict[HttpConnection, None] = {}
        """By their last request, or their beginning: the least recent first."""
        self._empty = asyncio.Event()

    def __call__(self) -> HttpConnection:
        limits = self.limits
        return HttpConnection(
            self,
            self._may_begin,
            self._handler,
            self._new_id,
            self._timers,
            self._turn,
            idle_s=limits.idle_s,
            stalled_s=limits.stalled_s,
        )

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def _may_begin(self, request: ClientRequest) -> bool:
        connection = request.connection
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None
        if request.fault is not None or self._begins.try_begin():
            return True
        self._begins.begin_later(f"{connection.remote} {connection.has_more}", partial(connection.begin, request))
        return False

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, HttpConnection), "this listener makes no other"
        if len(self._open) >= self.limits.connections:
            self.refused += 1
            if not self._close_idle():
                handler.turn_away()
                return
        self._open[handler] = None

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open.pop(handler, None)  # type: ignore[call-overload]  # This listener makes no other.
        if not self._open:
            self._empty.set()

    def _close_idle(self) -> bool:
        for connection in islice(self._open, _LOOKED_AT):
            if connection.is_idle:
                connection.give_way()
                del self._open[connection]
                return True
        return False

    async def close(self) -> None:
        """Close idle connections at once, the others with what is still to be sent on them."""
        self.pre_shutdown()
        while self._begins.has_waiting:
            await self._begins.wait("")  # What was received has an answer, if only that the gateway stops.
        await self.shutdown(timeout=1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_S):
                while self._open:
                    self._empty.clear()
                    await self._empty.wait()
