"""How much of each quota of a team and of the organisation is used, as the last request of it reported.

Those of keys and users are left out: their number has no bound that a metric could bear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from gateway.core.clock import Clock
from gateway.core.limits import Limit, Scope
from gateway.core.reservation import LimitStatuses
from gateway.core.snapshot import ConfigSnapshot
from gateway.telemetry.series import Labels

_LIMITS_REMEMBERED = 1_024
"""Sets of limits whose quotas are remembered; all are forgotten where there are more."""

_NOTED_MAX = 128
"""Sets of limits whose last report waits to be read: so many take a fraction of a millisecond."""

_QUOTA_SCOPES = frozenset({Scope.ORGANISATION, Scope.TEAM})


class QuotaUse(msgspec.Struct):
    """The last known use of a quota, in its meter's unit. `resets_ms` is 0 if it never resets."""

    used: float
    amount: float
    resets_ms: int

    def ratio(self, now_ms: int) -> float:
        """A window that is over counts as unused until a request reports more."""
        return self.used / self.amount if self.resets_ms == 0 or now_ms < self.resets_ms else 0.0


class _ReportedQuota(NamedTuple):
    """A quota of a team or of the organisation, by its place among the limits of a request."""

    place: int
    labels: Labels
    amount: int


class _QuotasOf(NamedTuple):
    """`limits` are kept alive, so that no others have their identity."""

    limits: Sequence[Limit]
    reported: tuple[_ReportedQuota, ...]


class QuotaUses:
    """The last known use of each quota, by the labels of its series. What requests report is read when it is asked for,
    of those with the same limits only the last report."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._uses: dict[Labels, QuotaUse] = {}
        self._configured: dict[Labels, Limit] = {}
        self._quotas_of: dict[int, _QuotasOf] = {}
        self._noted: dict[int, LimitStatuses] = {}
        """By the identity of their limits, which they keep alive: what was not read yet, the last report last."""

    def note(self, statuses: LimitStatuses) -> None:
        """What an admission or a refusal has found of its limits."""
        noted, limits = self._noted, id(statuses.limits)
        if limits in noted:
            del noted[limits]
        elif len(noted) >= _NOTED_MAX:
            self._read_noted()
        noted[limits] = statuses

    def configured(self) -> list[Limit]:
        """The quotas of the present configuration."""
        return list(self._configured.values())

    def keep(self, snapshot: ConfigSnapshot) -> None:
        """Forget the quotas that are not in this configuration. The used part of one whose amount has changed is
        computed with the new amount. A quota that counts other models than before is another one to the store, and
        begins again."""
        self._read_noted()
        before, self._configured = self._configured, _quotas_in(snapshot)
        for labels in list(self._uses):
            limit, old = self._configured.get(labels), before.get(labels)
            if limit is None or (old is not None and old.models != limit.models):
                del self._uses[labels]
            else:
                self._uses[labels].amount = limit.amount

    def ratios(self) -> dict[Labels, float]:
        """The used part of each quota, as it is now."""
        self._read_noted()
        now_ms = self._clock.now_ms()
        return {labels: use.ratio(now_ms) for labels, use in self._uses.items()}

    def _read_noted(self) -> None:
        for limits, statuses in self._noted.items():
            # Limits that grants raise are put together for one request.
            known = (None if statuses.are_raised else self._quotas_of.get(limits)) or self._find_quotas(statuses)
            for place, labels, amount in known.reported[: len(statuses.used)]:
                self._uses[labels] = QuotaUse(statuses.used[place], amount, statuses.resets_ms[place])
        self._noted.clear()

    def _find_quotas(self, statuses: LimitStatuses) -> _QuotasOf:
        reported = [
            _ReportedQuota(place, quota_labels(limit), limit.amount)
            for place, limit in enumerate(statuses.limits)
            if limit.is_quota and limit.scope in _QUOTA_SCOPES and limit.amount
        ]
        found = _QuotasOf(statuses.limits, tuple(reported))
        if not statuses.are_raised:
            if len(self._quotas_of) >= _LIMITS_REMEMBERED:
                self._quotas_of.clear()
            self._quotas_of[id(statuses.limits)] = found
        return found


def quota_labels(limit: Limit) -> Labels:
    """Of the series that show a quota."""
    return (limit.team, limit.name, str(limit.meter), limit.per or "")


def _quotas_in(snapshot: ConfigSnapshot) -> dict[Labels, Limit]:
    """The quotas of teams and of the organisation, which all keys of a team share."""
    return {
        quota_labels(limit): limit
        for terms in snapshot.teams.values()
        for limit in terms.caller.limits
        if limit.is_quota and limit.scope in _QUOTA_SCOPES
    }
