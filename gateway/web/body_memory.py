"""Limits the memory, and the disk, that the bodies of requests take in a process.

Bodies are read before limits can be asked, so a client with a key could send as many large ones at once as it likes.
A body therefore takes what its head announces before it is read, so that none that has begun waits for another one to
end. A body beyond the budget waits, and is refused if that takes too long:

**Small bodies do not wait**, up to `SMALL_BYTES`, as long as they fit: a short question never waits behind uploads.

**A team's large bodies take three quarters at most, and less next to others'**: `TEAM_SHARE` times what is free. So two
teams that send all they can have three sevenths each, and a third one finds memory free when it comes. (Known from
switches, whose ports share one buffer, as dynamic thresholds: Choudhury and Hahne, 1998.)

**A body that becomes larger than its head announced** (one in chunks, or that was compressed) goes on beyond the share
of its team, one at a time: if each had to wait for the others, none of them would become complete.

Among waiting bodies teams take turns; of one team the first that came goes first.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import NamedTuple

from gateway.core.errors import Overloaded

WAIT_S = 5.0
"""How long a request waits for memory."""

SMALL_BYTES = 64 * 1024
TEAM_SHARE = 3

_STEP_MAX_BYTES = 4 * 1024 * 1024
"""A body that becomes larger than expected takes no more than this ahead of what has come."""


class BodyMemory:
    """`held_bytes` never exceeds `max_bytes`."""

    def __init__(self, max_bytes: int, wait_s: float = WAIT_S) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._large_by_team: dict[str, int] = {}
        """The bytes that the large bodies of each team hold."""
        self._waiting: dict[str, list[_WaitingBody]] = {}
        """The waiting bodies by team, the next team first."""
        self._numbers = count(1)
        self._beyond = 0
        """The number of the body that may grow beside its team's share, 0 for none."""

    @property
    def waiting(self) -> int:
        """How many bodies wait."""
        return sum(len(line) for line in self._waiting.values())

    def take_small(self, size: int) -> bool:
        """Take this much for a small body, if it fits. Whether it fits."""
        if self.held_bytes + size > self._max_bytes:
            return False
        self.held_bytes += size
        return True

    def give_back_small(self, size: int) -> None:
        self.held_bytes -= size
        if self._waiting:
            self._let_in()

    def number(self) -> int:
        """The number of a further large body: higher than of all that came before."""
        return next(self._numbers)

    async def take(self, team: str, number: int, size: int, *, grows: bool = False) -> None:
        """Take this much for a large body, or wait for it. Bodies with lower numbers came first. Raises Overloaded."""
        place = _WaitingBody(number, size, grows, asyncio.get_running_loop().create_future())
        line = self._waiting.get(team)
        is_next = line is None or number < line[0].number or number == self._beyond
        if is_next and self._may_take(team, place):
            self._note(team, size)
            return
        line = self._waiting.setdefault(team, [])
        line.append(place)
        line.sort(key=lambda each: (each.number != self._beyond, each.number))
        try:
            async with asyncio.timeout(self._wait_s):
                await place.turn
        except BaseException as error:
            if place.turn.done() and not place.turn.cancelled():
                self._note(team, -size)
            elif place in self._waiting.get(team, ()):
                self._leave(team, place)
            self._let_in()
            if isinstance(error, TimeoutError):
                raise _overloaded() from None
            raise

    def give_back(self, team: str, size: int) -> None:
        self._note(team, -size)
        self._let_in()

    def release(self, team: str, number: int, size: int) -> None:
        """Give back all that a large body has."""
        if number == self._beyond:
            self._beyond = 0
        self.give_back(team, size)

    def _note(self, team: str, size: int) -> None:
        self.held_bytes += size
        held = self._large_by_team.pop(team, 0) + size
        if held:
            self._large_by_team[team] = held

    def _may_take(self, team: str, place: _WaitingBody) -> bool:
        left = self._max_bytes - self.held_bytes - place.size
        if left < 0:
            return False
        # One body may always have what `max_body` allows.
        if not self._large_by_team or self._large_by_team.get(team, 0) + place.size <= TEAM_SHARE * left:
            return True
        if place.grows and self._beyond in (0, place.number):
            self._beyond = place.number
            return True
        return False

    def _let_in(self) -> None:
        """Give waiting bodies their turn while there is memory for them: one of each team, in rotation."""
        went = bool(self._waiting)
        while went:
            went = False
            for team, line in [*self._waiting.items()]:
                place = line[0]
                if place.turn.done() or self._may_take(team, place):
                    went = True
                    self._leave(team, place)
                    if not place.turn.done():  # Its request may have ended since.
                        self._note(team, place.size)
                        place.turn.set_result(None)

    def _leave(self, team: str, place: _WaitingBody) -> None:
        line = self._waiting.pop(team)
        line.remove(place)
        if line:
            self._waiting[team] = line  # Behind the other teams.


class _WaitingBody(NamedTuple):
    """A body that waits for its turn."""

    number: int
    size: int
    grows: bool
    turn: asyncio.Future[None]


class HeldBytes:
    """The share that one request's body takes of a `BodyMemory`, counted for `team`."""

    _number = 0
    _small_bytes = 0
    _bytes = 0
    _used = 0

    def __init__(self, memory: BodyMemory, team: str) -> None:
        self._memory = memory
        self._team = team

    def add_small(self, size: int) -> bool:
        """Note the whole of a body that has come. Whether it is small, and there is memory for it."""
        if size > SMALL_BYTES or not self._memory.take_small(size):
            return False
        self._small_bytes = size
        return True

    async def expect(self, size: int) -> None:
        """Take what so many bytes will need. Raises Overloaded."""
        if self._bytes or self._small_bytes or not self.add_small(size):
            await self._take(size - self._bytes - self._small_bytes)

    async def add(self, size: int) -> None:
        """Note bytes that came. If more come than expected, as much again is taken, up to _STEP_MAX_BYTES.
        Raises Overloaded."""
        self._used += size
        held = self._bytes + self._small_bytes
        if self._used > held:
            await self._take(max(self._used - held, min(held, _STEP_MAX_BYTES)), grows=self._bytes > 0)

    def trim(self) -> None:
        """Give back what is left over: no more bytes come."""
        spare = min(self._bytes, self._bytes + self._small_bytes - self._used)
        if spare > 0:
            self._bytes -= spare
            self._memory.give_back(self._team, spare)

    def release(self) -> None:
        """Give back all of it."""
        small, large = self._small_bytes, self._bytes
        self._small_bytes = self._bytes = self._used = 0
        if small:
            self._memory.give_back_small(small)
        if large:
            self._memory.release(self._team, self._number, large)

    async def _take(self, size: int, *, grows: bool = False) -> None:
        if size <= 0:
            return
        self._number = self._number or self._memory.number()
        await self._memory.take(self._team, self._number, size, grows=grows)
        self._bytes += size


def _overloaded() -> Overloaded:
    return Overloaded(
        "Bodies of other requests use all of the gateway's memory for bodies. Try again soon; operators can raise"
        " max_body_memory.",
        retry_after_ms=1000,
    )
