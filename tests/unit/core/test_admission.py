from __future__ import annotations

from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.admission import decide, judge
from gateway.core.buckets import Counter, new_counter
from gateway.core.limits import Limit, Mode
from gateway.core.reservation import AdmissionRequest, Charge, Refusal, Reservation
from tests.contract.store.asking import MILLION, charge, limit

UTC = ZoneInfo("UTC")
NOON = 1_793_880_000_000

kinds = st.sampled_from(
    [("requests", "minute"), ("requests", "day"), ("tokens", "second"), ("tokens", "month"), ("input_tokens", "hour"),
     ("output_tokens", "day"), ("usd", "week"), ("usd", "hour"), ("tokens", "total"), ("concurrent", None)]
)  # fmt: skip


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    meter, per = draw(kinds)
    amount = draw(st.integers(1, 2_000))
    mode = draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW]))
    return limit(meter, per, amount, mode=mode)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[AdmissionRequest, list[Counter]]:
    chosen = draw(st.lists(limits(), max_size=5))
    most = draw(st.integers(0, 500))
    charges: list[Charge] = [charge(one, draw(st.integers(0, 300))) for one in chosen]
    least = draw(st.integers(1, 50))
    enough = draw(st.integers(least, 600))
    asked = AdmissionRequest.of("r", tuple(charges), draw(st.integers(0, most)), most, least, enough)
    counters: list[Counter] = []
    for one in chosen:
        counter = new_counter(one, UTC, NOON)
        counter.advance(one, NOON)
        counter.use(draw(st.integers(0, 2_000)))
        if one.meter != "requests":
            counter.held = draw(st.integers(0, 1_000))
        counters.append(counter)
    return asked, counters


@given(scene=scenes())
def test_a_refusal_changes_no_counter(scene: tuple[AdmissionRequest, list[Counter]]) -> None:
    asked, counters = scene
    before = [(counter.used, counter.held) for counter in counters]
    verdict = decide(asked, counters, NOON)
    if isinstance(verdict, Refusal):
        assert [(counter.used, counter.held) for counter in counters] == before
        assert verdict.limit_status.limit.mode is Mode.ENFORCE


@given(scene=scenes())
def test_an_admission_overdraws_no_enforced_limit(scene: tuple[AdmissionRequest, list[Counter]]) -> None:
    asked, counters = scene
    verdict = decide(asked, counters, NOON)
    if isinstance(verdict, Reservation):
        for charge, counter in zip(asked.charges, counters, strict=True):
            assert charge.limit.mode is Mode.SHADOW or counter.used + counter.held <= counter.capacity
        assert min(asked.least, asked.most) <= verdict.granted <= asked.most
        assert verdict.capped == (verdict.granted < asked.most)


@given(scene=scenes())
def test_only_an_enforced_limit_that_is_short_refuses(scene: tuple[AdmissionRequest, list[Counter]]) -> None:
    asked, counters = scene
    judgement = judge(asked, counters)
    for blocked in judgement.blocked:
        counter = counters[blocked.place]
        assert blocked.need > counter.capacity - counter.used - counter.held
        assert asked.charges[blocked.place].limit.mode is Mode.ENFORCE
    assert all(one.mode is Mode.SHADOW for one in judgement.would_refuse)


@given(scene=scenes())
def test_one_token_more_could_not_have_been_granted(scene: tuple[AdmissionRequest, list[Counter]]) -> None:
    asked, counters = scene
    left_before = [counter.capacity - counter.used - counter.held for counter in counters]
    verdict = decide(asked, counters, NOON)
    if isinstance(verdict, Reservation) and verdict.capped and verdict.granted > min(asked.least, asked.most):
        quotas = [place for place, one in enumerate(asked.charges) if one.limit.is_quota and one.per_output]
        enforced = [place for place in quotas if asked.charges[place].limit.mode is Mode.ENFORCE]
        for place in enforced:
            left = (left_before[place] - asked.charges[place].fixed) * MILLION // asked.charges[place].per_output
            if verdict.granted + 1 > min(left, max(asked.enough, left // 8)):
                break
        else:
            raise AssertionError(f"one token more than {verdict.granted} could have been granted")


def decided(one: Limit, used: int, most: int) -> Reservation | Refusal:
    """The verdict on a request with 10 tokens of input and so much output, where a limit has been used so far."""
    counter = new_counter(one, UTC, NOON)
    counter.advance(one, NOON)
    counter.use(used)
    return decide(AdmissionRequest.of("r", (charge(one, 10),), most, most, 1, 1), [counter], NOON)


def test_a_shadow_quota_holds_what_it_would_have_granted_and_grants_all() -> None:
    for amount, granted, capped in ((90, 10, True), (4_010, 300, False)):
        verdict = decided(limit("tokens", "month", amount, mode=Mode.SHADOW), 0, 300)
        assert isinstance(verdict, Reservation)
        (hold,) = verdict.holds
        assert (verdict.granted, hold.amount, hold.capped) == (300, 10 + granted, capped)


def test_the_hold_of_a_rate_is_in_no_window() -> None:
    verdict = decided(limit("tokens", "minute", 1_000), 0, 300)
    assert isinstance(verdict, Reservation)
    assert [hold.window_ms for hold in verdict.holds] == [0]
