"""The HTTP client of the gateway: sends requests to upstreams, over a pool for each upstream.

A pool belongs to one immutable `Upstream`: when a reload changes a setting, requests get a new pool,
and the old one empties by itself as its responses end and its idle connections expire.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from time import monotonic

from gateway.core.errors import ShuttingDown, UpstreamUnreachable
from gateway.core.snapshot import Model, Upstream
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.turn import Turn
from gateway.upstream.client_options import DISTRUST_SECONDS, IDLE_SECONDS, ClientOptions
from gateway.upstream.connect import UpstreamOrigin
from gateway.upstream.connection import HUNG_UP, Connection, StaleConnection
from gateway.upstream.contract import NOT_SENT, FailureReason, UpstreamRequest
from gateway.upstream.pool import Holder, Pool
from gateway.upstream.response_stream import ResponseStream
from gateway.upstream.upload import beginning


def _not_reported(_upstream: str, _was_trusted: bool) -> None:
    """Where it is of no interest."""


class HttpClient:
    """Implements `contract.UpstreamClient` with HTTP/1.1. `report_unrequested_bytes` gets the name of an upstream
    each time that it sends what answers no request, and whether it was trusted until then. Beyond `max_connections` to
    all upstreams none is kept idle: else those to one would take the descriptors that others need."""

    def __init__(
        self,
        tasks: BackgroundTasks,
        turn: Turn,
        report_unrequested_bytes: Callable[[str, bool], None] = _not_reported,
        idle_seconds: float = IDLE_SECONDS,
        distrust_seconds: float = DISTRUST_SECONDS,
        max_connections: int = sys.maxsize,
    ) -> None:
        self._options = ClientOptions(tasks, turn, idle_seconds, report_unrequested_bytes, distrust_seconds)
        self._pools: dict[Upstream, Pool] = {}
        self._models: dict[Upstream, set[str]] = {}
        self._teams = 0
        self._max_connections = max_connections
        self._is_closed = False

    async def send(self, upstream: Upstream, request: UpstreamRequest) -> ResponseStream:
        """As the contract says; also ValueError for a request that cannot be written safely (see
        `UpstreamOrigin.head`). Its cancellation closes the connection."""
        pool, rest, began = self._pools.get(upstream) or self._new_pool(upstream), request.rest, monotonic()
        head = pool.origin.head(request)
        body = request.body if rest is None else beginning(request.body, rest)
        holder = Holder(request.model, request.team)
        connection, is_fresh = pool.take_idle(holder) or await _acquired(pool, holder, request, fresh=False), False
        while True:
            try:
                response = connection.begin(head, body, rest, began)
                try:
                    while not response.first_byte_at:
                        if response.is_over:
                            response.end()
                        await response.woken()
                except BaseException:
                    connection.leave(response)
                    raise
                return response
            except StaleConnection:
                if is_fresh or (rest is not None and rest.taken):
                    raise HUNG_UP.error(upstream.name, UpstreamUnreachable) from None
            # Not a retry, which would be the caller's to decide: the server has not received the request.
            request.note_attempt(upstream.name, "stale_connection")
            pool, is_fresh = self._pools.get(upstream) or self._new_pool(upstream), True
            connection = await _acquired(pool, holder, request, fresh=True)

    def keep(self, models: Iterable[Model], teams: int) -> None:
        """Which models and how many teams there are from now on, so that they can share an upstream's connections."""
        self._models, self._teams = {}, teams
        for target in (target for model in models for target in model.targets):
            self._models.setdefault(target.upstream, set()).add(target.model)
        for upstream, pool in self._pools.items():
            pool.shares.models, pool.shares.teams = self._models.get(upstream, ()), teams

    async def close(self) -> None:
        """Close every connection; responses on their way break."""
        self._is_closed = True
        await asyncio.gather(*(pool.close() for pool in list(self._pools.values())))
        await self._options.tasks.close()

    def _new_pool(self, upstream: Upstream) -> Pool:
        if self._is_closed:
            raise ShuttingDown("The gateway is shutting down.")
        try:
            origin = UpstreamOrigin(upstream)
        except ValueError as error:
            # `gateway check` finds it first. Here it is this upstream that fails, and never the request.
            raise FailureReason("not_reached", f"is misconfigured: {error}").error(
                upstream.name, UpstreamUnreachable
            ) from None
        pool = self._pools[upstream] = Pool(
            upstream, origin, self._options, lambda: self._forget(upstream), self._make_room
        )
        pool.shares.models, pool.shares.teams = self._models.get(upstream, ()), self._teams
        return pool

    def _make_room(self) -> bool:
        pools = self._pools.values()
        if sum([pool.open for pool in pools]) <= self._max_connections:
            return False
        fullest = max(pools, key=lambda pool: pool.idle)
        if not fullest.idle:
            return False
        fullest.close_idle()
        return True

    def _forget(self, upstream: Upstream) -> None:
        del self._pools[upstream]


async def _acquired(pool: Pool, holder: Holder, request: UpstreamRequest, *, fresh: bool) -> Connection:
    """As `Pool.acquire`; an attempt that is cancelled meanwhile is noted."""
    try:
        return await pool.acquire(holder, fresh)
    except asyncio.CancelledError:
        request.note_attempt(pool.name, NOT_SENT)
        raise
