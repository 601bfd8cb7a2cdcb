"""The losses of a running gateway: builds what counts, writes and reports them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from secrets import token_hex

from gateway.app.record_lifecycle import process_name
from gateway.app.store_lifecycle import StoreLifecycle
from gateway.core.clock import Clock
from gateway.core.losses import ProcessLosses
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.loss_writer import LossWriter
from gateway.telemetry.losses import LossHistory
from gateway.telemetry.metrics import Metrics
from gateway.web.admin_losses import LossAdministration


class LossLifecycle:
    """`start` once the event loop runs. `dropped` gives the numbers of kinds that no metric has at once."""

    def __init__(
        self,
        store: StoreLifecycle,
        metrics: Metrics,
        clock: Clock,
        dropped: Callable[[], Mapping[str, int]],
        tasks: BackgroundTasks,
    ) -> None:
        self._store = store
        self._id = token_hex(6)
        self._began_ms = clock.now_ms()
        self.history = LossHistory(metrics, clock, self._id, dropped)
        self.administration = LossAdministration(store.losses, store.store, clock, self.reply, self.history)
        self._writer = LossWriter(store.losses, self.history, clock, tasks)

    def start(self) -> None:
        self._writer.start()

    def reply(self) -> ProcessLosses:
        """This process's own view of this moment."""
        self.history.sample()
        store = self._store
        return ProcessLosses(
            self._id,
            process_name(),
            self._began_ms,
            store.unsettled,
            store.trouble,
            store.journal_fails,
            self.history.unsaved,
        )

    async def close(self) -> None:
        await self._writer.close()
