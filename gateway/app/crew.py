"""The workers of one gateway: started one by one, replaced when they die, asked and ordered together.

The first starts alone, so that what stops all of them is told once. After that a worker that dies is
replaced, after a pause that grows while replacements die too; the others serve on meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.app.asking import NoReply
from gateway.app.life import Life, status_text
from gateway.app.post import DRAIN, Post
from gateway.app.waiting import first
from gateway.telemetry.exposition import MetricsAggregator
from gateway.telemetry.log import Log
from gateway.telemetry.series import Counter
from gateway.web.passing import Asked, Reply

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0

_STEADY_S = 60.0
"""A worker that lived so long had no trouble in starting: its replacement starts as soon as the first one did."""

_CANNOT_START = (1, 2)
"""The exit statuses of `gateway serve` for an address that is taken and for a configuration with errors."""


_WELL = (0, -signal.SIGTERM)
"""How a worker may end in a drain: one that is signalled before it hears signals, or after, has nothing under way."""


class Plan(NamedTuple):
    """`command` runs a worker once its post is appended; `folder` is for sockets, closed to other users."""

    command: Sequence[str]
    workers: int
    port: int
    folder: Path


class Crew:
    def __init__(self, plan: Plan, log: Log) -> None:
        self.complete = asyncio.Event()
        """All of them have served at the same time."""

        self.restarts = Counter("gateway_worker_restarts_total", "Workers that died and were replaced.")
        self.restarts.add((), 0)
        self.gathering = MetricsAggregator()
        self._plan = plan
        self._log = log
        self._lives: dict[int, Life] = {}
        self._births = 0
        self._first_serves = asyncio.Event()
        self._ending = asyncio.Event()
        self._stillborn = 0

    async def work(self) -> int:
        """Keep the workers until `end`. Exit status: 0 where all of them ended well; of one that could not even
        start, its own."""
        statuses = await asyncio.gather(*[self._keep(number) for number in self._numbers()])
        return self._stillborn or int(any(status not in _WELL for status in statuses))

    def end(self, order: bytes = DRAIN) -> None:
        self._ending.set()
        self.order(order)

    def order(self, order: bytes) -> None:
        for life in self._lives.values():
            life.order(order)

    def missing(self) -> list[int]:
        """The numbers of those that do not serve now."""
        return [number for number in self._numbers() if number not in self._lives or not self._lives[number].serves]

    async def ask_each(self, asked: Asked) -> dict[int, Reply | None]:
        """What each of those that serve answers, by its number; None for one that does not."""
        serving = {number: life for number, life in self._lives.items() if life.serves}
        replies = await asyncio.gather(*[_asked(life, asked) for life in serving.values()])
        answers = zip(serving.items(), replies, strict=True)
        # One that has ended meanwhile is no longer asked for: what it counted is added in already.
        return {number: reply for (number, life), reply in answers if self._lives.get(number) is life}

    async def ask_any(self, asked: Asked) -> Reply | None:
        """What the first answers that does; None where none serves."""
        for life in [life for life in self._lives.values() if life.serves]:
            reply = await _asked(life, asked)
            if reply is not None:
                return reply
        return None

    def _numbers(self) -> range:
        return range(1, self._plan.workers + 1)

    async def _keep(self, number: int) -> int:
        """One worker after the other under the same number. The exit status of the last one."""
        if number != 1:
            await first(self._first_serves.wait(), self._ending.wait())
        pause_s, status = _FIRST_PAUSE_S, 0
        while not self._ending.is_set():
            began = asyncio.get_running_loop().time()
            status = await self._live(number)
            if self._ending.is_set():
                break
            if not self.complete.is_set() and status in _CANNOT_START:
                self._stillborn = status
                self.end()
                break
            if asyncio.get_running_loop().time() - began >= _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            self.restarts.add(())
            self._log.error("worker died", worker=number, status=status_text(status), replaced_in_s=pause_s)
            status = 0
            await first(self._ending.wait(), asyncio.sleep(pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return status

    async def _live(self, number: int) -> int:
        self._births += 1
        # A socket of its own for each life: what the last one left behind is in nobody's way.
        post = Post(number, self._plan.port, str(self._plan.folder / f"{self._births}.sock"))
        try:
            life = self._lives[number] = await Life.begin(self._plan.command, post)
        except OSError as error:
            self._log.error("worker cannot be started", worker=number, error=str(error))
            return 1
        if self._ending.is_set():
            life.order(DRAIN)
        if await life.begun():
            self._first_serves.set()
            if not self.missing():
                self.complete.set()
        status = await life.ended()
        del self._lives[number]
        self.gathering.retire(number)
        return status


async def _asked(life: Life, asked: Asked) -> Reply | None:
    try:
        return await life.ask(asked)
    except NoReply:
        return None
