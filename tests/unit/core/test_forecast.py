"""When quotas run out, computed by hand."""

from __future__ import annotations

import pytest

from gateway.core.forecast import HOUR_MS, UseHistory, forecast, runs_out_ms
from gateway.core.limits import Limit
from gateway.core.reservation import LimitStatus
from tests.contract.store.asking import limit

NOON_MS = 1_793_880_000_000
MONTH = limit("tokens", "month", 1_000_000)
DAY = limit("tokens", "day", 1_000_000)
TOTAL = limit("tokens", "total", 1_000_000)
FOR_EVER_MS = 0
IN_WEEKS_MS = NOON_MS + 600 * HOUR_MS


def history(*uses: tuple[float, int]) -> UseHistory:
    """Uses as (hours ago, amount), the oldest first."""
    first, last = NOON_MS - uses[0][0] * HOUR_MS, NOON_MS - uses[-1][0] * HOUR_MS
    kept = UseHistory(first, first)
    for ago, amount in uses:
        kept.note(amount, round(NOON_MS - ago * HOUR_MS))
    assert kept.noted_ms == last
    return kept


def hours_left(of: Limit, used: int, kept: UseHistory, resets_ms: int = IN_WEEKS_MS) -> float | None:
    at_ms = runs_out_ms(of, used, kept, NOON_MS, resets_ms)
    return (at_ms - NOON_MS) / HOUR_MS if at_ms else None


def test_what_lasts_for_less_than_six_hours_goes_at_the_pace_of_the_last_hours() -> None:
    # 400,000 now, watched for one half-life: 400,000 / (2 h / ln 2 / 2) = 277,259 an hour; 600,000 are left.
    assert hours_left(MONTH, 400_000, history((2, 0), (0, 400_000))) == pytest.approx(600_000 / 277_258.872)


def test_what_was_used_a_half_life_ago_counts_half() -> None:
    # 400,000 two hours ago is as much as 200,000 now.
    assert hours_left(MONTH, 400_000, history((2, 400_000))) == pytest.approx(600_000 / 138_629.436)


def test_what_lasts_longer_goes_on_at_the_pace_of_the_last_days() -> None:
    # 27,726 an hour for six hours, then 40,000 / (48 h / ln 2 * (1 - 2 ** -0.5)) = 1,972 an hour: a day is watched.
    expected = 6 + (960_000 - 166_355.323) / 1_972.127
    assert hours_left(MONTH, 40_000, history((2, 0), (0, 40_000))) == pytest.approx(expected)


def test_even_use_goes_on_as_it_was() -> None:
    # 1,000 an hour in small steps for twenty days, so whichever sum is asked.
    steps = [(ago / 10, 100) for ago in range(4_800, 0, -1)]
    assert hours_left(MONTH, 480_000, history(*steps)) == pytest.approx(520, rel=0.03)


def test_a_quota_of_a_day_goes_on_as_the_last_hours_did() -> None:
    expected = 960_000 / 27_725.887
    assert hours_left(DAY, 40_000, history((2, 0), (0, 40_000))) == pytest.approx(expected)


def test_the_first_request_of_a_window_is_no_pace() -> None:
    # As if it had been watched for an hour: 900,000 / (2 h / ln 2 * (1 - 2 ** -0.5)) = 1,064,929 an hour.
    assert hours_left(DAY, 900_000, history((0, 900_000))) == pytest.approx(100_000 / 1_064_929, rel=1e-4)


@pytest.mark.parametrize(("hours", "runs_out"), [(34.7, True), (34.6, False)])
def test_a_quota_that_lasts_until_its_window_ends_does_not_run_out(hours: float, runs_out: bool) -> None:
    ends_ms = NOON_MS + round(hours * HOUR_MS)
    found = hours_left(DAY, 40_000, history((2, 0), (0, 40_000)), ends_ms)
    assert (found is not None) == runs_out


def test_a_total_quota_runs_out_some_day() -> None:
    found = hours_left(TOTAL, 40_000, history((2, 0), (0, 40_000)), FOR_EVER_MS)
    assert found == pytest.approx(6 + 793_644.677 / 1_972.127)


def test_a_quota_of_which_nothing_was_used_lately_does_not_run_out() -> None:
    assert hours_left(MONTH, 10, history((500, 10))) is None
    assert hours_left(TOTAL, 10, history((1e7, 10)), FOR_EVER_MS) is None


def test_a_quota_that_is_used_up_runs_out_now() -> None:
    assert hours_left(MONTH, 1_000_000, history((2, 1_000_000))) == 0
    assert hours_left(MONTH, 1_200_000, history((2, 1_200_000))) == 0


def test_a_clock_that_was_set_back_makes_no_use_grow() -> None:
    kept = UseHistory(NOON_MS, NOON_MS)
    kept.note(100, NOON_MS)
    kept.note(100, NOON_MS - 10 * HOUR_MS)
    assert kept.hours == kept.days == 200


def test_a_status_of_what_has_no_history_is_left_as_it_is() -> None:
    status = LimitStatus(MONTH, 0, 0, 1_000_000, IN_WEEKS_MS)
    assert forecast(status, None, NOON_MS) is status
    known = forecast(LimitStatus(MONTH, 1_000_000, 0, 0, IN_WEEKS_MS), history((0, 1)), NOON_MS)
    assert known.runs_out_ms == NOON_MS
