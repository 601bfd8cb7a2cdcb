"""Whose request may begin next, where more come than the event loop can begin at once.

A burst of one team must not delay another team's request by the time that the whole burst takes to be parsed and
admitted. So a few requests begin at once (`PER_TURN`, in a millisecond); what comes beyond waits in a line of its
team, and each turn of the event loop takes as many, one of each line in rotation. A turn so stays short, whatever
comes, and a team waits for one request of each other team at most, not for all of them.

To parse one large body takes as long as a hundred small requests, and nothing can interrupt it. So these begin one
at a time, by team in rotation too, and after each no other begins for three times as long as it took: a team that sends
nothing but large bodies has a quarter of the event loop.

Where no more come than may begin, no request waits and nothing is queued. A line has a bound; a request that finds it
full is refused with a time to retry after, rather than left to wait for an answer that comes too late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

from gateway.core.errors import Overloaded

PER_TURN = 16
"""Requests that begin in one millisecond, or from the lines in one turn: about 2 ms of work, in which no stream is
passed on."""

WAITING_MAX = 2_000
"""Requests of one team that may wait: what a process begins in about a second."""

LARGE_BYTES = 256 * 1024
"""A body of more takes about a millisecond to parse, or more."""

PAUSE_S_PER_BYTE = 3 * 2.5e-9
"""After a large body: three times what a plain one of this size takes (docs/performance.md)."""

RETRY_MS = 1_000


class StartQueue:
    """A request begins once `try_begin` has said so, or `wait` has returned; one with a large body is parsed once
    `wait_large` has returned, too."""

    def __init__(self, per_turn: int = PER_TURN, waiting_max: int = WAITING_MAX) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._millisecond = 0
        """The last one in which a request began, and how many more may begin in it."""
        self._waiting = _TeamLines(waiting_max)
        self._large = _TeamLines(waiting_max)
        self._large_from = 0.0
        """The monotonic second from which another large body may be parsed."""
        self._turn: asyncio.Handle | None = None
        self._pause: asyncio.TimerHandle | None = None

    def try_begin(self) -> bool:
        """Count a request that begins now, if it may. Whether it may."""
        if self._waiting:
            return False
        millisecond = int(monotonic() * 1000)
        if millisecond != self._millisecond:
            self._millisecond, self._left = millisecond, self._per_turn
        if not self._left:
            return False
        self._left -= 1
        return True

    async def wait(self, team: str) -> None:
        """Wait in the line of this team. Raises Overloaded where that is full."""
        turn = self._waiting.join(team)
        self._plan_turn()
        await turn

    async def wait_large(self, team: str, size: int) -> None:
        """Wait until a body of this size may be parsed. Raises Overloaded."""
        if self._large or monotonic() < self._large_from:
            turn = self._large.join(team)
            self._plan_pause()
            try:
                await turn
            except asyncio.CancelledError:
                self._plan_pause()  # It may have been its turn, which the next one takes.
                raise
        self._large_from = monotonic() + size * PAUSE_S_PER_BYTE
        if self._large:
            self._plan_pause()

    def _plan_turn(self) -> None:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        for _ in range(self._per_turn):
            if not self._waiting.release():
                return
        self._plan_turn()

    def _plan_pause(self) -> None:
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(self._large_from - monotonic(), self._next_large)

    def _next_large(self) -> None:
        self._pause = None
        self._large.release()


class _TeamLines:
    """Who waits: a line for each team, of which the first is served in rotation."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def join(self, team: str) -> asyncio.Future[None]:
        """What is done when its turn comes. Raises Overloaded."""
        line = self._lines.setdefault(team, deque())
        if len(line) >= self._most:
            raise Overloaded(
                f"The gateway is busy: {self._most:,} requests of this team wait already. Send fewer at once.",
                retry_after_ms=RETRY_MS,
            )
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        return turn

    def release(self) -> bool:
        """Let the next one pass. Whether there was one."""
        while self._lines:
            team = next(iter(self._lines))
            line = self._lines.pop(team)
            turn = line.popleft()
            if line:
                self._lines[team] = line  # Behind the other teams.
            if not turn.done():
                turn.set_result(None)
                return True
        return False
