"""What operators ask of several workers as if they were one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from gateway.app.crew import Crew
from gateway.core.errors import NoWorker
from gateway.telemetry.metrics import ProcessMetrics
from gateway.web.admin_plane import PREFIX, Desk
from gateway.web.passing import Asked, Reply, passed_to


class Board:
    def __init__(self, crew: Crew) -> None:
        self.draining = False
        self._crew = crew
        self._process = ProcessMetrics()
        self._scraping = asyncio.Lock()

    @property
    def desk(self) -> Desk:
        return Desk(self.exposition, self.ailments, self.obstacles, passed_to(self.administer))

    async def exposition(self) -> tuple[bytes, str]:
        """Of a worker that does not answer, what it had counted when it last did."""
        gathering = self._crew.gathering
        # One after the other: an answer that was overtaken would let counters fall.
        async with self._scraping:
            replies = await self._crew.ask_each(Asked("GET", "/metrics"))
            for worker, reply in replies.items():
                if reply is not None:
                    gathering.update(worker, reply.body)
            return gathering.render([self._crew.restarts, *self._process.series()])

    async def ailments(self) -> list[str]:
        """A worker that died is replaced without anybody's help; one that hangs is not."""
        replies = await self._crew.ask_each(Asked("GET", "/healthz"))
        if not replies:
            return ["no worker serves"]
        return [f"worker {worker} does not answer" for worker, reply in replies.items() if reply is None]

    async def obstacles(self) -> list[str]:
        if self.draining:
            return ["draining"]
        missing = [f"worker {worker} does not serve" for worker in self._crew.missing()]
        replies = await self._crew.ask_each(Asked("GET", "/readyz"))
        return [*missing, *(why for worker, reply in replies.items() for why in _told(worker, reply))]

    async def administer(self, asked: Asked) -> Reply:
        """Workers know the same: any of them answers, but each takes up the configuration for itself."""
        if asked.target.partition("?")[0] == PREFIX + "reload":
            replies = [reply for reply in (await self._crew.ask_each(asked)).values() if reply is not None]
            reply = max(replies, key=lambda reply: reply.status, default=None)
        else:
            reply = await self._crew.ask_any(asked)
        if reply is None:
            raise NoWorker("No worker answers now. The log says why; try again soon.", retry_after_ms=1000)
        return reply


def _told(worker: int, reply: Reply | None) -> Iterator[str]:
    if reply is None:
        yield f"worker {worker} does not answer"
    elif reply.status != 200:
        yield from (f"worker {worker}: {why}" for why in msgspec.json.decode(reply.body)["because"])
