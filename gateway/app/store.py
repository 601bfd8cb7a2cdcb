"""The store that the settings ask for, with what keeps it steady and its holds alive."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks
from gateway.settings.shape import StoreSettings
from gateway.store.contract import Store
from gateway.store.in_memory import InMemoryStore
from gateway.store.journal import Journal
from gateway.store.leases import LeaseRenewer
from gateway.store.outbox import OutboxStore, Policy
from gateway.telemetry.log import Log

if TYPE_CHECKING:
    from gateway.store.in_redis import Observer

LOOK_EVERY_S = 1.0
"""Between two looks whether the store answers."""


class StoreRoom:
    """`store` is what the journey asks; `start` once the event loop runs. Raises StoreUnavailable where the journal's
    folder cannot be written to."""

    def __init__(
        self,
        settings: StoreSettings,
        around: tuple[Clock, ZoneInfo],
        observe: Observer,
        log: Log,
    ) -> None:
        clock, zone = around
        self._steady: OutboxStore | None = None
        self._refuses = settings.on_outage == "refuse"
        self._log = log
        self._watching: asyncio.Task[None] | None = None
        inner: Store
        if settings.url == "memory://":
            inner = InMemoryStore(clock, zone)
        else:
            # A gateway that keeps everything in memory does without these six megabytes.
            from gateway.store.in_redis import RedisOptions, RedisStore

            process = secrets.token_hex(6)
            options = RedisOptions(settings.url, process, settings.prefix, settings.timeout.total_seconds())
            journal = _journal(settings.journal or state_folder(os.environ), process)
            policy = Policy(log.error, lets_through=not self._refuses)
            inner = self._steady = OutboxStore(RedisStore(options, zone, observe, log.defect), journal, policy, around)
        self.store = self._leases = LeaseRenewer(inner, BackgroundTasks(log.defect))

    def start(self) -> None:
        self._leases.start()
        if self._steady is not None:
            self._steady.start()
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._steady))

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self.store.close()

    @property
    def denial(self) -> str | None:
        """Why nobody is served: the store is out, and requests are refused meanwhile."""
        return self._steady.trouble if self._steady is not None and self._refuses else None

    @property
    def unsettled(self) -> int:
        """Requests that wait on the disk."""
        return self._steady.unsettled if self._steady is not None else 0

    async def _watch(self, steady: OutboxStore) -> None:
        """Ask the store now and then, so that readiness knows of an outage before a request does, and tell
        operators when it goes out and when it is back."""
        was_out = False
        while True:
            with suppress(StoreUnavailable):
                await steady.ping()
            trouble = steady.trouble
            if trouble is not None and not was_out:
                self._log.error("store out", reason=trouble)
            if trouble is None and was_out:
                self._log.info("store back")
            was_out = trouble is not None
            await asyncio.sleep(LOOK_EVERY_S)


def _journal(folder: Path, process: str) -> Journal:
    try:
        return Journal(folder, process)
    except OSError as error:
        raise StoreUnavailable(
            f"The journal cannot be kept in {folder}: {error.strerror or error}. Name another folder as store.journal."
        ) from error


def state_folder(environment: Mapping[str, str]) -> Path:
    """Where a program keeps what must outlive it: as systemd says it (systemd.exec, STATE_DIRECTORY), else as the
    XDG Base Directory Specification does."""
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = environment.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "state") / "inducta-gateway"
