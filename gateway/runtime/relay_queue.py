"""Whose answer goes on next, where upstreams send faster than one turn of the event loop should pass on.

A request that begins takes some turns: the store, the upstream and the client each have one. So turns have to stay
short, however many streams are open: once a turn has passed on so much (PASSED_BYTES, turn.py), a piece waits here for
the next one.

An upstream at full speed always has more. Read to its end at once, one answer would keep every other request waiting;
two hundred of them would, even if each turn of the event loop took but one read of each. So an answer that has more
comes here after each read, too, with what that read took to be passed on. They go on in rotation, as far as the last
read of each says that the turn stays within TURN_S.

What waits goes on in every other turn. In the one between, which is short, is read what the store and upstreams have
answered meanwhile: they were asked at the end of a turn, and are silent when the loop looks just behind it.

What takes longer than COSTLY_S by a single read, such as some hundred events of a byte, waits in a line of its own:
one goes on at a time, and after it none other of these for PAUSE times as long as it took. A team that sends only
such answers has a quarter of the event loop, and no ordinary answer waits behind them. An ordinary one is not taken for
such a one where other processes have the processor meanwhile: this thread has to have computed for so long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic, thread_time
from typing import NamedTuple

from gateway.runtime.turn import PASSED_BYTES, Turn

TURN_S = 0.0005
"""What answers at full speed may take of one turn: a request of another caller needs some ten of them. The turn itself
costs about a tenth of that."""

COSTLY_S = 0.002
"""A read of ordinary events takes a quarter of that."""

PAUSE = 3
"""How many times as long as it took is waited after a costly read."""


def cost_since(began: float, computed: float) -> float:
    """What it took since the clock showed `began`, in seconds: long only where this thread, whose time was `computed`
    then, has computed for long."""
    cost_s = monotonic() - began
    if cost_s > COSTLY_S:
        # Some systems count it in steps of ten milliseconds, so that it is not asked for what is short.
        computed_s = thread_time() - computed
        if computed_s <= COSTLY_S:
            return computed_s
    return cost_s


class _Waiting(NamedTuple):
    go_on: Callable[[], bool]
    cost_s: float


class RelayQueue:
    """One for each event loop, in which it is made. Calls what waits, in a later turn."""

    def __init__(self, turn: Turn) -> None:
        self.loop = asyncio.get_running_loop()
        self.turn = turn
        self._cheap: deque[_Waiting] = deque()
        self._costly: deque[_Waiting] = deque()
        self._costly_from = 0.0
        """The monotonic second from which another costly one may go on."""
        self._next: asyncio.Handle | None = None
        """The beginning of a turn, where a cheap one waits for it."""
        self._pause: asyncio.TimerHandle | None = None

    def wait(self, go_on: Callable[[], bool], cost_s: float) -> None:
        """Call `go_on` when it is its turn: it says whether it goes on, since its answer may have ended meanwhile.
        `cost_s` is what its last read took."""
        if cost_s <= COSTLY_S:
            self._cheap.append(_Waiting(go_on, cost_s))
            if self._next is None:
                self._plan_turn()
            return
        self._costly.append(_Waiting(go_on, cost_s))
        if self._pause is None:
            # Who joins those that wait does not make them wait longer: a flood of new ones would do so permanently.
            self._costly_from = max(self._costly_from, monotonic() + PAUSE * cost_s)
            self._await_pause()

    def _plan_turn(self) -> None:
        self._next = self.loop.call_soon(self._leave_turn)

    def _leave_turn(self) -> None:
        self._next = self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        turn, self._next = self.turn, None
        turn.left = PASSED_BYTES
        left_s, waiting = TURN_S, len(self._cheap)
        try:
            while waiting and left_s > 0 and turn.left > 0:
                waiting -= 1
                one = self._cheap.popleft()
                left_s -= one.cost_s
                one.go_on()
        finally:  # What one raises must cost the others nothing.
            if self._cheap and self._next is None:
                self._plan_turn()

    def _await_pause(self) -> None:
        wait_s = self._costly_from - monotonic()
        self._pause = self.loop.call_later(wait_s, self._next_costly)

    def _next_costly(self) -> None:
        self._pause = None
        try:
            while self._costly and (now := monotonic()) >= self._costly_from:
                one = self._costly.popleft()
                if one.go_on():
                    # What it takes is not known before its read is passed on: so long as the last one, most likely.
                    self._costly_from = now + (1 + PAUSE) * one.cost_s
        finally:
            if self._costly and self._pause is None:
                self._await_pause()
