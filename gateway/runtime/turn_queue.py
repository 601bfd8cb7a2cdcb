"""Bounds what begins in one turn of the event loop, where more comes than the loop can begin at once.

A request needs several turns, and an event of a stream waits for the next one. So a turn must stay short whatever
comes: a fixed number begins in it, and what comes beyond waits in the line of its owner. Each turn takes as many from
the lines, one of each in rotation, so that an owner waits for one of each other owner at most, not for all of theirs.

Turns are counted, not milliseconds: on a busy machine a millisecond can pass in which this process did nothing.

Where no more come than may begin, nothing waits and nothing is queued.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque


class LineFull(Exception):
    """As many wait in this line as may."""


class TurnQueue:
    """What `try_begin` has let through, or `wait` has returned for, begins in this turn of the event loop, which is the
    one in which the queue is made."""

    def __init__(self, per_turn: int, waiting_max: int = sys.maxsize) -> None:
        """`waiting_max` is of one line."""
        self._call_soon = asyncio.get_running_loop().call_soon
        self._per_turn = per_turn
        self._left = per_turn
        """How many more may begin before the next turn: none where some wait."""
        self._waiting = WaitingLines(waiting_max)
        self._turn: asyncio.Handle | None = None

    def try_begin(self) -> bool:
        """Count one that begins now, if it may. Whether it may."""
        if not self._left:
            return False
        self._left -= 1
        if self._turn is None:
            self._plan_turn()
        return True

    async def wait(self, line: str) -> None:
        """Wait in this line. Raises LineFull."""
        turn = self._waiting.join(line)
        self._left = 0  # What comes later does not begin before what waits.
        if self._turn is None:
            self._plan_turn()
        await turn

    def _plan_turn(self) -> None:
        self._turn = self._call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._left = self._per_turn
        while self._left and self._waiting.release():
            self._left -= 1
        if self._left < self._per_turn:
            self._plan_turn()


class WaitingLines:
    """A line for each owner, of which the first is served in rotation."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.lines: dict[str, deque[asyncio.Future[None]]] = {}
        """By owner, the next one first; none is empty."""

    def join(self, line: str) -> asyncio.Future[None]:
        """What is done when its turn comes. Raises LineFull."""
        waiting = self.lines.setdefault(line, deque())
        if len(waiting) >= self._most:
            raise LineFull
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        return turn

    def release(self) -> bool:
        """Let the next one pass. Whether there was one."""
        while self.lines:
            line = next(iter(self.lines))
            waiting = self.lines.pop(line)
            turn = waiting.popleft()
            if waiting:
                self.lines[line] = waiting  # Behind the others.
            if not turn.done():
                turn.set_result(None)
                return True
        return False
