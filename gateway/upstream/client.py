"""The wire: requests to upstreams and the answers to them, over a pool for each upstream.

A pool belongs to one immutable `Upstream`: when a reload changes a setting, requests get a new pool,
and the old one empties by itself as its answers end and its idle connections expire.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from gateway.core.errors import ShuttingDown, UpstreamUnreachable
from gateway.core.snapshot import Upstream
from gateway.upstream.connection import HUNG_UP, Request, Stale
from gateway.upstream.contract import Outgoing
from gateway.upstream.fittings import IDLE_SECONDS, Fittings
from gateway.upstream.incoming import Incoming
from gateway.upstream.pool import Pool
from gateway.upstream.upload import beginning


class HttpClient:
    """Implements `contract.UpstreamClient` with HTTP/1.1."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._fittings = Fittings(idle_seconds)
        self._pools: dict[Upstream, Pool] = {}
        self._is_closed = False

    async def send(self, upstream: Upstream, outgoing: Outgoing) -> Incoming:
        """As the contract says; also ValueError for a request or an upstream that cannot be written
        down safely (see `Origin`). Whoever cancels it closes the connection."""
        pool = self._pool(upstream)
        request = Request(
            head=pool.origin.head(outgoing),
            body=beginning(outgoing),
            timeouts=upstream.timeouts,
            began=monotonic(),
            bodiless=outgoing.method == "HEAD",
            rest=outgoing.rest,
        )
        connection = await pool.acquire()
        try:
            return await connection.exchange(request)
        except Stale:
            if outgoing.rest is not None and outgoing.rest.taken:
                raise HUNG_UP.about(upstream.name, UpstreamUnreachable) from None
            # The server let go of an idle connection just as it was taken. It has not seen the
            # request, so a new connection may carry it (RFC 9112, 9.3.1).
            connection = await self._pool(upstream).acquire(fresh=True)
        try:
            return await connection.exchange(request)
        except Stale:
            raise HUNG_UP.about(upstream.name, UpstreamUnreachable) from None

    async def close(self) -> None:
        """Close every connection; answers on their way break."""
        self._is_closed = True
        await asyncio.gather(*(pool.close() for pool in list(self._pools.values())))

    def _pool(self, upstream: Upstream) -> Pool:
        pool = self._pools.get(upstream)
        if pool is not None:
            return pool
        if self._is_closed:
            raise ShuttingDown("The gateway is shutting down.")
        pool = self._pools[upstream] = Pool(upstream, self._fittings, lambda: self._forget(upstream))
        return pool

    def _forget(self, upstream: Upstream) -> None:
        del self._pools[upstream]
