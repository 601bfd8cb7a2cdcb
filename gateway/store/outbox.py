"""A store whose outages lose nothing: what cannot be settled waits in the backlog.

While the store is out, admission is refused or, if the operator prefers that, requests pass unchecked and are charged
later.
"""

from __future__ import annotations

import asyncio
from functools import partial
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.calendar import window
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Meter
from gateway.core.reservation import (
    AdmissionRequest,
    Holds,
    LimitStatuses,
    Refusal,
    Reservation,
    Settlement,
    unasked_id,
)
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.backlog import Backlog, Policy, Replayed
from gateway.store.contract import Admission, SettlementEnd, SettlementRest
from gateway.store.journal import Journal
from gateway.store.wrapper import StoreWrapper


class OutboxStore(StoreWrapper[Replayed]):
    """`start` once the event loop runs; `tasks` are closed with it."""

    def __init__(
        self, store: Replayed, journal: Journal, policy: Policy, zone: ZoneInfo, tasks: BackgroundTasks
    ) -> None:
        super().__init__(store)
        self._policy = policy
        self._backlog = Backlog(store, journal, policy, tasks)
        self._zone = zone
        self._tasks = tasks
        self._unasked: set[str] = set()
        self._working: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> int:
        """Requests that wait, on the disk or in memory."""
        return self._backlog.waiting

    @property
    def journal_fails(self) -> bool:
        """Whether the disk does not take what is lost with the process."""
        return self._backlog.failing

    @property
    def trouble(self) -> str | None:
        return self._store.trouble

    def start(self) -> None:
        self._working = self._tasks.keep_running("replay the journal", self._backlog.work)

    def admit(self, request: AdmissionRequest) -> Admission:
        return self._admit_or_let_through(request) if self._policy.lets_through else self._store.admit(request)

    async def _admit_or_let_through(self, request: AdmissionRequest) -> Reservation | Refusal:
        try:
            return await self._store.admit(request)
        except StoreUnavailable:
            # What could not be written down must not be let through: it would be free.
            if self._backlog.failing:
                raise
        # The store may have admitted it all the same, and takes that back by itself: so this is another reservation.
        name, now_ms = unasked_id(request.id), self._store.now_ms()
        self._unasked.add(name)
        windows_ms = [self._window(limit, now_ms) for limit in request.limits]
        holds = Holds(request.limits, [0] * len(windows_ms), windows_ms)
        return Reservation(name, now_ms, request.most, False, holds, LimitStatuses())

    def begin_settlement(self, settlement: Settlement, then: SettlementEnd) -> None:
        """What is left raises StoreUnavailable only where neither the store, the disk nor memory takes it."""
        if settlement.id in self._unasked:
            self._unasked.discard(settlement.id)
            settlement = _with_requests(settlement)
        self._store.begin_settlement(settlement, partial(self._end, settlement, then))

    def _end(self, settlement: Settlement, then: SettlementEnd, rest: SettlementRest | None) -> None:
        then(None if rest is None else self._settle_or_keep(settlement, rest))

    async def _settle_or_keep(self, settlement: Settlement, rest: SettlementRest) -> None:
        try:
            await rest
        except Exception as error:  # noqa: BLE001 # Whatever it is, a request that was answered must be charged.
            if not isinstance(error, StoreUnavailable):
                self._policy.log_error(f"request {settlement.id} cannot be settled and waits in the journal: {error!r}")
                # The record may be what cannot be written: it never holds its settlement up.
                settlement = msgspec.structs.replace(settlement, record=None)
            await self._backlog.keep(settlement)

    async def close(self) -> None:
        """What is still on the disk waits there for the next start."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait([self._working])
        await self._backlog.close()
        await self._tasks.close()
        await self._store.close()

    def _window(self, limit: Limit, now_ms: int) -> int:
        return window(limit.per, self._zone, now_ms)[0] if limit.is_quota and limit.per else 0


def _with_requests(settlement: Settlement) -> Settlement:
    """No store has counted a request that was let through unasked."""
    limits = settlement.holds.limits
    actual = [
        1 if limit.meter is Meter.REQUESTS else used for limit, used in zip(limits, settlement.actual, strict=True)
    ]
    return msgspec.structs.replace(settlement, actual=actual)
