"""What the scripts must know of a limit: the key of its counter, and its numbers as counter.lua has them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from gateway.core.buckets import pace
from gateway.core.calendar import window
from gateway.core.limits import Limit, Meter, Mode, Per
from gateway.store.in_redis.keys import Keys, home

RATE, QUOTA, LEASES = 0, 1, 2

_REMEMBERED = 8_192
"""Limits whose terms are kept at hand, in each of two generations. Those of end users come anew with each request."""


class Terms:
    """`first` and `second` are a rate's flow and scale; a quota's window comes with the time."""

    __slots__ = ("at_once", "capacity", "enforced", "first", "home", "kind", "limit", "second", "stem")

    def __init__(self, limit: Limit, keys: Keys) -> None:
        self.limit = limit
        self.home = home(limit)
        self.stem = keys.counter(limit)
        self.enforced = int(limit.mode is Mode.ENFORCE)
        self.at_once = int(limit.meter is Meter.REQUESTS)
        self.first = self.second = 0
        self.capacity = limit.amount
        if limit.per is None:
            self.kind = LEASES
        elif limit.per.rate_ms is None:
            self.kind = QUOTA
        else:
            self.kind, self.capacity = RATE, limit.burst
            self.first, self.second = pace(limit)


class Terminology:
    """Terms of the limits that were asked for lately, and the calendar windows around now."""

    def __init__(self, keys: Keys, zone: ZoneInfo) -> None:
        self._keys = keys
        self._zone = zone
        self._terms: dict[int, Terms] = {}
        self._terms_before: dict[int, Terms] = {}
        self._windows: dict[Per, tuple[int, int]] = {}

    def of(self, limit: Limit) -> Terms:
        # By identity, since to hash a limit takes longer than to make its terms' use; the terms keep it alive.
        terms = self._terms.get(id(limit))
        if terms is None:
            if len(self._terms) >= _REMEMBERED:
                self._terms, self._terms_before = {}, self._terms
            terms = self._terms_before.get(id(limit)) or Terms(limit, self._keys)
            self._terms[id(limit)] = terms
        return terms

    def counter(self, terms: Terms, at_ms: int) -> tuple[str, int, int]:
        """The counter's key and its two terms at this time."""
        if terms.kind != QUOTA:
            return terms.stem, terms.first, terms.second
        start, end = self._window(terms.limit.per or Per.TOTAL, at_ms)
        return f"{terms.stem}:{start}", start, end

    def window_of(self, terms: Terms, at_ms: int) -> tuple[int, int]:
        """Of a quota; (0, 0) for other kinds."""
        return self._window(terms.limit.per or Per.TOTAL, at_ms) if terms.kind == QUOTA else (0, 0)

    def _window(self, per: Per, at_ms: int) -> tuple[int, int]:
        known = self._windows.get(per)
        if known is None or not known[0] <= at_ms < known[1]:
            known = self._windows[per] = window(per, self._zone, at_ms)
        return known
