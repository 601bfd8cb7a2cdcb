"""Losses in memory: of one process, and forgotten with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gateway.core.calendar import DAY_MS
from gateway.core.losses import LossReport, LossSlot, merged, slot_of
from gateway.store.contract import LOSS_DAYS


class InMemoryLosses:
    """Implements `contract.LossStore`."""

    def __init__(self) -> None:
        self._since_ms: int | None = None
        self._totals: Counter[str] = Counter()
        self._slots: list[LossSlot] = []

    async def add_losses(self, now_ms: int, slots: Sequence[LossSlot]) -> None:
        if self._since_ms is None:
            self._since_ms = now_ms
        for slot in slots:
            self._totals.update(slot.counts)
        oldest_ms = now_ms - LOSS_DAYS * DAY_MS
        self._slots = [slot for slot in merged([*self._slots, *slots]) if slot.at_ms >= oldest_ms]

    async def losses(self, since_ms: int, now_ms: int) -> LossReport:
        first_ms = slot_of(since_ms)
        slots = [slot for slot in self._slots if first_ms <= slot.at_ms <= now_ms]
        return LossReport(self._since_ms, dict(self._totals), slots)
