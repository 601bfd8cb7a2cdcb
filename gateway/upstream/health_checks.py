"""Health checks: an upstream that is configured for it is asked regularly whether it is healthy, whether or not
requests come. `Health` is told each result, and believes it once enough checks in a row agree.

Also the small requests that the gateway makes for itself: `fetch` and what reads its answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from random import Random
from typing import Any

import msgspec

from gateway.core.clock import Clock
from gateway.core.errors import UpstreamAuthFailed, UpstreamBroke, UpstreamError, UpstreamUnreachable
from gateway.core.health import Health, Outcome, outcome_of_error
from gateway.core.snapshot import Upstream
from gateway.runtime.tasks import BackgroundTasks
from gateway.upstream.contract import UpstreamClient, UpstreamRequest

TIMEOUT_S = 5.0
"""A check that takes longer has failed; one that comes more often must be answered before the next."""
JITTER = 0.1
"""By this part the time between two checks varies, so that many gateways do not check at once."""

MAX_BYTES = 4 * 1024 * 1024
"""OpenRouter's list of models, among the longest there are, is about a tenth of this."""


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
            is_healthy = await self._ask(check)
            if is_healthy is not None:
                self._health.checked(check.upstream, is_healthy, self._clock.monotonic())
            await asyncio.sleep(check.every_s * self._dice.uniform(1 - JITTER, 1 + JITTER))

    async def _ask(self, check: HealthCheck) -> bool | None:
        """Whether the upstream is healthy; None where that cannot be told now."""
        try:
            async with asyncio.timeout(min(check.every_s, TIMEOUT_S)):
                status, _ = await fetch(self._client, check.upstream, check.path)
        except TimeoutError:
            return False
        except UpstreamError as error:
            # That requests use all connections says nothing about the upstream's health.
            return None if outcome_of_error(error) is Outcome.NEUTRAL else False
        return None if status == 429 else 200 <= status < 300


async def fetch(client: UpstreamClient, upstream: Upstream, path: str) -> tuple[int, bytes]:
    """GET `path` under the upstream's base URL: status and body. Raises UpstreamUnreachable for more than
    MAX_BYTES, and what `send` and `finished` raise."""
    response = await client.send(upstream, UpstreamRequest(path=path, headers=(), body=b"", method="GET"))
    body = bytearray()

    def take(piece: bytes) -> None:
        body.extend(piece)
        if len(body) > MAX_BYTES:
            response.abandon()

    try:
        response.deliver_to(take)
        await response.finished()
    except UpstreamBroke:
        if len(body) > MAX_BYTES:
            asked = _asked(upstream, path)
            raise UpstreamUnreachable(f"{asked} was answered with more than {MAX_BYTES} bytes.") from None
        raise
    finally:
        response.abandon()
    return response.status, bytes(body)


async def fetch_json(client: UpstreamClient, upstream: Upstream, path: str) -> Any:
    """As `fetch`, decoded. Raises UpstreamAuthFailed for 401 and 403, too, and UpstreamUnreachable for
    another status than 200 or what is not JSON."""
    status, body = await fetch(client, upstream, path)
    asked = _asked(upstream, path)
    if status in {401, 403}:
        raise UpstreamAuthFailed(f"{asked} was answered with {status}: check its api_key.")
    if status != 200:
        raise UpstreamUnreachable(f"{asked} was answered with {status}.")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise UpstreamUnreachable(f"{asked} was answered with something that is not JSON.") from None


async def models_served(client: UpstreamClient, upstream: Upstream) -> list[str]:
    """The ids of the models that the upstream lists, in its order. Raises as `fetch_json` does."""
    listing = await fetch_json(client, upstream, "/models")
    try:
        return [entry.id for entry in msgspec.convert(listing, _Models).data]
    except msgspec.ValidationError:
        raise UpstreamUnreachable(f"Upstream {upstream.name!r} lists its models in a shape unknown here.") from None


def _asked(upstream: Upstream, path: str) -> str:
    return f"GET {path} of upstream {upstream.name!r}"


class _Entry(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Entry]
