"""Whose request may begin next, where more come than the event loop can begin at once.

A burst of one team must not delay another team's request by the time that the whole burst takes to be admitted. So a
few requests begin in each turn of the event loop (`PER_TURN`); what comes beyond waits in a line of its team
(runtime/turn_queue.py), and a team waits for one request of each other team at most. Short bodies that have come are
parsed before, as many in a turn as the listener lets in: what is refused then does not wait.

To parse one large body takes as long as a hundred small requests, and nothing can interrupt it. So these begin one
at a time, by team in rotation too, and after each no other begins for three times as long as it took: a team that sends
nothing but large bodies has a quarter of the event loop.

A line has a bound; a request that finds it full is refused with a time to retry after, rather than left to wait for an
answer that comes too late.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from gateway.core.errors import Overloaded
from gateway.runtime.turn_queue import LineFull, TurnQueue, WaitingLines

PER_TURN = 12
"""Requests that begin in one turn: to begin and to end as many takes about 3 ms, in which no stream is passed on. With
eight, of 64 callers most wait in line, which takes a seventh more of the processor's time for an answer."""

WAITING_MAX = 2_000
"""Requests of one team that may wait: what a process begins in about a second."""

LARGE_BYTES = 256 * 1024
"""A body of more takes about a millisecond to parse, or more."""

PAUSE_S_PER_BYTE = 3 * 2.5e-9
"""After a large body: three times what it takes to parse a plain one of this size."""

RETRY_MS = 1_000


class StartQueue(TurnQueue):
    """The lines are those of teams. A request with a large body is parsed once `wait_large` has returned, too."""

    def __init__(self, per_turn: int = PER_TURN, waiting_max: int = WAITING_MAX) -> None:
        super().__init__(per_turn, waiting_max)
        self._waiting_max = waiting_max
        self._large = WaitingLines(waiting_max)
        self._large_from = 0.0
        """The monotonic second from which another large body may be parsed."""
        self._pause: asyncio.TimerHandle | None = None

    async def wait(self, line: str) -> None:
        """Raises Overloaded where the line of this team is full."""
        try:
            await super().wait(line)
        except LineFull:
            raise self._overloaded() from None

    async def wait_large(self, team: str, size: int) -> None:
        """Wait until a body of this size may be parsed. Raises Overloaded."""
        if self._large.lines or monotonic() < self._large_from:
            try:
                turn = self._large.join(team)
            except LineFull:
                raise self._overloaded() from None
            self._plan_pause()
            try:
                await turn
            except asyncio.CancelledError:
                self._plan_pause()  # It may have been its turn, which the next one takes.
                raise
        self._large_from = monotonic() + size * PAUSE_S_PER_BYTE
        if self._large.lines:
            self._plan_pause()

    def _plan_pause(self) -> None:
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(self._large_from - monotonic(), self._next_large)

    def _next_large(self) -> None:
        self._pause = None
        self._large.release()

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"The gateway is busy: {self._waiting_max:,} requests of this team wait already. Send fewer at once.",
            retry_after_ms=RETRY_MS,
        )
