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
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from gateway.core.key_ids import JWT_IDS
from gateway.core.limit_status import in_unit, limit_status_object
from gateway.core.limits import Limit, Scope
from gateway.core.notifications import EventType
from gateway.core.reservation import LimitStatus
from gateway.core.snapshot import Caller, ConfigSnapshot, KeyTerms
from gateway.core.time_format import rfc3339
from gateway.identity.directory import configured_key
from gateway.notifications.messages import Notification, notification
from gateway.store.contract import CROSSED_ENTRY, QUOTA_ENTRY, USERS_ENTRY, CounterOwner

_SHOWN = 200
"""Characters of an entry that operators see where it cannot be read."""


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


def shown_entry(entry: str) -> str:
    """The beginning of an entry that cannot be read."""
    return as_text(entry[:_SHOWN])


def as_text(found: str) -> str:
    """With bytes that are not UTF-8 escaped."""
    return found.encode("utf-8", "backslashreplace").decode()


class QuotaReader(NamedTuple):
    """Finds what settlements name and the configuration does not have: the stored keys whose limits are counted under
    an id, the newest first; and the status of limits now."""

    counted_as: Callable[[str], Awaitable[list[Caller]]]
    statuses: Callable[[Sequence[Limit]], Awaitable[list[LimitStatus]]]


class CounterNames(NamedTuple):
    """What entries call the counter of a limit, and whose limit a counter of that name has."""

    name: Callable[[Limit], str]
    owner: Callable[[str], CounterOwner]


class CrossingNotifications:
    """`serving` returns the configuration in force."""

    def __init__(self, serving: Callable[[], ConfigSnapshot], quotas: QuotaReader, counters: CounterNames) -> None:
        self._serving = serving
        self._quotas = quotas
        self._counters = counters

    async def of(self, crossing: Crossing) -> list[Notification] | None:
        """None if the limit is unknown. Raises StoreUnavailable."""
        if crossing.users:
            limit = self._user_limit(crossing.counter)
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
        owner = self._counters.owner(counter)
        found = await asyncio.to_thread(self._first_called, _configured(self._serving(), owner), counter)
        if found is None and owner.scope == Scope.KEY:
            stored = await self._quotas.counted_as(owner.subject)
            found = self._first_called(chain.from_iterable(caller.limits for caller in stored), counter)
        return found

    def _first_called(self, limits: Iterable[Limit], counter: str) -> Limit | None:
        return next((limit for limit in limits if limit.is_quota and self._counters.name(limit) == counter), None)

    def _user_limit(self, counter: str) -> Limit | None:
        teams = self._serving().teams.values()
        return self._first_called(chain.from_iterable(terms.caller.user_limits for terms in teams), counter)


def _configured(snapshot: ConfigSnapshot, owner: CounterOwner) -> Iterator[Limit]:
    """Those of this scope in the configuration, of a key its own. To be read in a thread: there may be many keys, and
    the snapshot never changes."""
    if owner.scope == Scope.KEY:
        if (configured := configured_key(snapshot, owner.subject)) is not None:
            yield from configured.limits
        if owner.subject.startswith(JWT_IDS):
            # Tokens of an identity provider: no configuration and no store lists them.
            for terms in snapshot.teams.values():
                yield from terms.caller_of(KeyTerms(owner.subject, "", subject=owner.subject)).limits
        return
    for terms in snapshot.teams.values():
        yield from (limit for limit in terms.caller.limits if limit.scope == owner.scope)
    for model in snapshot.models.values():
        yield from (limit for limit in model.limits if limit.scope == owner.scope)
