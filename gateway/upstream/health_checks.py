"""Health checks: asks each configured upstream regularly whether it is healthy, whether or not there are requests.
`Health` gets each result, and changes its mind after enough equal ones in a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from random import Random

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import UpstreamError
from gateway.core.health import Health, Outcome, outcome_of_error
from gateway.core.snapshot import Upstream
from gateway.runtime.tasks import BackgroundTasks
from gateway.upstream.contract import UpstreamClient
from gateway.upstream.fetch import fetch

TIMEOUT_S = 5.0
"""A check that takes longer has failed; one that comes more often must be answered before the next."""
JITTER = 0.1
"""By this part the time between two checks varies, so that many gateways do not check at once."""


class HealthCheck(msgspec.Struct, frozen=True):
    """`path` follows the upstream's base URL; any status from 200 to 299 is healthy."""

    upstream: Upstream
    path: str
    every_s: float


class HealthChecks:
    """Runs one loop for each check, among `tasks` that are its own. To be closed before the client is."""

    def __init__(
        self, client: UpstreamClient, health: Health, clock: Clock, dice: Random, tasks: BackgroundTasks
    ) -> None:
        self._client = client
        self._health = health
        self._clock = clock
        self._dice = dice
        self._tasks = tasks
        self._running: dict[HealthCheck, asyncio.Task[None]] = {}

    def keep(self, checks: Iterable[HealthCheck]) -> None:
        """Run these from now on, and no others: those that run already are not disturbed."""
        wanted = set(checks)
        for check in self._running.keys() - wanted:
            self._running.pop(check).cancel()
            self._health.unchecked(check.upstream)
        for check in wanted - self._running.keys():
            self._running[check] = self._tasks.keep_running("health_check", partial(self._repeat, check))

    async def close(self) -> None:
        self.keep(())
        await self._tasks.close()

    async def _repeat(self, check: HealthCheck) -> None:
        while True:
            problem = await self._ask(check)
            if problem is not None:
                self._health.checked(check.upstream, problem, self._clock.monotonic())
            await asyncio.sleep(check.every_s * self._dice.uniform(1 - JITTER, 1 + JITTER))

    async def _ask(self, check: HealthCheck) -> str | None:
        """How the check failed, in a word or a status; empty if the upstream is healthy, None if it cannot be known."""
        try:
            async with asyncio.timeout(min(check.every_s, TIMEOUT_S)):
                status, _ = await fetch(self._client, check.upstream, check.path)
        except TimeoutError:
            return "timeout"
        except UpstreamError as error:
            # That requests use all connections says nothing about the upstream's health.
            return None if outcome_of_error(error) is Outcome.NEUTRAL else error.outcome
        return None if status == 429 else "" if 200 <= status < 300 else str(status)
