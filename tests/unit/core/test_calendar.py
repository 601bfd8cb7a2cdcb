from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calendar import FOREVER_MS, day_ms, day_of, day_of_ms, window
from gateway.core.limits import Per

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Asia/Beirut", "Pacific/Apia", "America/Havana"]
CALENDAR = [Per.DAY, Per.WEEK, Per.MONTH]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("per", "first", "after"),
    [
        (Per.DAY, "2026-11-05T00:00:00+01:00", "2026-11-06T00:00:00+01:00"),
        (Per.WEEK, "2026-11-02T00:00:00+01:00", "2026-11-09T00:00:00+01:00"),
        (Per.MONTH, "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"),
    ],
)
def test_a_window_begins_at_local_midnight(per: Per, first: str, after: str) -> None:
    now_ms = ms("2026-11-05T13:37:00+01:00")
    assert window(per, ZoneInfo("Europe/Berlin"), now_ms) == (ms(first), ms(after))


def test_the_day_that_clocks_go_forward_has_23_hours() -> None:
    start, end = window(Per.DAY, ZoneInfo("Europe/Berlin"), ms("2026-03-29T12:00:00+02:00"))
    assert (end - start) == 23 * 3_600_000


def test_the_month_that_clocks_go_back_has_an_hour_more() -> None:
    start, end = window(Per.MONTH, ZoneInfo("Europe/Berlin"), ms("2026-10-31T23:59:59+01:00"))
    assert (end - start) == (31 * 24 + 1) * 3_600_000


def test_where_midnight_does_not_exist_the_day_begins_with_the_jump() -> None:
    # Lebanon moves its clocks from 00:00 to 01:00.
    start, _ = window(Per.DAY, ZoneInfo("Asia/Beirut"), ms("2026-03-29T12:00:00+03:00"))
    assert start == ms("2026-03-29T01:00:00+03:00")


def test_where_midnight_comes_twice_the_day_begins_with_the_first() -> None:
    # Cuba moves its clocks from 01:00 back to 00:00.
    start, _ = window(Per.DAY, ZoneInfo("America/Havana"), ms("2026-11-01T12:00:00-05:00"))
    assert start == ms("2026-11-01T00:00:00-04:00")


def test_the_month_after_december_is_january() -> None:
    _, end = window(Per.MONTH, ZoneInfo("UTC"), ms("2026-12-31T23:59:59.999+00:00"))
    assert end == ms("2027-01-01T00:00:00+00:00")


def test_total_has_no_end() -> None:
    assert window(Per.TOTAL, ZoneInfo("UTC"), 1) == (0, FOREVER_MS)


def test_a_rate_has_no_calendar_window() -> None:
    with pytest.raises(ValueError, match="rate"):
        window(Per.MINUTE, ZoneInfo("UTC"), 1)


def test_the_ledger_writes_the_local_day() -> None:
    assert day_of(ZoneInfo("Asia/Kathmandu"), ms("2026-11-05T23:00:00+00:00")) == "2026-11-06"


@given(
    per=st.sampled_from(CALENDAR),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    now=st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2400, 1, 1)),  # noqa: DTZ001
)
def test_windows_hold_now_and_tile_time(per: Per, zone: ZoneInfo, now: datetime) -> None:
    now_ms = int(now.replace(tzinfo=UTC).timestamp() * 1000)
    start, end = window(per, zone, now_ms)
    assert start <= now_ms < end
    assert window(per, zone, end)[0] == end
    assert window(per, zone, start - 1)[1] == start


def test_a_day_is_a_number_of_milliseconds_and_back() -> None:
    assert (day_ms("1970-01-01"), day_ms("1970-01-02")) == (0, 86_400_000)
    assert day_of_ms(day_ms("2028-02-29")) == day_of_ms(day_ms("2028-02-29") + 86_399_999) == "2028-02-29"
