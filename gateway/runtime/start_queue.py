"""Whose request may begin next, where more come than the event loop can begin at once.

A burst of one team must not delay another team's request by the time that the whole burst takes to be parsed and
admitted. So in each turn of the event loop a few requests begin (`PER_TURN`); what comes beyond waits in a line of
its team, and each turn takes one of each line in rotation. A turn so stays short, whatever comes, and a team waits
for one request of each other team at most, not for all of them.

Where no more come than may begin, nobody waits and nothing is queued. A line has a bound; who finds it full is told
to come again, rather than to wait for an answer that comes too late.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.core.errors import Overloaded

PER_TURN = 16
"""Requests that begin in one turn: about 2 ms of work, in which no stream is passed on."""

WAITING_MAX = 2_000
"""Requests of one team that may wait: what a process begins in about a second."""

RETRY_MS = 1_000


class StartQueue:
    """A request begins once `try_begin` has said so, or `wait` has returned."""

    def __init__(self, per_turn: int = PER_TURN, waiting_max: int = WAITING_MAX) -> None:
        self._per_turn = per_turn
        self._waiting_max = waiting_max
        self._left = per_turn
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._turns = False
        """Whether the next turn is to be counted."""

    def try_begin(self) -> bool:
        """Count a request that begins now, if it may. Whether it may."""
        if not self._left or self._lines:
            return False
        self._left -= 1
        self._count_turns()
        return True

    async def wait(self, team: str) -> None:
        """Wait in the line of this team. Raises Overloaded where that is full."""
        line = self._lines.setdefault(team, deque())
        if len(line) >= self._waiting_max:
            raise Overloaded(
                f"The gateway is busy: {self._waiting_max:,} requests of this team wait already. Send fewer at once.",
                retry_after_ms=RETRY_MS,
            )
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        self._count_turns()
        await turn

    def _count_turns(self) -> None:
        if not self._turns:
            self._turns = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turns, self._left = False, self._per_turn
        while self._left and self._lines:
            team = next(iter(self._lines))
            line = self._lines.pop(team)
            turn = line.popleft()
            if line:
                self._lines[team] = line  # Behind the other teams.
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        if self._left < self._per_turn:
            self._count_turns()
