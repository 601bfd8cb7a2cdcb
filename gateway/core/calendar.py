"""Calendar windows of quotas, in a time zone: where a day, a week, a month begins and ends.

Windows of one kind tile time: each ends where the next begins, whatever the clocks of the zone do.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from gateway.core.limits import Per

FOREVER_MS = 253_402_300_800_000
"""The end of the window `total`: the first instant of the year 10000."""

DAY_MS = 86_400_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def window(per: Per, zone: ZoneInfo, now_ms: int) -> tuple[int, int]:
    """Beginning (inclusive) and end (exclusive) of the window around `now_ms`, both as now_ms is:
    milliseconds since 1970 in UTC. A week begins on Monday. `per` is one of a quota's."""
    today = date_of(zone, now_ms)
    match per:
        case Per.DAY:
            first, after = today, today + timedelta(days=1)
        case Per.WEEK:
            first = today - timedelta(days=today.weekday())
            after = first + timedelta(days=7)
        case Per.MONTH:
            first = today.replace(day=1)
            after = (first + timedelta(days=31)).replace(day=1)
        case Per.TOTAL:
            return 0, FOREVER_MS
        case _:
            raise ValueError(f"{per} is a rate: it has no calendar window")
    return _midnight_ms(first, zone), _midnight_ms(after, zone)


def date_of(zone: tzinfo, now_ms: int) -> date:
    """The day around `now_ms`."""
    return (_EPOCH + now_ms * _MILLISECOND).astimezone(zone).date()


def day_of(zone: tzinfo, now_ms: int) -> str:
    """The same as the ledger writes it: YYYY-MM-DD."""
    return date_of(zone, now_ms).isoformat()


def day_ms(day: str) -> int:
    """A day as a number, whatever the time zone: the milliseconds since 1970 of its beginning in UTC."""
    return (date.fromisoformat(day).toordinal() - _EPOCH.toordinal()) * DAY_MS


def day_of_ms(at_ms: int) -> str:
    """The day that this number means."""
    return date.fromordinal(at_ms // DAY_MS + _EPOCH.toordinal()).isoformat()


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    # Where clocks jump over midnight, fold=0 takes the offset before the jump, and so the jump itself;
    # where midnight comes twice, it takes the first (PEP 495).
    return (datetime(day.year, day.month, day.day, tzinfo=zone) - _EPOCH) // _MILLISECOND
