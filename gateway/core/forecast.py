"""Computes when a quota will be used up at the present pace.

What is used is added to two sums that fade, one of the last hours and one of the last days: after a half-life an amount
counts half. A sum divided by the time that it covers is a pace; constant use gives the same pace in both.

    span(T)   = half-life / ln 2 * (1 - 2 ** (-T / half-life))     T: how long the quota has been watched
    pace      = sum / span(T)

The next six hours are expected to continue as the last hours, the time after that as the last days. So a caller who
suddenly uses much is seen at once, and a busy noon is not taken for the month. A quota per day continues as the last
hours until it ends. T is at least an hour for the first pace and a day for the second, because the first requests of a
window are no pace yet.
"""

from __future__ import annotations

from math import log

import msgspec

from gateway.core.calendar import DAY_MS, FOREVER_MS
from gateway.core.limits import Limit, Per
from gateway.core.reservation import LimitStatus

HOUR_MS = 3_600_000

HOURS_HALF_LIFE_MS = 2 * HOUR_MS
"""settle.lua repeats it."""

DAYS_HALF_LIFE_MS = 2 * DAY_MS
"""Likewise."""

NEXT_HOURS_MS = 6 * HOUR_MS
"""For this long the pace of the last hours is expected to continue."""


class UseHistory(msgspec.Struct):
    """What was used of a quota in its present window. `hours` and `days` are the two sums as they were at `noted_ms`,
    `since_ms` is when something was noted first."""

    since_ms: float
    noted_ms: float
    hours: float = 0.0
    days: float = 0.0

    def note(self, amount: int, now_ms: int) -> None:
        elapsed_ms = now_ms - self.noted_ms
        self.hours = self.hours * _halved(elapsed_ms, HOURS_HALF_LIFE_MS) + amount
        self.days = self.days * _halved(elapsed_ms, DAYS_HALF_LIFE_MS) + amount
        self.noted_ms = now_ms


def forecast(status: LimitStatus, history: UseHistory | None, now_ms: int) -> LimitStatus:
    """The status of a quota with the time at which it will be used up."""
    if history is None:
        return status
    at_ms = runs_out_ms(status.limit, status.used, history, now_ms, status.resets_ms)
    return msgspec.structs.replace(status, runs_out_ms=at_ms)


def runs_out_ms(limit: Limit, used: int, history: UseHistory, now_ms: int, resets_ms: int) -> int:
    """The time at which the quota will be used up, `now_ms` where it is; 0 where its window ends before.

    `resets_ms` is the end of the window, 0 where it has none.
    """
    left = limit.amount - used
    if left <= 0:
        return now_ms
    hourly = _pace(history.hours, HOURS_HALF_LIFE_MS, history, now_ms, HOUR_MS)
    soon = hourly * NEXT_HOURS_MS
    if limit.per is Per.DAY or left <= soon:
        wait_ms = left / hourly if hourly else FOREVER_MS
    else:
        daily = _pace(history.days, DAYS_HALF_LIFE_MS, history, now_ms, DAY_MS)
        wait_ms = NEXT_HOURS_MS + (left - soon) / daily if daily else FOREVER_MS
    at_ms = now_ms + wait_ms
    return int(at_ms) if at_ms < (resets_ms or FOREVER_MS) else 0


def _pace(total: float, half_life_ms: int, history: UseHistory, now_ms: int, least_ms: int) -> float:
    """Units in a millisecond."""
    faded = total * _halved(now_ms - history.noted_ms, half_life_ms)
    span_ms = half_life_ms / log(2) * (1 - _halved(max(least_ms, now_ms - history.since_ms), half_life_ms))
    return faded / span_ms


def _halved(elapsed_ms: float, half_life_ms: int) -> float:
    """The factor by which a sum fades in this time; a clock that was set back increases nothing."""
    left: float = 2.0 ** (-max(0.0, elapsed_ms) / half_life_ms)
    return left
