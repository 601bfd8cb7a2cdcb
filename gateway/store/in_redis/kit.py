"""What every promise of this store works with."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec

from gateway.core.limits import Limit
from gateway.store.in_redis.calls import Part, Timing
from gateway.store.in_redis.clock import StoreClock
from gateway.store.in_redis.courier import Courier
from gateway.store.in_redis.doubts import Doubts
from gateway.store.in_redis.keys import ORGANISATION, Keys
from gateway.store.in_redis.ledger import Teams
from gateway.store.in_redis.records import Records
from gateway.store.in_redis.terms import Terminology

_ORDER = {"t": 0, "m": 1, "o": 2}
"""Admission asks the closest first, so that what a team has used up never touches what others share."""


class Kit(msgspec.Struct, frozen=True):
    """`process` names this gateway in the keys of its records; `by_slot`: a call speaks of one slot only."""

    courier: Courier
    keys: Keys
    words: Terminology
    clock: StoreClock
    records: Records
    teams: Teams
    doubts: Doubts
    zone: ZoneInfo
    process: str
    timing: Timing
    by_slot: bool

    def parts(self, limits: Sequence[Limit]) -> list[Part]:
        """The limits, by who can speak of them in one call."""
        terms = [self.words.of(limit) for limit in limits]
        if not self.by_slot or not limits:
            return [Part(ORGANISATION, tuple(range(len(limits))), tuple(terms))]
        places: dict[str, list[int]] = {}
        for place, one in enumerate(terms):
            places.setdefault(one.home, []).append(place)
        return [
            Part(home, tuple(at), tuple([terms[place] for place in at]))
            for home, at in sorted(places.items(), key=lambda item: _ORDER[item[0][0]])
        ]

    def record(self, part: Part, at_ms: int) -> str:
        return self.keys.record(part.home, self.process, at_ms)
