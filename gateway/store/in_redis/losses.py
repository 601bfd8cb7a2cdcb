"""Losses in Redis: a hash of the sums that is kept, and one for each day (UTC), all in the slot of the organisation.

A field of a day is `slot:kind`, which is counted up, or `slot:waiting:process` and `slot:out:process`, which the
process replaces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.core.calendar import DAY_MS
from gateway.core.losses import LossReport, LossSlot, merged, slot_of
from gateway.store.contract import LOSS_DAYS
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys

_TOTALS_DAYS = 400
"""From the last writing on, which every gateway repeats each minute: what no gateway uses any more ends."""

_SINCE, _WAITING, _OUT = "since", "waiting", "out"


class RedisLosses:
    """Implements `contract.LossStore`."""

    def __init__(self, client: Router, keys: StoreKeys) -> None:
        self._client = client
        self._keys = keys
        self._totals = keys.losses()

    async def add_losses(self, now_ms: int, slots: Sequence[LossSlot]) -> None:
        commands: list[tuple[str, ...]] = [
            ("HSETNX", self._totals, _SINCE, str(now_ms)),
            ("PEXPIRE", self._totals, str(_TOTALS_DAYS * DAY_MS)),
        ]
        for slot in slots:
            day = self._keys.losses_of_day(slot.at_ms // DAY_MS)
            for kind, count in slot.counts.items():
                commands.append(("HINCRBY", day, f"{slot.at_ms}:{kind}", str(count)))
                commands.append(("HINCRBY", self._totals, kind, str(count)))
            for what, by_process in ((_WAITING, slot.waiting), (_OUT, slot.store_out_s)):
                commands += [("HSET", day, f"{slot.at_ms}:{what}:{each}", str(n)) for each, n in by_process.items()]
            commands.append(("PEXPIRE", day, str((LOSS_DAYS + 1) * DAY_MS)))
        await asyncio.gather(*[self._client.ask(command[1], command) for command in commands])

    async def losses(self, since_ms: int, now_ms: int) -> LossReport:
        first_ms = slot_of(since_ms)
        days = [self._keys.losses_of_day(day) for day in range(first_ms // DAY_MS, now_ms // DAY_MS + 1)]
        kept = await asyncio.gather(*[self._client.ask(key, ("HGETALL", key)) for key in (self._totals, *days)])
        totals, *by_day = [_fields(each) for each in kept]
        since = totals.pop(_SINCE, None)
        slots = [slot for fields in by_day for slot in merged(map(_slot, fields, fields.values()))]
        return LossReport(since, totals, [slot for slot in slots if first_ms <= slot.at_ms <= now_ms])


def _fields(flat: Sequence[bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _slot(field: str, value: int) -> LossSlot:
    at, what, *process = field.split(":")
    if what == _WAITING:
        return LossSlot(int(at), waiting={process[0]: value})
    if what == _OUT:
        return LossSlot(int(at), store_out_s={process[0]: value})
    return LossSlot(int(at), counts={what: value})
