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
from collections.abc import Callable
from functools import partial

Beginning = Callable[[], bool]
"""Begins what has waited. Whether it does: it may have given up meanwhile."""


class LineFull(Exception):
    """As many wait in this line as may."""


class TurnQueue:
    """What `try_begin` has let through begins in this turn of the event loop, which is the one in which the queue is
    made, what `wait` has returned for, or `begin_later` calls."""

    def __init__(self, per_turn: int, waiting_max: int = sys.maxsize) -> None:
        """`waiting_max` is of one line."""
        self._call_soon = asyncio.get_running_loop().call_soon
        self._per_turn = per_turn
        self._left = per_turn
        """How many more may begin before the next turn: none where some wait."""
        self._waiting = WaitingLines(waiting_max)
        self._turn: asyncio.Handle | None = None

    @property
    def has_waiting(self) -> bool:
        """Whether anything waits for a later turn."""
        return bool(self._waiting.lines)

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
        self._begin_behind()
        await turn

    def begin_later(self, line: str, begin: Beginning) -> None:
        """Let it wait in this line without a task. `begin` raises nothing. Raises LineFull."""
        self._waiting.add(line, begin)
        self._begin_behind()

    def _begin_behind(self) -> None:
        """What comes later does not begin before what waits."""
        self._left = 0
        if self._turn is None:
            self._plan_turn()

    def _plan_turn(self) -> None:
        self._turn = self._call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        left = self._per_turn
        self._left = 0  # What comes from what begins here is behind what waits.
        try:
            while left and self._waiting.release():
                left -= 1
        finally:
            self._left = left
            if (left < self._per_turn or self._waiting.lines) and self._turn is None:
                self._plan_turn()


class WaitingLines:
    """A line for each owner, of which the first is served in rotation."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.lines: dict[str, deque[Beginning]] = {}
        """By owner, the next one first; none is empty."""

    def add(self, line: str, begin: Beginning) -> None:
        """What is called when its turn comes. Raises LineFull."""
        waiting = self.lines.get(line)
        if waiting is None:
            waiting = self.lines[line] = deque()
        elif len(waiting) >= self._most:
            raise LineFull
        waiting.append(begin)

    def join(self, line: str) -> asyncio.Future[None]:
        """What is done when its turn comes. Raises LineFull."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(line, partial(_wake, turn))
        return turn

    def release(self) -> bool:
        """Let the next one pass. Whether there was one."""
        while self.lines:
            line = next(iter(self.lines))
            waiting = self.lines.pop(line)
            begin = waiting.popleft()
            if waiting:
                self.lines[line] = waiting  # Behind the others.
            if begin():
                return True
        return False


def _wake(turn: asyncio.Future[None]) -> bool:
    if turn.done():
        return False
    turn.set_result(None)
    return True
