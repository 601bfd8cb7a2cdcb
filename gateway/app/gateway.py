"""A whole gateway: what it is made of, how it starts and how it stops.

`start` opens both listeners; `drain` stops in order: first readiness, then the door,
then the streams, and ends with nothing unsettled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from random import Random

from gateway.app.clock import SystemClock, id_maker
from gateway.app.post import Post
from gateway.app.snapshot_builder import snapshot
from gateway.app.store import StoreRoom
from gateway.app.waiting import first
from gateway.core.address import Address
from gateway.core.clock import Clock
from gateway.core.estimate import Estimates
from gateway.core.health import Change
from gateway.core.routing import RoutingState
from gateway.pipeline import Pipeline, Services
from gateway.settings.shape import Settings
from gateway.stages.forward import UpstreamServices
from gateway.telemetry.gathering import PACKED
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.upstream.checks import Check, Checks
from gateway.upstream.client import HttpClient
from gateway.web.admin_api import AdminApi
from gateway.web.admin_plane import AdminPlane, Desk
from gateway.web.http_connection import Handler, Listener
from gateway.web.public_routes import PublicRoutes

_BACKLOG = 4096
"""Connections that may wait to be accepted: enough for every client of a restarted gateway at once."""


class Gateway:
    """Made of settings; to be started in a running event loop. Without a clock it takes the system's."""

    def __init__(self, settings: Settings, log: Log, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._settings = settings
        self._log = log
        self._metrics = Metrics(clock, version("inducta-gateway"))
        self._store = StoreRoom(settings.store, (clock, settings.timezone), self._metrics.store_call, log)
        self.store = self._store.store
        self._client = HttpClient()
        self._routing = RoutingState(self._note_health)
        self._checks = Checks(self._client, self._routing.health, clock, Random())
        self.services = Services(
            snapshot=snapshot(settings, clock.now_ms() // 1000),
            store=self.store,
            upstream=UpstreamServices(self._client, self._routing, clock),
            zone=settings.timezone,
            recorders=(self._metrics.exchange, log.exchange),
            log_error=log.defect,
            clock=clock,
            new_id=id_maker(),
            estimates=Estimates(),
            keepalive_s=settings.keepalive.total_seconds(),
        )
        self._pipeline = Pipeline(self.services)
        self._data = PublicRoutes(self._pipeline, settings.max_body)
        self._api = AdminApi(self.services, settings.admin.secret)
        self._admin = AdminPlane(Desk(self._exposition, self._ailments, self._obstacles, self._api.answer))
        self._draining = self._supervised = False
        self._doors: list[tuple[asyncio.Server, Listener]] = []

    async def start(self) -> tuple[Address, Address]:
        """Listen; give the addresses taken, data and admin (port 0 takes a free one). Raises OSError."""
        self._wake()
        data = await self._listen(self._data.handle, self._settings.listen)
        admin = await self._listen(self._admin.handle, self._settings.admin.listen)
        return data, admin

    async def start_at(self, post: Post) -> Address:
        """Listen as one of several processes: on a port that they share, and to their supervisor. Raises OSError."""
        self._supervised = True
        self._wake()
        data = await self._listen(self._data.handle, Address(self._settings.listen.host, post.port), shared=True)
        listener = Listener(self._admin.handle, self.services.new_id)
        self._doors.append((await asyncio.get_running_loop().create_unix_server(listener, post.socket), listener))
        return data

    def take_up(self, settings: Settings) -> None:
        """Serve requests that begin from now on under these settings. What is read at the start alone stays."""
        self.services.keepalive_s = settings.keepalive.total_seconds()
        self.services.snapshot = snapshot(settings, self.services.clock.now_ms() // 1000)
        self._routing.keep(self.services.snapshot.models.values())
        self._check_upstreams()

    def on_reload(self, reload: Callable[[], Awaitable[list[str]]]) -> None:
        """What POST /admin/v1/reload does."""
        self._api.reload = reload

    def count_reload(self, outcome: str) -> None:
        self._metrics.config_reloads.add((outcome,))

    async def drain(self, hurry: asyncio.Event) -> None:
        """Stop: serve on for `delay`, let what runs finish for `timeout`, then cut it; `hurry` ends either wait."""
        drain = self._settings.drain
        self._draining = self._data.closing = True
        await first(hurry.wait(), asyncio.sleep(drain.delay.total_seconds()))
        self._data.refusing = True
        for server, _ in self._doors[:1]:
            server.close()
        await first(hurry.wait(), self._pipeline.idle(), asyncio.sleep(drain.timeout.total_seconds()))
        self._pipeline.cut_short()
        await self._pipeline.idle()
        await self.close()

    async def close(self) -> None:
        """Close everything that is open, once what ended is settled and recorded."""
        for server, listener in self._doors:
            server.close()
            await listener.close()
        self._doors.clear()
        await self._pipeline.closed()
        await self._checks.close()
        await self._client.close()
        await self._store.close()

    def _wake(self) -> None:
        """What goes on by itself from now on."""
        self._store.start()
        self._check_upstreams()

    def _check_upstreams(self) -> None:
        asked = [upstream for upstream in self.services.snapshot.upstreams() if upstream.check_path]
        self._checks.keep(Check(upstream, upstream.check_path, upstream.check_every_s) for upstream in asked)

    def _note_health(self, change: Change) -> None:
        tell = self._log.warning if change.after in ("open", "down") else self._log.info
        model = {"model": change.model} if change.model else {}
        tell("upstream health", upstream=change.upstream, **model, before=change.before, after=change.after)

    async def _listen(self, handler: Handler, address: Address, *, shared: bool = False) -> Address:
        listener = Listener(handler, self.services.new_id)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(listener, address.host, address.port, reuse_port=shared, backlog=_BACKLOG)
        self._doors.append((server, listener))
        return Address(address.host, server.sockets[0].getsockname()[1])

    async def _exposition(self) -> tuple[bytes, str]:
        self._metrics.in_flight.set(self._pipeline.in_flight)
        now = self.services.clock.monotonic()
        seen = self._routing.health.view(self.services.snapshot.upstreams(), now)
        # Anew each time: an upstream that a reload has removed is not told any more.
        self._metrics.upstream_up.values = {(each.name,): int(each.up) for each in seen}
        self._metrics.unsettled.set(self._store.unsettled)
        return (self._metrics.packed(), PACKED) if self._supervised else self._metrics.render()

    async def _ailments(self) -> list[str]:
        return []  # A process that answers is well.

    async def _obstacles(self) -> list[str]:
        store = self._store.denial
        return ["draining"] * self._draining + [f"the store {store}"] * bool(store)
