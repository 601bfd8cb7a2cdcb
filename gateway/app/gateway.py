"""A whole gateway: its parts, how it starts and how it stops.

`start` opens both listeners. `drain` stops in order: readiness, the public listener, the streams. It returns when
nothing is unsettled.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from random import Random
from secrets import token_hex
from typing import NamedTuple

from gateway.app.config_documents import ConfigDocuments, ConfigInForce
from gateway.app.loaded_snapshot import LoadedSnapshot
from gateway.app.loss_lifecycle import LossLifecycle
from gateway.app.notification_lifecycle import NotificationLifecycle
from gateway.app.process_settings import ProcessSettings
from gateway.app.quota_forecasts import watch_forecasts
from gateway.app.record_lifecycle import RecordLifecycle, process_name
from gateway.app.requests_in_flight import RequestsInFlight
from gateway.app.store_lifecycle import StoreLifecycle
from gateway.app.token_lifecycle import TokenLifecycle
from gateway.app.trace_export import TraceExport, trace_export
from gateway.core.address import Address
from gateway.core.clock import Clock
from gateway.core.end_users import EndUserCounts
from gateway.core.errors import GatewayError, StoreUnavailable
from gateway.core.health import Change
from gateway.core.routing import RoutingState
from gateway.core.snapshot import ConfigSnapshot
from gateway.identity.administration import KeyAdministration
from gateway.identity.contract import AuditEntry
from gateway.identity.directory import KeyDirectory
from gateway.identity.grants import GrantAdministration
from gateway.identity.sessions import SessionDirectory
from gateway.notifications.history import NotificationList
from gateway.pipeline import Pipeline, Services
from gateway.runtime.descriptors import max_connections_of_clients
from gateway.runtime.listening import accept_faster, address_taken, listen_on_all
from gateway.runtime.loop_lag import watch_loop_lag
from gateway.runtime.slices import in_slices
from gateway.runtime.system_clock import SystemClock, id_maker
from gateway.runtime.tasks import BackgroundTasks, wait_first
from gateway.runtime.turn import Turn
from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.stages.forward import UpstreamServices
from gateway.store.operator_reports import keys_used_since
from gateway.telemetry.configured_names import ConfiguredNames
from gateway.telemetry.exposition import CONTENT_TYPE
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.sampling import PERIOD_S
from gateway.telemetry.traffic import TrafficHistory
from gateway.upstream.client import HttpClient
from gateway.upstream.health_checks import HealthCheck, HealthChecks
from gateway.web.admin_access import AdminAccess
from gateway.web.admin_api import AdminApi, Administer, traffic_page, upstreams
from gateway.web.admin_overview import overview_page
from gateway.web.admin_requests import RequestAdministration
from gateway.web.admin_routes import AdminHandlers, AdminRequest, AdminRoutes
from gateway.web.body_memory import BodyMemory
from gateway.web.client_address import ClientAddresses
from gateway.web.cors import CorsPolicy
from gateway.web.http_connection import Handler
from gateway.web.listener import ADMIN_CLIENTS, ClientLimits, Listener
from gateway.web.public_routes import PublicRoutes
from gateway.web.shared_answers import SharedAnswers

_BACKLOG = 4096
"""Connections that may wait to be accepted: enough for every client of a restarted gateway at once."""


class _OpenListener(NamedTuple):
    """One listener, at one address or several."""

    servers: list[asyncio.Server]
    listener: Listener

    def stop_accepting(self) -> None:
        for server in self.servers:
            server.close()


class Gateway:
    """Built from what is loaded; `start` needs a running event loop. Without a clock it uses the system's. `environ`
    says whether traces are exported."""

    _draining = False
    """Whether it has begun to stop."""

    def __init__(
        self, loaded: LoadedSnapshot, log: Log, clock: Clock | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        clock = clock or SystemClock()
        settings, first, names = loaded.settings, loaded.snapshot, loaded.names
        self._settings = settings
        self._log = log
        self._metrics = Metrics(clock, version("inducta-gateway"))
        self.tasks = BackgroundTasks(log.defect, self._metrics.task_failed)
        self._store = self._store_lifecycle(clock)
        self.store = self._store.store
        self._turn = Turn()
        self._client = self._new_client()
        self._routing = RoutingState(self._note_health)
        self._health_checks = self._new_health_checks(clock)
        self._records = RecordLifecycle(self.store, clock, self._background_tasks())
        self._losses = LossLifecycle(self._store, self._metrics, clock, self._dropped, self._background_tasks())
        self._directory = KeyDirectory(self._store.keys, first, clock.now_ms, self._background_tasks())
        self.services = Services(
            snapshot=first,
            directory=self._directory,
            store=self.store,
            upstream=UpstreamServices(self._client, self._routing, clock),
            zone=settings.timezone,
            recorders=(self._metrics.exchange, log.exchange),
            request_records=self._records.recorder,
            log_error=log.defect,
            clock=clock,
            new_id=id_maker(),
            new_boundary=token_hex,
            estimates=self._store.estimates,
            keepalive_s=settings.keepalive.total_seconds(),
            end_users=EndUserCounts(),
        )
        self._notifications = self._notification_lifecycle()
        self._traces = self._trace_export(environ, clock)
        self._tokens = TokenLifecycle(self.services, self._client, clock, log, self._background_tasks)
        self._note_configuration(settings, names)
        self._pipeline = Pipeline(self.services, BackgroundTasks(log.defect, self._metrics.task_failed))
        memory = BodyMemory(settings.max_body_memory)
        self._data = PublicRoutes(self._pipeline, settings.max_body, memory, CorsPolicy(), self._sessions("me"))
        self._follow_clients(settings)
        self.keys = self._key_administration()
        self._in_flight = RequestsInFlight(self._pipeline, clock, process_name(), log, self._losses.reply)
        self._traffic = TrafficHistory(self._metrics, clock, lambda: self.in_flight)
        self._api = self._admin_api(settings.admin.secret)
        probes = (self._exposition, self._liveness_problems, self._readiness_problems)
        self.admin = AdminHandlers(*probes, self._api.answer, self._api.refuse_stranger)
        self._shared_answers = self._shared(self._api)
        self._open: list[_OpenListener] = []

    async def start(self) -> tuple[tuple[Address, ...], Address]:
        """Listen, and return the addresses, data and admin (port 0 takes a free one). Raises OSError, and
        SettingsInvalid if the configuration has a key of the store."""
        await self._start_tasks()
        data = await self._listen(self._data.handle, self._client_limits(), self._settings.listen)
        admin_routes = AdminRoutes(self.admin._replace(admin_api=self._shared_answers.answer), self._log.defect)
        (admin,) = await self._listen(admin_routes.handle, ADMIN_CLIENTS, (self._settings.admin.listen,))
        return data, admin

    async def start_on_shared_ports(self, ports: Sequence[int], *, speaks: bool) -> tuple[Address, ...]:
        """Listen for clients as one of several processes. The one that `speaks` notifies of an outage of the store.
        Operators ask the supervisor. Raises what `start` does."""
        await self._start_tasks(speaks=speaks)
        addresses = [Address(address.host, port) for address, port in zip(self._settings.listen, ports, strict=True)]
        return await self._listen(self._data.handle, self._client_limits(), addresses, shared=True)

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._pipeline.in_flight

    def swap(self, loaded: LoadedSnapshot) -> ConfigSnapshot:
        """Serve new requests under this configuration. Returns the one before."""
        before, self.services.snapshot = self.services.snapshot, loaded.snapshot
        self.services.keepalive_s = loaded.settings.keepalive.total_seconds()
        self._directory.keep(loaded.snapshot)
        self._follow_clients(loaded.settings)
        self._note_configuration(loaded.settings, loaded.names)
        self._routing.keep(loaded.snapshot.models.values())
        self._follow_upstreams()
        self._notifications.follow()
        self.tasks.start("follow identity providers", self._tokens.follow())
        self._shared_answers.forget()
        self.tasks.start("remove series", self._remove_series())
        return before

    def on_reload(self, reload: Callable[[str], Awaitable[list[str]]]) -> None:
        """What POST /admin/v1/reload does."""
        self._api.reload = reload

    def reload_accepted(self) -> None:
        self._metrics.config_reloads.add(("accepted",))

    def reload_refused(self, problems: Sequence[str]) -> None:
        self._metrics.config_reloads.add(("refused",))
        self._notifications.refused(problems)

    async def drain(self, abort: asyncio.Event) -> None:
        """Stop: serve for `delay`, let running requests finish for `timeout`, then end them; `abort` ends either
        wait."""
        drain = self._settings.drain
        self._draining = self._data.closing = True
        await wait_first(abort.wait(), asyncio.sleep(drain.delay.total_seconds()))
        self._data.refusing = True
        for public in self._open[:1]:
            public.stop_accepting()
        await wait_first(abort.wait(), self._pipeline.wait_idle(), asyncio.sleep(drain.timeout.total_seconds()))
        self._pipeline.abort()
        await self._pipeline.wait_ended()
        await self.close()

    async def close(self) -> None:
        """Close everything, once all ended requests are settled and recorded."""
        for opened in self._open:
            opened.stop_accepting()
            await opened.listener.close()
        self._open.clear()
        await self._pipeline.wait_settled()
        # A reload that ended later would start health checks again.
        await self.tasks.close()
        await self._notifications.close()
        await self._tokens.close()
        await self._health_checks.close()
        if self._traces is not None:
            await self._traces.close()
        await self._client.close()
        await self._directory.close()
        await self._records.close()
        await self._losses.close()
        await self._store.close()
        self._log.report_left_out()

    async def packed_metrics(self) -> bytes:
        """This process's share, for a caller that sums several processes."""
        self._observe()
        return self._metrics.packed([each async for each in in_slices(self._metrics.each(), 1)])

    def _new_client(self) -> HttpClient:
        most = max_connections_of_clients()
        return HttpClient(self._background_tasks(), self._turn, self._note_unrequested_bytes, max_connections=most)

    def _new_health_checks(self, clock: Clock) -> HealthChecks:
        return HealthChecks(self._client, self._routing.health, clock, Random(), self._background_tasks())

    def _client_limits(self) -> ClientLimits:
        """The connections that the settings allow, or fewer if the process has not enough file descriptors."""
        most, possible = self._settings.max_clients, max_connections_of_clients()
        if possible < most and self._settings.is_max_clients_given:
            self._log.warning("max_clients lowered", wanted=most, connections=possible, why="file descriptors")
        return ClientLimits(min(most, possible))

    async def _start_tasks(self, *, speaks: bool = True) -> None:
        await self._refuse_clashes()
        self._store.start(self._losses.history.observe_store)
        if self._traces is not None:
            self._traces.start()
        self._records.start()
        self._losses.start()
        self.store.answer_processes(self._in_flight.answer)
        self._directory.start()
        self._follow_upstreams()
        self._notifications.start(speaks=speaks)
        await self._tokens.start()
        lag = partial(watch_loop_lag, self._metrics.loop_lagged, self.services.clock.monotonic)
        self.tasks.keep_running("watch the loop's lag", lag)
        forecasts = partial(watch_forecasts, self.store, self._metrics.quotas.configured, self._metrics.forecasts)
        self.tasks.keep_running("forecast quotas", forecasts)
        self.tasks.keep_running("report log lines left out", self._report_left_out)
        self.tasks.keep_running("sample the traffic", self._traffic.follow)

    def _store_lifecycle(self, clock: Clock) -> StoreLifecycle:
        return StoreLifecycle(
            self._settings.store,
            clock,
            self._settings.timezone,
            self._log,
            self._background_tasks,
            observe=self._metrics.store_call,
            count_entries=self._metrics.journal_entries_were,
        )

    def _admin_api(self, token: str) -> AdminApi:
        access = AdminAccess(token, self._sessions("console"), self._note_admin_refusal, self.keys.note)
        traffic = traffic_page(self._traffic)
        pages = {"traffic": traffic, "overview": overview_page(traffic, upstreams, self._losses.administration.summary)}
        return AdminApi(self.services, access, self._administered(), pages)

    def _key_administration(self) -> KeyAdministration:
        zone, used_since = self._settings.timezone, partial(keys_used_since, self.store)
        return KeyAdministration(self._store.keys, self._in_force, zone, self._note_change, used_since)

    def _shared(self, api: AdminApi) -> SharedAnswers:
        return SharedAnswers(api.answer, api.refuse_stranger, self.tasks, self.services.clock.monotonic)

    def _sessions(self, kind: str) -> SessionDirectory:
        return SessionDirectory(self._store.keys, kind, self.services.clock.now_ms)

    def _administered(self) -> Mapping[str, Administer]:
        """What answers every method of the admin API, by the first part of the path."""
        requests = RequestAdministration(self.store, self._teams, self.keys.note, self._in_flight.answer)
        zone = self._settings.timezone
        grants = GrantAdministration(self._store.keys, self.store, self._in_force, zone, self._note_change)
        config = ConfigDocuments(lambda: self._config)
        of_keys = {"keys": self.keys.answer, "audit": self.keys.answer}
        notifications = NotificationList(self._store.notifications)
        others = {"requests": requests.answer, "config": config.answer, "notifications": notifications.answer}
        return of_keys | {"grants": grants.answer, "losses": self._losses.administration.answer, **others}

    def _trace_export(self, environ: Mapping[str, str], clock: Clock) -> TraceExport | None:
        """Trace requests with this tracer from now on."""
        tasks, count = self._background_tasks(), self._metrics.spans_were
        export = trace_export(environ, self._client, clock, self._log, tasks, count)
        if export is not None:
            self.services.begin_trace = export.tracer.begin
            self.services.recorders = (*self.services.recorders, export.tracer.record)
        return export

    def _notification_lifecycle(self) -> NotificationLifecycle:
        return NotificationLifecycle(
            self.services, self._store, self._client, self._metrics, self._log, self._background_tasks
        )

    def _background_tasks(self) -> BackgroundTasks:
        return BackgroundTasks(self._log.defect, self._metrics.task_failed)

    def _note_configuration(self, settings: ProcessSettings, names: ConfiguredNames) -> None:
        """For operators, the metrics and the records of requests: what is in force."""
        now_ms = self.services.clock.now_ms()
        self._config = ConfigInForce(settings.text, settings.file, settings.file_hash, now_ms)
        self._metrics.keep(self.services.snapshot, names)
        self._metrics.config_loaded(settings.file_hash, now_ms / 1000)
        self._records.follow(settings.record, len(names.team), settings.file_hash)

    def _follow_clients(self, settings: ProcessSettings) -> None:
        """Apply the web pages that may call, and the trusted proxies."""
        self._data.cors = CorsPolicy(settings.origins)
        self._data.addresses = ClientAddresses(settings.trusted_proxies)

    def _follow_upstreams(self) -> None:
        """Share and check the upstreams of the snapshot in force."""
        serving = self.services.snapshot
        self._client.keep(serving.models.values(), teams=len(serving.teams))
        asked = [upstream for upstream in serving.upstreams() if upstream.check_path]
        self._health_checks.keep(
            HealthCheck(upstream, upstream.check_path, upstream.check_every_s) for upstream in asked
        )

    def _note_admin_refusal(self, request: AdminRequest, error: GatewayError) -> None:
        self._metrics.admin_refused.add((error.code,))
        self._log.admin_refused(request.client_ip, request.method, request.path, error.status, error.code)

    def _teams(self) -> Collection[str]:
        return self.services.snapshot.teams

    def _in_force(self) -> ConfigSnapshot:
        return self.services.snapshot

    def _note_change(self, entry: AuditEntry) -> None:
        fields = {"actor": entry.actor, "action": entry.action, "subject": entry.subject}
        self._log.info("audit", **fields, before=entry.before, after=entry.after)

    async def _refuse_clashes(self) -> None:
        """Raises SettingsInvalid. While the store is out its keys are unknown: the next reload checks them."""
        with suppress(StoreUnavailable):
            if clashes := await self.keys.clashes(self.services.snapshot):
                raise SettingsInvalid(Diagnostic((), clash) for clash in clashes)

    async def _report_left_out(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            self._log.report_left_out()

    def _note_health(self, change: Change) -> None:
        write = self._log.warning if change.after in ("open", "down") else self._log.info
        more: dict[str, object] = {"model": change.model} if change.model else {}
        if change.opening is not None:
            more["why"] = dict(change.opening.reasons)
            if change.opening.key:
                more["only_key"] = change.opening.key
        elif change.failed_checks:
            more["why"] = change.failed_checks
        write("upstream health", upstream=change.upstream, before=change.before, after=change.after, **more)

    def _note_unrequested_bytes(self, upstream: str, was_trusted: bool) -> None:
        self._metrics.attempts.add((upstream, "unrequested_bytes"))
        if was_trusted:  # One that does so with each answer would fill the log.
            self._log.warning("upstream sent bytes that answer no request", upstream=upstream)

    async def _listen(
        self, handler: Handler, limits: ClientLimits, addresses: Sequence[Address], *, shared: bool = False
    ) -> tuple[Address, ...]:
        listener = Listener(handler, self.services.new_id, limits, self._turn)
        servers = await listen_on_all(listener, addresses, shared=shared, backlog=_BACKLOG)
        more = await accept_faster(listener, servers, backlog=_BACKLOG)
        self._open.append(_OpenListener([*servers, *more], listener))
        return tuple(map(address_taken, addresses, servers))

    def _dropped(self) -> Mapping[str, int]:
        """What the metrics have only once they are scraped."""
        return {"log_lines_dropped": self._log.dropped(), "records_dropped": self._records.recorder.dropped}

    def _observe(self) -> None:
        self._metrics.in_flight.set(self.in_flight)
        now = self.services.clock.monotonic()
        seen = self._routing.health.view(self.services.snapshot.upstreams(), now)
        # From scratch each time: an upstream that a reload has removed is not reported any more.
        self._metrics.upstream_up.values = {(each.name,): int(each.up) for each in seen}
        self._metrics.unsettled.set(self._store.unsettled)
        self._metrics.notifications_waiting.set(self._notifications.waiting)
        if self._open:
            clients = self._open[0].listener
            self._metrics.client_connections.set(clients.open_connections)
            self._metrics.clients_refused.values[()] = clients.refused
        self._metrics.log_lines_dropped.values[()] = self._log.dropped()
        self._metrics.records_dropped.values[()] = self._records.recorder.dropped

    async def _exposition(self) -> tuple[bytes, str]:
        self._observe()
        return b"".join([part async for part in in_slices(self._metrics.parts(), 1)]), CONTENT_TYPE

    async def _remove_series(self) -> None:
        """Those of what is no longer configured, whether or not metrics are ever read."""
        async for _ in in_slices(self._metrics.each(), 1):
            pass

    async def _liveness_problems(self) -> list[str]:
        return []  # A process that answers is healthy.

    async def _readiness_problems(self) -> list[str]:
        refusal = self._store.refusal
        return ["draining"] * self._draining + [f"the store {refusal}"] * bool(refusal)
