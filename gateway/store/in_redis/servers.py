"""Which server keeps a key: the only one there is, or the node of a cluster that has its slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, ResponseError

from gateway.core.store_url import Node
from gateway.store.in_redis.address import Address
from gateway.store.in_redis.line import Command, Line, LineDown


class ServerClock:
    """One server's time as this process knows it: its own monotonic clock, set by each reply.

    It only says at what time to ask: every decision is made by the server, by its own clock."""

    def __init__(self) -> None:
        self.last_ms = round(time.time() * 1000)
        """The latest time that the server gave."""
        self._ahead_ms = self.last_ms - time.monotonic() * 1000

    @staticmethod
    def moment() -> float:
        """Now, for `learn`."""
        return time.monotonic()

    def now_ms(self) -> int:
        return round(time.monotonic() * 1000 + self._ahead_ms)

    def learn(self, now_ms: int, asked_at: float | None = None) -> None:
        """The server gave this time in reply to a call of the moment `asked_at`, or just now.

        The reply may have waited for a busy event loop to read it. So the server's clock showed `now_ms` at some
        moment since `asked_at`, and what is believed of it changes only where it cannot be true.
        """
        self.last_ms = now_ms
        read_at = time.monotonic()
        least, most = now_ms - read_at * 1000, now_ms - (read_at if asked_at is None else asked_at) * 1000
        self._ahead_ms = min(max(self._ahead_ms, least), most)


class Servers(Protocol):
    by_slot: bool
    """Whether one call may only speak of keys of one slot."""

    async def line_of(self, key: str) -> Line:
        """Raises LineDown where nobody is known to keep it."""
        ...

    def clock_of(self, key: str) -> ServerClock:
        """Of the server that keeps it, as far as that is known."""
        ...

    def moved(self, error: ResponseError) -> Line:
        """The server that another one points to. Raises ResponseError where it points nowhere."""
        ...

    def trouble(self) -> str | None:
        """Why the store counts as out, None while it answers."""
        ...

    async def close(self) -> None: ...


class OneServer:
    by_slot = False

    def __init__(self, address: Address, timeout_s: float, greeting: Sequence[Command]) -> None:
        self._line = Line(address.dial_master(), timeout_s, greeting)
        self._clock = ServerClock()

    async def line_of(self, key: str) -> Line:
        return self._line

    def clock_of(self, key: str) -> ServerClock:
        return self._clock

    def moved(self, error: ResponseError) -> Line:
        raise ResponseError("it is a node of a cluster; store.url must begin with redis+cluster://")

    def trouble(self) -> str | None:
        return self._line.trouble

    async def close(self) -> None:
        await self._line.close()


class Cluster:
    """The map of slots is asked of any node, and asked again when a node points elsewhere or is lost."""

    by_slot = True

    def __init__(self, address: Address, timeout_s: float, greeting: Sequence[Command]) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._greeting = greeting
        self._lines: dict[Node, Line] = {}
        self._clocks: dict[Node | None, ServerClock] = {}
        self._owners: list[Node | None] = []
        self._asking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def line_of(self, key: str) -> Line:
        slot = key_slot(key.encode())
        if not self._owners:
            await self._survey()
        owner = self._owners[slot]
        if owner is None:
            raise LineDown(f"has no node for slot {slot}")
        line = self._line(owner)
        if line.trouble is not None:
            self._survey_soon()
        return line

    def clock_of(self, key: str) -> ServerClock:
        owner = self._owners[key_slot(key.encode())] if self._owners else None
        clock = self._clocks.get(owner)
        if clock is None:
            clock = self._clocks[owner] = ServerClock()
        return clock

    def moved(self, error: ResponseError) -> Line:
        if not isinstance(error, AskError):
            raise error
        node = (error.host or "", error.port)
        if isinstance(error, MovedError):
            if self._owners:
                self._owners[error.slot_id] = node
            self._survey_soon()
        return self._line(node)

    def trouble(self) -> str | None:
        owners = [self._line(node).trouble for node in {owner for owner in self._owners if owner}]
        return next((trouble for trouble in owners if trouble), None)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        for line in self._lines.values():
            await line.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _line(self, node: Node) -> Line:
        line = self._lines.get(node)
        if line is None:
            line = self._lines[node] = Line(self._address.dial(node), self._timeout_s, self._greeting)
        return line

    def _survey_soon(self) -> None:
        """Draw the map anew beside the calls, one at a time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._resurvey())

    async def _resurvey(self) -> None:
        try:
            await self._survey()
        except LineDown:
            return

    async def _survey(self) -> None:
        """Ask the nodes, those that answer first, whose slots are whose. Raises LineDown where none tells."""
        nodes = list(dict.fromkeys((*self._lines, *self._address.nodes)))
        nodes.sort(key=lambda node: self._line(node).trouble is not None)
        for node in nodes:
            try:
                told = await self._line(node).call(("CLUSTER", "SLOTS"))
            except LineDown:
                continue
            self._draw(told, node)
            return
        raise LineDown("has no node that answers")

    def _draw(self, told: Any, by: Node) -> None:
        owners: list[Node | None] = [None] * 16384
        for first, last, master, *_ in told:
            node = (master[0].decode() or by[0], int(master[1]))
            owners[first : last + 1] = [node] * (last - first + 1)
        self._owners = owners
        for gone in set(self._lines) - set(owners):
            self._clocks.pop(gone, None)
            task = asyncio.get_running_loop().create_task(self._lines.pop(gone).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
