"""A store whose outages lose nothing: what cannot be settled is kept on disk and replayed when it can be.

What dead processes of this machine left behind is replayed too. Admission is refused while the store
is out or, if the operator prefers that, let through unasked and charged later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.calendar import window
from gateway.core.clock import Clock
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Limit, Meter
from gateway.core.reservation import AdmissionRequest, Hold, Refusal, Reservation, Settlement, SettlementLine
from gateway.store.contract import Store
from gateway.store.journal import Journal, JournalFull, Line, Orphan, count, orphans, read
from gateway.store.wrapper import StoreWrapper

_PAUSE_S = 1.0
"""Between two looks whether the store is back."""

_ORPHANS_S = 60.0
"""Between two looks for journals that were left behind."""


class Replayed(Store, Protocol):
    @property
    def trouble(self) -> str | None:
        """Why it counts as out, for operators; None while it answers."""
        ...

    async def replay(self, process: str, place: int, settlement: Settlement) -> None:
        """Settle what stands at this place of a process's journal, once, however often it is replayed.
        Raises StoreUnavailable."""
        ...


class Policy(msgspec.Struct, frozen=True):
    """`lets_through`: whether requests pass unasked while the store is out. `log_error` is told what is lost."""

    log_error: Callable[[str], None]
    lets_through: bool = False
    pause_s: float = _PAUSE_S
    orphans_s: float = _ORPHANS_S


class OutboxStore(StoreWrapper[Replayed]):
    """`start` once the event loop runs."""

    def __init__(self, store: Replayed, journal: Journal, policy: Policy, around: tuple[Clock, ZoneInfo]) -> None:
        super().__init__(store)
        self._journal = journal
        self._policy = policy
        self._clock, self._zone = around
        self._unasked: set[str] = set()
        self._read_up_to = 0
        self._own = 0
        self._orphaned = 0
        self._replaying: asyncio.Task[None] | None = None
        self._kept = asyncio.Event()

    @property
    def unsettled(self) -> int:
        """Requests that wait on the disk."""
        return self._own + self._orphaned

    @property
    def trouble(self) -> str | None:
        return self._store.trouble

    def start(self) -> None:
        self._replaying = asyncio.get_running_loop().create_task(self._replay_for_good())

    async def admit(self, request: AdmissionRequest) -> Reservation | Refusal:
        try:
            return await self._store.admit(request)
        except StoreUnavailable:
            # What could not be written down must not be let through: it would be free.
            if not self._policy.lets_through or self._journal.failing:
                raise
        self._unasked.add(request.id)
        now_ms = self._clock.now_ms()
        holds = tuple([Hold(charge.limit, 0, self._window(charge.limit, now_ms)) for charge in request.charges])
        return Reservation(request.id, now_ms, request.most, False, holds, ())

    async def settle(self, settlement: Settlement) -> None:
        """Raises StoreUnavailable only where neither the store nor the disk takes it."""
        if settlement.id in self._unasked:
            self._unasked.discard(settlement.id)
            settlement = _with_requests(settlement)
        try:
            await self._store.settle(settlement)
        except Exception as error:  # noqa: BLE001 # Whatever it is, a request that was answered must be charged.
            if not isinstance(error, StoreUnavailable):
                self._policy.log_error(f"request {settlement.id} cannot be settled and waits in the journal: {error!r}")
            await self._keep(settlement, error)

    async def _keep(self, settlement: Settlement, because: Exception) -> None:
        try:
            await self._journal.append(settlement)
        except JournalFull as full:
            raise StoreUnavailable(f"A settlement is lost: {full}") from because
        self._own += 1
        self._kept.set()

    async def close(self) -> None:
        """What is still on the disk waits there for the next start."""
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.wait([self._replaying])
        await self._journal.close()
        await self._store.close()

    def _window(self, limit: Limit, now_ms: int) -> int:
        return window(limit.per, self._zone, now_ms)[0] if limit.is_quota and limit.per else 0

    async def _replay_for_good(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while True:
            try:
                if loop.time() >= look_at:
                    await self._replay_orphans()
                    look_at = loop.time() + self._policy.orphans_s
                await self._replay_own()
            except StoreUnavailable:
                await asyncio.sleep(self._policy.pause_s)
                continue
            except OSError as error:
                self._policy.log_error(f"the journal cannot be read: {error}")
                await asyncio.sleep(self._policy.orphans_s)
                continue
            except Exception as error:  # noqa: BLE001 # A defect in one entry must not end the replay of all.
                self._policy.log_error(f"the journal cannot be replayed: {error!r}")
                await asyncio.sleep(self._policy.pause_s)
                continue
            try:
                async with asyncio.timeout_at(look_at):
                    await self._kept.wait()
            except TimeoutError:
                continue

    async def _replay_own(self) -> None:
        self._kept.clear()
        while not await self._journal.empty(self._read_up_to):
            for line, end in await asyncio.to_thread(read, self._journal.path, self._read_up_to):
                await self._replay(self._journal.process, line)
                self._own -= 1
                self._read_up_to = end
        self._read_up_to = 0

    async def _replay_orphans(self) -> None:
        """From their beginning, however far somebody came before: the store knows."""
        found = list(orphans(self._journal.path.parent))
        try:
            self._orphaned = sum([await asyncio.to_thread(count, orphan.path) for orphan in found])
            while found:
                await self._replay_orphan(found[-1])
                found.pop().remove()
        finally:
            for orphan in found:
                orphan.release()

    async def _replay_orphan(self, orphan: Orphan) -> None:
        start = 0
        while lines := await asyncio.to_thread(read, orphan.path, start):
            for line, start in lines:  # noqa: B007 # The last one is where to read on.
                await self._replay(orphan.process, line)
                self._orphaned -= 1

    async def _replay(self, process: str, line: Line | None) -> None:
        if line is None:
            self._policy.log_error(f"a line of the journal of {process} is damaged: one request is not charged")
        else:
            await self._store.replay(process, line.place, line.settlement)


def _with_requests(settlement: Settlement) -> Settlement:
    """Nobody has counted a request that was let through unasked."""
    dues = tuple(
        [SettlementLine(due.hold, 1) if due.hold.limit.meter is Meter.REQUESTS else due for due in settlement.dues]
    )
    return msgspec.structs.replace(settlement, dues=dues)
