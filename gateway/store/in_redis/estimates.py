"""What processes have learned about requests, in one Redis hash: estimates are few, and no request waits for them.

A row is what one process has learned about one team and model. Its name is a JSON array of team, model and process, its
value seven little-endian doubles: the server's time of writing, and the figures of a `LearnedEstimate`. A process
writes only its own rows, so that no script has to merge anything. The reader merges the rows, and removes those that
are too old, too many or unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack, unpack
from typing import NamedTuple

import msgspec

from gateway.core.calendar import DAY_MS
from gateway.core.estimate import ESTIMATORS_MAX, EstimateSubject, LearnedEstimate, merged
from gateway.store.contract import ESTIMATES_DAYS, ESTIMATES_MERGED
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys

_LIFE_MS = ESTIMATES_DAYS * DAY_MS
_AHEAD_MS = 3_600_000
"""A row that is written later than now by more is not to be believed: no newer one would ever displace it."""

_ROWS_AT_ONCE = 500
_ROW_BYTES = 56
_ROWS_MAX = 2 * ESTIMATORS_MAX
_NAME = msgspec.json.Decoder(tuple[str, str, str])


class _EstimateRow(NamedTuple):
    at_ms: float
    field: bytes
    subject: EstimateSubject
    estimate: LearnedEstimate


class EstimateRows:
    def __init__(self, client: Router, keys: StoreKeys, process: str) -> None:
        self._client = client
        self._key = keys.estimates()
        self._process = process

    async def write(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        """Raises StoreUnavailable."""
        now_ms = await self._client.time(self._key)
        rows: list[bytes] = []
        for subject, estimate in learned.items():
            rows += (
                msgspec.json.encode((*subject, self._process)),
                pack("<7d", now_ms, *msgspec.structs.astuple(estimate)),
            )
        for at in range(0, len(rows), 2 * _ROWS_AT_ONCE):
            await self._client.ask(self._key, ("HSET", self._key, *rows[at : at + 2 * _ROWS_AT_ONCE]))
        if rows:
            await self._client.ask(self._key, ("PEXPIRE", self._key, _LIFE_MS))

    async def read(self) -> dict[EstimateSubject, LearnedEstimate]:
        """Merged. Raises StoreUnavailable."""
        now_ms = await self._client.time(self._key)
        rows: dict[bytes, _EstimateRow] = {}
        useless: set[bytes] = set()
        async for batch in self._client.scan("HSCAN", self._key):
            for field, packed in zip(batch[::2], batch[1::2], strict=True):
                row = _row(field, packed)
                if row is None or not now_ms - _LIFE_MS <= row.at_ms <= now_ms + _AHEAD_MS:
                    useless.add(field)
                else:
                    rows[field] = row
        by_subject: dict[EstimateSubject, list[LearnedEstimate]] = {}
        for number, row in enumerate(sorted(rows.values(), reverse=True)):
            kept = by_subject.setdefault(row.subject, [])
            if len(kept) < ESTIMATES_MERGED and number < _ROWS_MAX:
                kept.append(row.estimate)
            else:
                useless.add(row.field)
        await self._remove(list(useless))
        merging = {subject: merged(estimates) for subject, estimates in by_subject.items()}
        return {subject: estimate for subject, estimate in merging.items() if estimate is not None}

    async def _remove(self, fields: list[bytes]) -> None:
        for at in range(0, len(fields), _ROWS_AT_ONCE):
            await self._client.ask(self._key, ("HDEL", self._key, *fields[at : at + _ROWS_AT_ONCE]))


def _row(field: bytes, packed: bytes) -> _EstimateRow | None:
    if len(packed) != _ROW_BYTES:
        return None
    try:
        team, model, _ = _NAME.decode(field)
    except msgspec.DecodeError:
        return None
    at_ms, *figures = unpack("<7d", packed)
    return _EstimateRow(at_ms, field, EstimateSubject(team, model), LearnedEstimate(*figures))
