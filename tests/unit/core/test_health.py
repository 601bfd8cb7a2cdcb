from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.circuit import FAILURES_IN_A_ROW, FIRST_REST_S, FIRST_SHARE, RECOVERY_S
from gateway.core.errors import UpstreamTimedOut, UpstreamUnreachable
from gateway.core.health import (
    DOWN_AFTER_CHECKS,
    UP_AFTER_CHECKS,
    Change,
    Health,
    Outcome,
    outcome_of_error,
    outcome_of_status,
)
from gateway.core.target import Target, Upstream

HERE = Upstream("here", "http://here")
THERE = Upstream("there", "http://there")
TARGET = Target(HERE, "gpt-oss")
OTHER_MODEL = Target(HERE, "llama")
ELSEWHERE = Target(THERE, "gpt-oss")


class Told(list[Change]):
    """The changes that somebody was told of."""

    @property
    def steps(self) -> list[tuple[str, str, str, str]]:
        return [(change.upstream, change.model, change.before, change.after) for change in self]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def health(told: Told) -> Health:
    return Health(told.append)


def fail(health: Health, target: Target, now: float = 0.0, times: int = FAILURES_IN_A_ROW) -> None:
    for _ in range(times):
        health.begin(target, now).ended(Outcome.FAILED, now)


def test_one_model_of_an_upstream_that_fails_leaves_the_others_alone(health: Health) -> None:
    fail(health, TARGET)
    assert health.share(TARGET, 0) == 0.0
    assert health.share(OTHER_MODEL, 0) == 1.0
    assert health.share(ELSEWHERE, 0) == 1.0


def test_an_upstream_whose_settings_change_begins_anew(health: Health) -> None:
    fail(health, TARGET)
    mended = Target(Upstream("here", "http://here:8000"), "gpt-oss")
    assert health.share(mended, 0) == 1.0


def test_each_change_is_told_once(health: Health, told: Told) -> None:
    fail(health, TARGET)
    now = FIRST_REST_S
    probe = health.begin(TARGET, now)
    probe.answered(now)
    probe.ended(Outcome.SUCCEEDED, now)
    now += RECOVERY_S
    health.begin(TARGET, now).ended(Outcome.SUCCEEDED, now)
    assert told.steps == [
        ("here", "gpt-oss", "closed", "open"),
        ("here", "gpt-oss", "open", "half_open"),
        ("here", "gpt-oss", "half_open", "recovering"),
        ("here", "gpt-oss", "recovering", "closed"),
    ]


def test_an_attempt_counts_until_it_has_ended_and_once(health: Health) -> None:
    first, second = health.begin(TARGET, 0), health.begin(OTHER_MODEL, 0)
    assert (health.in_flight(HERE), health.in_flight(THERE)) == (2, 0)
    first.answered(1)
    assert health.in_flight(HERE) == 2
    first.ended(Outcome.SUCCEEDED, 1)
    first.ended(Outcome.FAILED, 1)
    assert health.in_flight(HERE) == 1
    second.ended(Outcome.NEUTRAL, 1)
    assert health.in_flight(HERE) == 0


def test_an_answer_that_breaks_midway_counts_as_a_failure(health: Health) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        attempt = health.begin(TARGET, 0)
        attempt.answered(0)
        attempt.ended(Outcome.FAILED, 0)
    assert health.share(TARGET, 0) == 0.0


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.BUSY, Outcome.NEUTRAL])
def test_nothing_but_failures_opens_a_circuit(health: Health, outcome: Outcome) -> None:
    for _ in range(100):
        health.begin(TARGET, 0).ended(outcome, 0)
    assert health.share(TARGET, 0) == 1.0


def test_a_busy_upstream_is_left_alone_for_as_long_as_it_asks(health: Health, told: Told) -> None:
    health.begin(TARGET, 0).ended(Outcome.BUSY, 0, cool_down_s=7)
    assert health.share(TARGET, 6) == 0.0
    assert health.wait_s([TARGET], 6) == 1.0
    assert health.share(TARGET, 7) == 1.0
    assert told == []


def test_a_probe_that_finds_it_busy_finds_it_alive(health: Health) -> None:
    fail(health, TARGET)
    health.begin(TARGET, FIRST_REST_S).ended(Outcome.BUSY, FIRST_REST_S)
    assert health.share(TARGET, FIRST_REST_S) == pytest.approx(FIRST_SHARE)


def test_the_wait_is_that_of_the_first_that_may_be_asked(health: Health) -> None:
    fail(health, TARGET, now=0)
    fail(health, ELSEWHERE, now=2)
    assert health.wait_s([TARGET, ELSEWHERE], 3) == FIRST_REST_S - 3
    assert health.wait_s([], 3) == 0.0
    assert health.wait_s([TARGET, OTHER_MODEL], 3) == 0.0


def test_checks_that_agree_take_a_whole_upstream_down_and_up_again(health: Health, told: Told) -> None:
    health.begin(TARGET, 0).ended(Outcome.SUCCEEDED, 0)
    for _ in range(DOWN_AFTER_CHECKS - 1):
        health.checked(HERE, is_well=False, now=0)
    assert health.share(TARGET, 0) == 1.0
    health.checked(HERE, is_well=False, now=0)
    assert (health.share(TARGET, 0), health.share(OTHER_MODEL, 0)) == (0.0, 0.0)
    assert health.share(ELSEWHERE, 0) == 1.0
    assert health.wait_s([TARGET], 0) == 1.0
    for _ in range(UP_AFTER_CHECKS):
        health.checked(HERE, is_well=True, now=0)
    assert health.share(TARGET, 0) == pytest.approx(FIRST_SHARE)
    assert told.steps == [
        ("here", "", "up", "down"),
        ("here", "", "down", "up"),
        ("here", "gpt-oss", "closed", "recovering"),
    ]


def test_one_check_between_that_disagrees_begins_the_count_anew(health: Health) -> None:
    for _ in range(10):
        for _ in range(DOWN_AFTER_CHECKS - 1):
            health.checked(HERE, is_well=False, now=0)
        assert health.share(TARGET, 0) == 1.0
        health.checked(HERE, is_well=True, now=0)


def test_an_upstream_that_is_no_longer_checked_is_not_held_down(health: Health) -> None:
    for _ in range(DOWN_AFTER_CHECKS):
        health.checked(HERE, is_well=False, now=0)
    health.unchecked(HERE)
    assert health.share(TARGET, 0) == 1.0


def test_the_view_tells_who_is_up(health: Health) -> None:
    fail(health, TARGET)
    attempt = health.begin(ELSEWHERE, 0)
    here, there = health.view([HERE, THERE], 1)
    assert (here.name, here.up, here.in_flight) == ("here", False, 0)
    assert (here.models[0].model, here.models[0].state, here.models[0].wait_s) == ("gpt-oss", "open", FIRST_REST_S - 1)
    assert (there.name, there.up, there.in_flight) == ("there", True, 1)
    attempt.ended(Outcome.SUCCEEDED, 1)
    health.begin(OTHER_MODEL, 1).ended(Outcome.SUCCEEDED, 1)
    assert health.view([HERE], 1)[0].up


def test_what_is_no_longer_configured_is_forgotten_once_it_is_idle(health: Health) -> None:
    fail(health, TARGET)
    attempt = health.begin(ELSEWHERE, 0)
    health.keep([])
    assert health.share(TARGET, 0) == 1.0
    assert health.in_flight(THERE) == 1
    attempt.ended(Outcome.SUCCEEDED, 0)
    health.keep([])
    assert health.in_flight(THERE) == 0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.SUCCEEDED),
        (400, Outcome.SUCCEEDED),
        (404, Outcome.SUCCEEDED),
        (422, Outcome.SUCCEEDED),
        (401, Outcome.FAILED),
        (403, Outcome.FAILED),
        (429, Outcome.BUSY),
        (500, Outcome.FAILED),
        (503, Outcome.FAILED),
        (529, Outcome.FAILED),
    ],
)
def test_a_callers_mistake_is_no_failure_of_the_upstream(status: int, outcome: Outcome) -> None:
    assert outcome_of_status(status) is outcome


def test_what_was_never_sent_says_nothing_of_the_upstream() -> None:
    full, refused, silent = UpstreamUnreachable("x"), UpstreamUnreachable("x"), UpstreamTimedOut("x")
    full.outcome, refused.outcome = "no_connection_free", "not_reached"
    assert outcome_of_error(full) is Outcome.NEUTRAL
    assert outcome_of_error(refused) is Outcome.FAILED
    assert outcome_of_error(silent) is Outcome.FAILED


@given(
    st.lists(
        st.tuples(st.sampled_from([TARGET, OTHER_MODEL, ELSEWHERE]), st.sampled_from(list(Outcome)), st.floats(0, 9))
    )
)
def test_the_count_in_flight_is_always_right(happenings: list[tuple[Target, Outcome, float]]) -> None:
    health, now, running = Health(lambda change: None), 0.0, []
    for target, outcome, seconds in happenings:
        now += seconds
        if health.share(target, now) > 0:
            running.append((target, health.begin(target, now)))
        if len(running) > 2:
            running.pop(0)[1].ended(outcome, now)
        for upstream in (HERE, THERE):
            assert health.in_flight(upstream) == sum(target.upstream == upstream for target, _ in running)
