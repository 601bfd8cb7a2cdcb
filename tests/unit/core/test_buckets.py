from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.buckets import Bucket, Denial, Leases, Window, new_counter, pace, rescaled
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.reservation import Charge, RefusalReason
from tests.unit.fakes import amount_of

UTC = ZoneInfo("UTC")
NOON = 1_793_880_000_000
DAY_MS = 86_400_000


def limit(meter: Meter, per: Per | None, amount: int, burst: int | None = None) -> Limit:
    return Limit("l", Scope.TEAM, "t", meter, per, amount, amount if burst is None else burst, team="t")


rates = st.builds(
    limit,
    meter=st.just(Meter.TOKENS),
    per=st.sampled_from([Per.SECOND, Per.MINUTE, Per.HOUR]),
    amount=st.integers(1, 10**9),
    burst=st.integers(1, 10**9),
)


def bucket(of: Limit, *, used: int = 0, held: int = 0) -> Bucket:
    counter = Bucket(of, NOON)
    counter.use(used)
    counter.held = held
    return counter


def test_a_bucket_refills_continuously() -> None:
    rate = limit(Meter.REQUESTS, Per.MINUTE, 60)
    counter = bucket(rate, used=60)
    counter.advance(rate, NOON + 999)
    assert counter.used == 60
    counter.advance(rate, NOON + 1_000)
    assert counter.used == 59


def test_a_bucket_is_never_fuller_than_full() -> None:
    rate = limit(Meter.REQUESTS, Per.SECOND, 5)
    counter = bucket(rate, used=5)
    counter.advance(rate, NOON + DAY_MS)
    assert (counter.used, counter.debt) == (0, 0)


def test_a_clock_that_was_set_back_gives_nothing_and_refills_from_its_new_time() -> None:
    rate = limit(Meter.REQUESTS, Per.SECOND, 5)
    counter = bucket(rate, used=5)
    counter.advance(rate, NOON - DAY_MS)
    assert counter.used == 5
    counter.advance(rate, NOON - DAY_MS + 400)
    assert counter.used == 3


@given(rate=rates, used=st.integers(0, 10**10), steps=st.lists(st.integers(0, 5_000), max_size=20))
def test_looking_often_refills_no_more_than_looking_once(rate: Limit, used: int, steps: list[int]) -> None:
    often, once = bucket(rate, used=used), bucket(rate, used=used)
    now_ms = NOON
    for step in steps:
        now_ms += step
        often.advance(rate, now_ms)
    once.advance(rate, now_ms)
    assert often.debt == once.debt


@given(rate=rates, used=st.integers(0, 10**10), held=st.integers(0, 10**9), need=st.integers(0, 10**9))
def test_the_wait_is_the_smallest_after_which_the_need_passes(rate: Limit, used: int, held: int, need: int) -> None:
    counter = bucket(rate, used=used, held=held)
    denial = counter.denial(need)
    if denial is None:
        assert counter.used + held + need <= rate.burst
    elif denial.why is RefusalReason.SPENT:
        counter.advance(rate, NOON + denial.retry_after_ms - 1)
        assert counter.denial(need) is not None
        counter.advance(rate, NOON + denial.retry_after_ms)
        assert counter.denial(need) is None
    elif denial.why is RefusalReason.HELD:
        assert held + need > rate.burst >= need
        assert denial.retry_after_ms >= 1_000
        counter.held = 0
        counter.advance(rate, NOON + denial.retry_after_ms)
        assert counter.denial(need) is None
    else:
        assert need > rate.burst


@pytest.mark.parametrize(("need", "why"), [(70, RefusalReason.SPENT), (71, RefusalReason.HELD)])
def test_a_need_that_holds_alone_leave_room_for_waits_for_what_is_used(need: int, why: RefusalReason) -> None:
    denial = bucket(limit(Meter.TOKENS, Per.MINUTE, 100), used=1, held=30).denial(need)
    assert denial is not None
    assert denial.why is why


def test_holds_do_not_decay() -> None:
    rate = limit(Meter.TOKENS, Per.SECOND, 100)
    counter = bucket(rate, held=80)
    counter.advance(rate, NOON + DAY_MS)
    assert counter.denial(21) == Denial(RefusalReason.HELD, 1_000)


def test_a_bucket_says_when_it_is_full() -> None:
    rate = limit(Meter.TOKENS, Per.MINUTE, 600, burst=100)
    limit_status = bucket(rate, used=50, held=20).limit_status(rate)
    assert (limit_status.used, limit_status.held, limit_status.left, limit_status.resets_ms) == (
        50,
        20,
        30,
        NOON + 5_000,
    )


def test_an_overdrawn_bucket_has_nothing_left_not_less() -> None:
    rate = limit(Meter.TOKENS, Per.MINUTE, 600)
    assert bucket(rate, used=900).limit_status(rate).left == 0


@given(debt=st.integers(0, 10**15), old=st.integers(1, 3_600_000), new=st.integers(1, 3_600_000))
def test_a_debt_keeps_its_size_in_another_scale(debt: int, old: int, new: int) -> None:
    assert abs(rescaled(debt, old, new) * old - debt * new) * 2 <= old


def test_a_new_amount_keeps_what_was_used() -> None:
    before, after = limit(Meter.TOKENS, Per.MINUTE, 600), limit(Meter.TOKENS, Per.MINUTE, 900)
    counter = bucket(before, used=500)
    counter.advance(after, NOON)
    assert (counter.used, counter.capacity) == (500, 900)
    counter.advance(after, NOON + 1_000)
    assert counter.used == 485


@given(rate=rates)
def test_a_pace_gives_back_the_amount_in_one_period(rate: Limit) -> None:
    flow, scale = pace(rate)
    assert rate.per is not None
    assert flow * (rate.per.rate_ms or 0) == rate.amount * scale


def test_a_quota_spent_says_when_its_window_resets() -> None:
    quota = limit(Meter.TOKENS, Per.DAY, 100)
    counter = Window(quota, UTC)
    counter.advance(quota, NOON)
    counter.use(95)
    assert counter.denial(5) is None
    assert counter.denial(6) == Denial(RefusalReason.SPENT, counter.end_ms - NOON)
    assert counter.denial(101) == Denial(RefusalReason.NEVER, 0)


def test_a_quota_that_only_holds_forbid_says_come_back_soon() -> None:
    quota = limit(Meter.TOKENS, Per.DAY, 100)
    counter = Window(quota, UTC)
    counter.advance(quota, NOON)
    counter.use(50)
    counter.held = 40
    assert counter.denial(11) == Denial(RefusalReason.HELD, 1_000)


def test_a_new_window_begins_empty() -> None:
    quota = limit(Meter.TOKENS, Per.DAY, 100)
    counter = Window(quota, UTC)
    counter.advance(quota, NOON)
    counter.use(95)
    counter.held = 5
    counter.advance(quota, counter.end_ms)
    assert (counter.used, counter.held) == (0, 0)


def test_waiting_does_not_help_where_a_total_is_spent() -> None:
    quota = limit(Meter.TOKENS, Per.TOTAL, 100)
    counter = Window(quota, UTC)
    counter.advance(quota, NOON)
    counter.use(100)
    assert counter.denial(1) == Denial(RefusalReason.SPENT, 0)
    assert counter.limit_status(quota).resets_ms == 0


@given(
    left=st.integers(0, 10**12),
    fixed=st.integers(0, 10**6),
    per_output=st.integers(1, 10**9),
)
def test_what_is_granted_is_the_most_that_is_paid_for(left: int, fixed: int, per_output: int) -> None:
    quota = limit(Meter.USD, Per.MONTH, left)
    counter = Window(quota, UTC)
    counter.advance(quota, NOON)
    charge = Charge(quota, fixed, per_output)
    output = counter.output_left(charge.fixed, charge.per_output)
    if output >= 0:
        assert amount_of(charge, output) <= left
        assert amount_of(charge, output + 1) > left
    else:
        assert fixed > left


def test_leases_are_all_held_and_none_used() -> None:
    lanes = limit(Meter.CONCURRENT, None, 2)
    counter = Leases(lanes)
    counter.held = 2
    assert counter.denial(1) == Denial(RefusalReason.HELD, 1_000)
    counter.use(7)
    assert counter.limit_status(lanes).used == 0


def test_a_new_amount_binds_the_next_lease() -> None:
    counter = Leases(limit(Meter.CONCURRENT, None, 2))
    counter.held = 2
    counter.advance(limit(Meter.CONCURRENT, None, 3), NOON)
    assert counter.denial(1) is None
    assert counter.limit_status(limit(Meter.CONCURRENT, None, 3)).left == 1


def test_a_bucket_is_whole_once_nothing_is_held_and_all_has_flowed_back() -> None:
    rate = limit(Meter.TOKENS, Per.SECOND, 1_000)
    assert [bucket(rate, used=100).is_whole(NOON + ms) for ms in (99, 100)] == [False, True]
    assert not bucket(rate, used=100, held=1).is_whole(NOON + 100)


@pytest.mark.parametrize(
    ("of", "kind"),
    [
        (limit(Meter.CONCURRENT, None, 2), Leases),
        (limit(Meter.TOKENS, Per.HOUR, 2), Bucket),
        (limit(Meter.TOKENS, Per.WEEK, 2), Window),
    ],
)
def test_each_kind_of_limit_has_its_counter(of: Limit, kind: type) -> None:
    counter = new_counter(of, UTC, NOON)
    assert type(counter) is kind
    assert counter.is_whole(NOON)
