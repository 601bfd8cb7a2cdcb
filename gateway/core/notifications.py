"""The kinds of events that operators are notified of, and the channels that notifications go to."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec

from gateway.core.proxies import Proxy


class EventKind(StrEnum):
    """What a channel can ask for."""

    QUOTA = "quota"
    UPSTREAM = "upstream"
    STORE = "store"
    CONFIGURATION = "configuration"
    KEY = "key"


class EventType(StrEnum):
    """What has happened, as receivers read it; what is in front of the dot is the kind."""

    QUOTA_THRESHOLD = "quota.threshold"
    QUOTA_USERS = "quota.users"
    UPSTREAM_DOWN = "upstream.down"
    UPSTREAM_UP = "upstream.up"
    STORE_UNAVAILABLE = "store.unavailable"
    STORE_AVAILABLE = "store.available"
    CONFIGURATION_REFUSED = "configuration.refused"
    KEY_EXPIRING = "key.expiring"
    TEST = "test"

    @property
    def kind(self) -> str:
        return self.partition(".")[0]


EVERYBODY = "*"
"""The pattern of teams that lets through what belongs to no team, too."""


class NotificationChannel(msgspec.Struct, frozen=True):
    """A receiver. `url` and `secret` are secrets. `at` are percent of a quota, `teams` globs."""

    name: str
    format: str
    url: str
    secret: str = ""
    at: tuple[int, ...] = ()
    teams: tuple[str, ...] = (EVERYBODY,)
    events: tuple[str, ...] = tuple(EventKind)
    proxy: Proxy | None = None

    def wants(self, event: EventType, team: str) -> bool:
        """`team` is empty where it belongs to none."""
        if event is EventType.TEST:
            return True
        return event.kind in self.events and self.wants_team(team)

    def wants_team(self, team: str) -> bool:
        if not team:
            return EVERYBODY in self.teams
        return any(fnmatchcase(team, pattern) for pattern in self.teams)


def thresholds(channels: Iterable[NotificationChannel], team: str) -> tuple[int, ...]:
    """The percent, ascending, of a team's quotas that any of the channels wants to know of."""
    wanted = {percent for each in channels if each.wants(EventType.QUOTA_THRESHOLD, team) for percent in each.at}
    return tuple(sorted(wanted))
