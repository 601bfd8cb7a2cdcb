"""Checks: each upstream that wants it is asked now and then whether it is well, whether or not requests come.

What is found goes to `Health`, which believes it once enough checks in a row agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import UpstreamError
from gateway.core.health import Health, Outcome, outcome_of_error
from gateway.core.snapshot import Upstream
from gateway.upstream.contract import UpstreamClient
from gateway.upstream.fetch import fetch

ANSWER_S = 5.0
"""A check that takes longer has failed; one that comes more often must be answered before the next."""
SPREAD = 0.1
"""By this part the time between two checks varies, so that many gateways do not check at once."""


class Check(msgspec.Struct, frozen=True):
    """`path` follows the upstream's base URL; any status from 200 to 299 is well."""

    upstream: Upstream
    path: str
    every_s: float


class Checks:
    """Runs one task for each check. To be closed before the wire is."""

    def __init__(self, client: UpstreamClient, health: Health, clock: Clock, dice: Random) -> None:
        self._wire = client
        self._health = health
        self._clock = clock
        self._dice = dice
        self._running: dict[Check, asyncio.Task[None]] = {}

    def keep(self, checks: Iterable[Check]) -> None:
        """Run these from now on, and no others: those that run already are not disturbed."""
        wanted = set(checks)
        for check in self._running.keys() - wanted:
            self._running.pop(check).cancel()
            self._health.unchecked(check.upstream)
        for check in wanted - self._running.keys():
            self._running[check] = asyncio.get_running_loop().create_task(self._repeat(check))

    async def close(self) -> None:
        tasks = list(self._running.values())
        self.keep(())
        if tasks:
            await asyncio.wait(tasks)

    async def _repeat(self, check: Check) -> None:
        while True:
            is_well = await self._ask(check)
            if is_well is not None:
                self._health.checked(check.upstream, is_well, self._clock.monotonic())
            await asyncio.sleep(check.every_s * self._dice.uniform(1 - SPREAD, 1 + SPREAD))

    async def _ask(self, check: Check) -> bool | None:
        """Whether the upstream is well; None where that cannot be told now."""
        try:
            async with asyncio.timeout(min(check.every_s, ANSWER_S)):
                status, _ = await fetch(self._wire, check.upstream, check.path)
        except TimeoutError:
            return False
        except UpstreamError as error:
            # All connections in use by requests is no sign of sickness.
            return None if outcome_of_error(error) is Outcome.NEUTRAL else False
        return None if status == 429 else 200 <= status < 300
