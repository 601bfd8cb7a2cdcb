"""The store that the settings name: built, started, watched and closed.

In front of Redis is the outbox, which keeps on disk what an outage would lose. Beside the store, one task renews the
leases of what runs, and another shares what this process learns about the size of requests.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from gateway.app.process_settings import StoreTerms
from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import Estimates
from gateway.identity.contract import KeyStore
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.backlog import Policy
from gateway.store.contract import LossStore, NotificationOutbox, Store
from gateway.store.estimate_sharing import EstimateSharing
from gateway.store.in_memory import InMemoryStore
from gateway.store.journal import Journal
from gateway.store.leases import LeaseRenewer
from gateway.store.outbox import OutboxStore
from gateway.telemetry.log import Log

if TYPE_CHECKING:
    from gateway.store.in_redis import Observer

LOOK_EVERY_S = 1.0
"""Between two pings of the store."""


class StoreLifecycle:
    """`store` and `estimates` are what requests use; `start` once the event loop runs. Raises StoreUnavailable where
    the journal's folder cannot be written to."""

    def __init__(
        self,
        settings: StoreTerms,
        clock: Clock,
        zone: ZoneInfo,
        log: Log,
        new_tasks: Callable[[], BackgroundTasks],
        observe: Observer,
        count_entries: Callable[[str, int], None],
    ) -> None:
        self._outbox: OutboxStore | None = None
        self.on_outage = settings.on_outage
        self._refuses = settings.on_outage == "refuse"
        self._log = log
        self._tasks = new_tasks()
        inner: Store
        self.keys: KeyStore
        """The keys beside those of the configuration, and the audit."""
        self.notifications: NotificationOutbox
        self.losses: LossStore
        if settings.is_in_memory:
            inner = in_memory = InMemoryStore(clock, zone)
            self.notifications = in_memory.notifications
            self.losses = in_memory.losses
            self.keys = InMemoryKeyStore(clock)
        else:
            # A gateway that keeps everything in memory does without these six megabytes.
            from gateway.identity.in_redis import RedisKeyStore
            from gateway.store.in_redis import RedisOptions, RedisStore  # As above.

            process = secrets.token_hex(6)
            options = RedisOptions(settings.url, process, settings.prefix, settings.timeout.total_seconds())
            journal = _journal(settings.journal or state_folder(os.environ), process, new_tasks())
            if journal.is_exposed:
                log.warning("journal can be removed by another user", folder=str(journal.path.parent))
            policy = Policy(
                log.error,
                lets_through=not self._refuses,
                takes_unsigned=settings.journal_unsigned == "accept",
                count=count_entries,
            )
            backend = RedisStore(options, zone, observe, new_tasks())
            self.notifications = backend.notifications
            self.losses = backend.losses
            self.keys = RedisKeyStore(backend.client.background, settings.prefix, new_tasks())
            inner = self._outbox = OutboxStore(backend, journal, policy, zone, new_tasks())
        self.store = inner
        self._renewer = LeaseRenewer(inner, new_tasks())
        self.estimates = Estimates()
        self._sharing = EstimateSharing(self.store, self.estimates, new_tasks())

    def start(self, observe: ObserveStore) -> None:
        """`observe` is called each second; with memory:// there is nothing to observe."""
        self._renewer.start()
        self._sharing.start()
        if self._outbox is not None:
            self._outbox.start()
            watch = partial(watch_store, self._outbox, self._log, observe)
            self._tasks.keep_running("watch the store", watch)

    async def close(self) -> None:
        await self._tasks.close()
        await self.keys.close()
        await self._sharing.close()
        await self._renewer.close()
        await self.store.close()

    @property
    def refusal(self) -> str | None:
        """Why requests are refused: the store does not answer, and `on_outage` is `refuse`."""
        return self.trouble if self._refuses else None

    @property
    def trouble(self) -> str | None:
        """Why the store counts as out; None while it answers."""
        return self._outbox.trouble if self._outbox is not None else None

    @property
    def unsettled(self) -> int:
        """Requests that wait to be settled, on the disk or in memory."""
        return self._outbox.unsettled if self._outbox is not None else 0

    @property
    def journal_fails(self) -> bool:
        """Whether the disk does not take settlements: those that wait end with the process."""
        return self._outbox is not None and self._outbox.journal_fails


class ObserveStore(Protocol):
    def __call__(self, waiting: int, *, is_out: bool) -> None:
        """How many requests wait to be settled, and whether the store does not answer."""
        ...


class WatchedStore(Protocol):
    @property
    def trouble(self) -> str | None: ...

    @property
    def unsettled(self) -> int: ...

    async def ping(self) -> None: ...


async def watch_store(store: WatchedStore, log: Log, observe: ObserveStore) -> None:
    """Ping the store regularly, so that readiness knows of an outage before a request does; log its beginning and end,
    and let it be observed."""
    was_out = False
    while True:
        with suppress(StoreUnavailable):
            await store.ping()
        trouble = store.trouble
        if trouble is not None and not was_out:
            log.error("store unavailable", reason=trouble)
        if trouble is None and was_out:
            log.info("store available")
        was_out = trouble is not None
        observe(store.unsettled, is_out=was_out)
        await asyncio.sleep(LOOK_EVERY_S)


def _journal(folder: Path, process: str, tasks: BackgroundTasks) -> Journal:
    try:
        return Journal(folder, process, tasks)
    except OSError as error:
        raise StoreUnavailable(
            f"The journal cannot be kept in {folder}: {error.strerror or error}. Name another folder as store.journal."
        ) from error


def state_folder(environment: Mapping[str, str]) -> Path:
    """The folder for what must outlive the process: systemd's (systemd.exec, STATE_DIRECTORY), else that of the XDG
    Base Directory Specification."""
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = environment.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "state") / "inducta-gateway"
