"""The notifications of a running gateway: builds their parts, follows the configuration in force, closes them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from gateway.app.store_lifecycle import StoreLifecycle
from gateway.core.errors import StoreUnavailable
from gateway.core.health import UpstreamStatus
from gateway.core.snapshot import ConfigSnapshot
from gateway.notifications.crossings import QuotaReader
from gateway.notifications.delivery import DeliveryReports, NotificationDelivery
from gateway.notifications.messages import Notification
from gateway.notifications.sending import NotificationSender
from gateway.notifications.watching import NotificationWatch, Speaker, WatchedParts
from gateway.pipeline import Services
from gateway.runtime.tasks import BackgroundTasks
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.upstream.contract import UpstreamClient


class NotificationLifecycle:
    """`start` once the event loop runs."""

    def __init__(
        self,
        services: Services,
        store: StoreLifecycle,
        client: UpstreamClient,
        metrics: Metrics,
        log: Log,
        new_tasks: Callable[[], BackgroundTasks],
    ) -> None:
        self._services = services
        self._outbox = store.notifications
        self._log = log
        self._tasks = new_tasks()

        def count(channel: str, outcome: str) -> None:
            metrics.notifications.add((channel, outcome))

        def serving() -> ConfigSnapshot:
            return services.snapshot

        self._delivery = NotificationDelivery(
            self._outbox,
            NotificationSender(client),
            serving,
            QuotaReader(services.directory.counted_as, services.store.limit_statuses),
            services.clock,
            DeliveryReports(self._log_failure, self._log_parked, count),
            new_tasks(),
        )
        watched = WatchedParts(self._upstreams, lambda: store.trouble, store.keys, serving)
        speaker = Speaker(socket.gethostname(), store.on_outage)
        self._watch = NotificationWatch(self._delivery, watched, speaker, services.clock)

    @property
    def waiting(self) -> int:
        return self._outbox.waiting

    def start(self, *, speaks: bool) -> None:
        """`speaks`: whether this process notifies of an outage of the store for its gateway."""
        self._watch.speaks = speaks
        self.follow()
        self._delivery.start()
        self._tasks.keep_running("watch what is notified of", self._watch.follow_health)
        self._tasks.keep_running("watch keys that expire", self._watch.follow_keys)

    def follow(self) -> None:
        """Another configuration is in force."""
        snapshot = self._services.snapshot
        self._outbox.follow(snapshot.teams, {model.name for model in snapshot.models.values()})

    def refused(self, problems: Sequence[str]) -> None:
        """A configuration was refused."""
        self._tasks.start("notify of a refused configuration", self._notify_refused(list(problems)))

    async def close(self) -> None:
        await self._tasks.close()
        await self._delivery.close()

    async def _notify_refused(self, problems: Sequence[str]) -> None:
        try:
            await self._watch.configuration_refused(problems)
        except StoreUnavailable:
            self._log.warning("a refused configuration is not notified of", why="the store does not answer")

    def _upstreams(self) -> list[UpstreamStatus]:
        routing = self._services.upstream.routing
        return routing.health.view(self._services.snapshot.upstreams(), self._services.clock.monotonic())

    def _log_parked(self, entry: str, error: BaseException) -> None:
        self._log.defect(f"a notification that waited cannot be delivered, and is parked: {entry!r}", error)

    def _log_failure(self, message: Notification, problem: str) -> None:
        self._log.warning(
            "notification not delivered", channel=message.channel, id=message.id, type=message.type, why=problem
        )
