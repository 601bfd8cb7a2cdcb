"""The entries that settlements put into the outbox, and the notifications that are made of them.

A settlement knows a counter's name and its figures:

    quota    counter  window  percent  used  time              a quota has reached a part of its amount
    users    counter  window  percent                          the same of single end users: some, or many
    crossed  counter  window  percent  time  number  name …    how many they were, once that was gathered

This module finds the limit in the configuration, and makes a notification for each channel that wants the event. A team
may have ten thousand end users, so all crossings of one limit, window and part within a minute, later within an hour,
are one notification: it counts all of them and names a few. Each user is counted once for each window and part.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from gateway.core.limit_status import in_unit, limit_status_object
from gateway.core.limits import Limit
from gateway.core.notifications import EventType
from gateway.core.reservation import LimitStatus
from gateway.core.snapshot import ConfigSnapshot, KeyTerms
from gateway.core.time_format import rfc3339
from gateway.notifications.messages import Notification, notification
from gateway.store.contract import CROSSED_ENTRY, QUOTA_ENTRY, USERS_ENTRY

_TOKENS = re.compile(r"jwt-[0-9a-f]{8}")
"""What tokens of an identity provider have in place of a key's id."""


class Crossing(NamedTuple):
    """An entry of a settlement. For a quota it has `used`; for end users their number and the names of some."""

    counter: str
    begins: str
    percent: int
    at_ms: int
    used: int = 0
    users: int = 0
    named: tuple[str, ...] = ()

    @classmethod
    def read(cls, entry: str) -> Crossing:
        """Raises ValueError."""
        kind, counter, begins, percent, *more = entry.split("\n")
        if f"{kind}\n" == QUOTA_ENTRY:
            used, at_ms = more
            return cls(counter, begins, int(percent), int(at_ms), used=int(used))
        if f"{kind}\n" == CROSSED_ENTRY:
            at_ms, users, *named = more
            return cls(counter, begins, int(percent), int(at_ms), users=int(users), named=tuple(named))
        if f"{kind}\n" == USERS_ENTRY and not more:
            return cls(counter, begins, int(percent), 0)
        raise ValueError(f"{kind[:20]!r} is no kind of entry, or has other figures")


class QuotaReader(NamedTuple):
    """Finds the limits that settlements name: in the configuration with the stored keys, and their status now."""

    with_stored_keys: Callable[[], Awaitable[ConfigSnapshot]]
    statuses: Callable[[Sequence[Limit]], Awaitable[list[LimitStatus]]]


class CrossingNotifications:
    """`serving` returns the configuration in force, `counter_name` the name of a limit's counter in entries."""

    def __init__(
        self, serving: Callable[[], ConfigSnapshot], quotas: QuotaReader, counter_name: Callable[[Limit], str]
    ) -> None:
        self._serving = serving
        self._quotas = quotas
        self._counter_name = counter_name

    async def of(self, crossing: Crossing) -> list[Notification] | None:
        """None if the limit is unknown. Raises StoreUnavailable."""
        if crossing.users:
            limit = _user_limit(self._serving(), crossing.counter, self._counter_name)
            event = EventType.QUOTA_USERS
        else:
            limit = await self._limit_called(crossing.counter)
            event = EventType.QUOTA_THRESHOLD
        if limit is None:
            return None
        data = self._users_data(limit, crossing) if crossing.users else await self._quota_data(limit, crossing)
        occasion = f"{crossing.counter}\n{crossing.begins}\n{crossing.percent}"
        if crossing.users:
            occasion = f"{occasion}\n{crossing.at_ms}"
        wanting = [
            each for each in self._serving().channels if each.wants(event, limit.team) and crossing.percent in each.at
        ]
        return [notification(each, event, data, occasion, crossing.at_ms) for each in wanting]

    async def _quota_data(self, limit: Limit, crossing: Crossing) -> Mapping[str, object]:
        (status,) = await self._quotas.statuses([limit])
        # The window may be over by now: the message has what was used then.
        shown = limit_status_object(msgspec.structs.replace(status, used=max(crossing.used, status.used)))
        return {**shown, **self._about(limit, crossing)}

    def _users_data(self, limit: Limit, crossing: Crossing) -> Mapping[str, object]:
        terms = {
            "name": limit.name,
            "scope": limit.scope.value,
            "meter": limit.meter.value,
            "per": limit.per.value if limit.per else None,
            "amount": in_unit(limit, limit.amount),
            "mode": limit.mode.value,
        }
        return {**terms, "users": crossing.users, "named": list(crossing.named), **self._about(limit, crossing)}

    def _about(self, limit: Limit, crossing: Crossing) -> Mapping[str, object]:
        terms = self._serving().teams.get(limit.team)
        return {
            "percent": crossing.percent,
            "crossed_at": rfc3339(crossing.at_ms),
            "team": limit.team or None,
            "owner": (terms.owner if terms is not None else "") or None,
        }

    async def _limit_called(self, counter: str) -> Limit | None:
        """Raises StoreUnavailable."""
        found = await asyncio.to_thread(_find, self._serving(), counter, self._counter_name)
        if found is None:
            snapshot = await self._quotas.with_stored_keys()
            found = await asyncio.to_thread(_find, snapshot, counter, self._counter_name)
        return found


def _user_limit(snapshot: ConfigSnapshot, counter: str, counter_name: Callable[[Limit], str]) -> Limit | None:
    limits = (limit for terms in snapshot.teams.values() for limit in terms.caller.user_limits if limit.is_quota)
    return next((limit for limit in limits if counter_name(limit) == counter), None)


def _find(snapshot: ConfigSnapshot, counter: str, counter_name: Callable[[Limit], str]) -> Limit | None:
    """To be run in a thread: there may be many keys, and the snapshot never changes."""
    quotas = (limit for limit in chain(snapshot.limits_of(), _limits_of_tokens(snapshot, counter)) if limit.is_quota)
    return next((limit for limit in quotas if counter_name(limit) == counter), None)


def _limits_of_tokens(snapshot: ConfigSnapshot, counter: str) -> Iterator[Limit]:
    """The keys of an identity provider's tokens that the counter names: no configuration and no store lists them."""
    for key_id in set(_TOKENS.findall(counter)):
        for terms in snapshot.teams.values():
            yield from terms.caller_of(KeyTerms(key_id, "", subject=key_id)).limits
