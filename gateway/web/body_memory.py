"""How much of its memory, and of its disk, a process lets the bodies of requests take.

Bodies come before limits can be asked: a client with a key could otherwise send as many large ones at once as it likes.
What is over the budget waits its turn, in order of arrival, and is refused when that takes too long. A body that has
begun to grow goes first: it holds memory already, and others get theirs when it is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from gateway.core.errors import Overloaded

WAIT_S = 5.0
"""How long a request waits for memory."""

_STEP_MAX_BYTES = 4 * 1024 * 1024
"""A large body takes no more than this ahead of what has come."""


class BodyMemory:
    """`held_bytes` never exceeds `max_bytes`."""

    def __init__(self, max_bytes: int, wait_s: float = WAIT_S) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, size: int) -> bool:
        """Take so much, unless it is not free or others wait. Whether it is taken."""
        if self._waiting or not self._fits(size):
            return False
        self.held_bytes += size
        return True

    async def take(self, size: int, wanted: int, *, growing: bool) -> int:
        """Take as much as is wanted, or wait for `size`. Gives what was taken. Raises Overloaded."""
        if growing or not self._waiting:
            for taken in (wanted, size):
                if self._fits(taken):
                    self.held_bytes += taken
                    return taken
        turn = asyncio.get_running_loop().create_future()
        place = (size, turn)
        if growing:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.held_bytes -= size
            with suppress(ValueError):
                self._waiting.remove(place)
            self._let_in()
            if isinstance(error, TimeoutError):
                raise _overloaded() from None
            raise
        return size

    def give_back(self, size: int) -> None:
        self.held_bytes -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.held_bytes += size
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return self.held_bytes + size <= self._max_bytes


class HeldBytes:
    """What one request's body takes of a `BodyMemory`."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._bytes = 0
        self._used = 0

    def add_now(self, size: int) -> bool:
        """Note the whole of a body that has come, unless its memory has to be waited for."""
        if not self._memory.take_now(size):
            return False
        self._bytes = self._used = size
        return True

    async def add(self, size: int) -> None:
        """Note bytes that came. Where memory has to be taken again, it is as much as before. Raises Overloaded."""
        self._used += size
        missing = self._used - self._bytes
        if missing > 0:
            wanted = max(missing, min(self._bytes, _STEP_MAX_BYTES))
            self._bytes += await self._memory.take(missing, wanted, growing=self._bytes > 0)

    def trim(self) -> None:
        """No more will come."""
        spare, self._bytes = self._bytes - self._used, self._used
        if spare:
            self._memory.give_back(spare)

    def release(self) -> None:
        if self._bytes:
            self._used = 0
            self.trim()


def _overloaded() -> Overloaded:
    return Overloaded(
        "Bodies of other requests use all of the gateway's memory for bodies. Try again soon; operators can raise"
        " max_body_memory.",
        retry_after_ms=1000,
    )
