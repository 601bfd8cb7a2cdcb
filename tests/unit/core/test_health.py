from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.circuit import FAILURES_IN_A_ROW, FIRST_REST_S, FIRST_SHARE, RECOVERY_S, Opening
from gateway.core.errors import UpstreamTimedOut, UpstreamUnreachable
from gateway.core.health import (
    DOWN_AFTER_CHECKS,
    UP_AFTER_CHECKS,
    Change,
    Health,
    Outcome,
    outcome_of_answer,
    outcome_of_error,
)
from gateway.core.refusals import Fault
from gateway.core.snapshot import Caller, Target, Upstream

HERE = Upstream("here", "http://here")
THERE = Upstream("there", "http://there")
TARGET = Target(HERE, "gpt-oss")
OTHER_MODEL = Target(HERE, "llama")
ELSEWHERE = Target(THERE, "gpt-oss")


class Noticed(list[Change]):
    """The changes that somebody was noticed of."""

    @property
    def steps(self) -> list[tuple[str, str, str, str]]:
        return [(change.upstream, change.model, change.before, change.after) for change in self]


@pytest.fixture
def noticed() -> Noticed:
    return Noticed()


@pytest.fixture
def health(noticed: Noticed) -> Health:
    return Health(noticed.append)


def fail(health: Health, target: Target, now: float = 0.0, times: int = FAILURES_IN_A_ROW) -> None:
    for _ in range(times):
        health.begin(target, now).ended(Outcome.FAILED, now)


def test_one_model_of_an_upstream_that_fails_leaves_the_others_alone(health: Health) -> None:
    fail(health, TARGET)
    assert health.share(TARGET, 0) == 0.0
    assert health.share(OTHER_MODEL, 0) == 1.0
    assert health.share(ELSEWHERE, 0) == 1.0


def test_targets_of_one_model_share_its_health_until_it_is_forgotten(health: Health) -> None:
    heavier = msgspec.structs.replace(TARGET, weight=5)
    assert health.share(heavier, 0) == 1.0
    fail(health, TARGET)
    assert health.share(heavier, 0) == 0.0
    health.keep([])
    assert health.share(TARGET, 0) == health.share(heavier, 0) == 1.0
    health.begin(heavier, 0)
    assert health.in_flight(HERE) == 1
    fail(health, TARGET)
    assert health.share(heavier, 0) == 0.0


ANN, BEN, EVE = (Caller(key, key, f"team-{key}") for key in ("ann", "ben", "eve"))
CALLERS = {"a": ANN, "b": BEN, "e": EVE}


def play(health: Health, steps: str, now: float = 0.0) -> None:
    """Attempts one after the other, as pairs: whose it is, and whether it was answered (+), got an error (-), or the
    server was not reached (x). Those that the circuit does not let through are left out."""
    outcomes = {"+": Outcome.SUCCEEDED, "-": Outcome.ERROR, "x": Outcome.FAILED}
    for step in steps.split():
        whose, how = tuple(step)
        if not health.share(TARGET, now, CALLERS[whose]):
            continue
        health.begin(TARGET, now, CALLERS[whose]).ended(
            outcomes[how], now, reason={"-": "500", "x": "refused"}.get(how, "")
        )


@pytest.mark.parametrize(
    ("steps", "shares"),
    [
        # One key gets errors: only that key is kept away, whether or not others have asked.
        ("a- a- a- a-", "abe"),
        ("a- a- a- a- a-", "be"),
        ("b+ a- a- a- a- a-", "be"),
        # Another key's success is in between, as in traffic of several.
        ("a- a- a- a- b+ a-", "abe"),
        # One failure of another may be by chance, two are the server's.
        ("a- a- a- a- a- b-", "be"),
        ("a- a- a- a- b- a-", "be"),
        ("a- a- a- a- a- b- b-", ""),
        ("a- b- a- b- a-", ""),
        ("a- b- e- a- a-", ""),
        # Who is not answered at all is not the cause.
        ("ax ax ax ax", "abe"),
        ("ax ax ax ax ax", ""),
        ("a- a- a- ax ax", ""),
        # What others get after it has opened for one.
        ("a- a- a- a- a- b+ b+ e+", "be"),
        ("a- a- a- a- a- b+ e- b- e-", "be"),
        ("a- a- a- a- a- bx bx", ""),
        ("a- a- a- a- a- e+ b- b- b- b- b-", ""),
    ],
)
def test_errors_that_one_key_alone_gets_take_the_target_away_from_that_key_alone(
    health: Health, steps: str, shares: str
) -> None:
    play(health, steps)
    assert "".join(name for name, caller in CALLERS.items() if health.share(TARGET, 0, caller) > 0) == shares


@pytest.mark.parametrize(
    ("steps", "shares"),
    [
        ("a- b+ " * 20, "be"),
        ("a- a- a- b+ " * 10, "be"),
        ("a- b- e+ e+ a- b- b+ " * 8, ""),
        ("a- a- b+ " * 9 + "e- b+ " + "a- b+ " * 5, "be"),
        ("a+ a- " * 12, "be"),
        ("a+ b+ b+ a- " * 10, "abe"),
        ("ax b+ " * 12, ""),
    ],
)
def test_a_rate_of_errors_that_comes_from_one_key_counts_for_that_key_alone(
    health: Health, steps: str, shares: str
) -> None:
    play(health, steps)
    assert "".join(name for name, caller in CALLERS.items() if health.share(TARGET, 0, caller) > 0) == shares


def test_a_circuit_that_is_open_for_one_key_is_probed_by_that_key_alone(health: Health) -> None:
    play(health, "a- a- a- a- a-")
    play(health, "b+ e+", FIRST_REST_S)
    assert (health.share(TARGET, FIRST_REST_S, ANN), health.share(TARGET, FIRST_REST_S, BEN)) == (1.0, 1.0)
    probe = health.begin(TARGET, FIRST_REST_S, ANN)
    assert (health.share(TARGET, FIRST_REST_S, ANN), health.share(TARGET, FIRST_REST_S, BEN)) == (0.0, 1.0)
    play(health, "b+", FIRST_REST_S)
    assert health.share(TARGET, FIRST_REST_S, ANN) == 0.0
    probe.ended(Outcome.ERROR, FIRST_REST_S)
    assert health.wait_s([TARGET], FIRST_REST_S, ANN) == 2 * FIRST_REST_S
    now = 3 * FIRST_REST_S
    health.begin(TARGET, now, ANN).ended(Outcome.SUCCEEDED, now)
    assert health.share(TARGET, now, ANN) == pytest.approx(FIRST_SHARE)
    assert (health.share(TARGET, now, BEN), health.wait_s([TARGET], now, BEN)) == (1.0, 0.0)


def test_an_upstream_is_down_where_its_only_key_gets_errors_until_another_key_is_answered(health: Health) -> None:
    play(health, "a- a- a- a- a-")
    assert not health.view([HERE], 0)[0].up
    play(health, "b+")
    (seen,) = health.view([HERE], 0)
    assert (seen.up, seen.models[0].state, seen.models[0].key, seen.models[0].share) == (True, "open", "ann", 0.0)


def test_who_is_told_to_wait_waits_and_no_other_team(health: Health) -> None:
    health.begin(TARGET, 0, ANN).ended(Outcome.BUSY, 0, cool_down_s=300)
    assert (health.share(TARGET, 299, ANN), health.wait_s([TARGET], 0, ANN)) == (0.0, 300)
    assert (health.share(TARGET, 0, BEN), health.wait_s([TARGET], 0, BEN)) == (1.0, 0.0)
    assert health.least_bad([TARGET], 0, ANN) is None
    assert health.view([HERE], 100)[0].models[0].cooling == {"team-ann": 200}


def test_a_circuit_says_why_it_opened(health: Health, noticed: Noticed) -> None:
    play(health, "a- b- ax", now=1.0)
    play(health, "a- bx", now=2.0)
    assert noticed[-1].opening == Opening(2.0, {"500": 3, "refused": 2})
    play(health, "ax", now=3.0)
    assert health.view([HERE], 3)[0].models[0].opening == noticed[-1].opening
    now = 2 + FIRST_REST_S
    health.begin(TARGET, now, ANN).ended(Outcome.FAILED, now, reason="upstream_timeout")
    assert noticed[-1].opening == Opening(now, {"500": 3, "refused": 2, "upstream_timeout": 1})


def test_an_upstream_whose_settings_change_begins_anew(health: Health) -> None:
    fail(health, TARGET)
    mended = Target(Upstream("here", "http://here:8000"), "gpt-oss")
    assert health.share(mended, 0) == 1.0


def test_each_change_is_noticed_once(health: Health, noticed: Noticed) -> None:
    fail(health, TARGET)
    now = FIRST_REST_S
    probe = health.begin(TARGET, now)
    probe.answered(now)
    probe.ended(Outcome.SUCCEEDED, now)
    now += RECOVERY_S
    health.begin(TARGET, now).ended(Outcome.SUCCEEDED, now)
    assert noticed.steps == [
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


def test_a_busy_upstream_is_left_alone_for_as_long_as_it_asks(health: Health, noticed: Noticed) -> None:
    health.begin(TARGET, 0).ended(Outcome.BUSY, 0, cool_down_s=7)
    assert health.share(TARGET, 6) == 0.0
    assert health.wait_s([TARGET], 6) == 1.0
    assert health.share(TARGET, 7) == 1.0
    assert noticed == []


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


def test_checks_that_agree_take_a_whole_upstream_down_and_up_again(health: Health, noticed: Noticed) -> None:
    health.begin(TARGET, 0).ended(Outcome.SUCCEEDED, 0)
    for _ in range(DOWN_AFTER_CHECKS - 1):
        health.checked(HERE, problem="503", now=0)
    assert health.share(TARGET, 0) == 1.0
    health.checked(HERE, problem="503", now=0)
    assert (health.share(TARGET, 0), health.share(OTHER_MODEL, 0)) == (0.0, 0.0)
    assert health.share(ELSEWHERE, 0) == 1.0
    assert health.wait_s([TARGET], 0) == 1.0
    for _ in range(UP_AFTER_CHECKS):
        health.checked(HERE, problem="", now=0)
    assert health.share(TARGET, 0) == pytest.approx(FIRST_SHARE)
    assert noticed.steps == [
        ("here", "", "up", "down"),
        ("here", "", "down", "up"),
        ("here", "gpt-oss", "closed", "recovering"),
    ]


def test_one_check_between_that_disagrees_begins_the_count_anew(health: Health) -> None:
    for _ in range(10):
        for _ in range(DOWN_AFTER_CHECKS - 1):
            health.checked(HERE, problem="503", now=0)
        assert health.share(TARGET, 0) == 1.0
        health.checked(HERE, problem="", now=0)


def test_an_upstream_that_is_down_has_the_reasons_of_its_last_checks(health: Health, noticed: Noticed) -> None:
    for problem in ("503", "503", "timeout", "timeout"):
        health.checked(HERE, problem, now=0)
    assert health.view([HERE], 0)[0].failed_checks == {"503": 1, "timeout": 2}
    for _ in range(UP_AFTER_CHECKS):
        health.checked(HERE, problem="", now=0)
    assert health.view([HERE], 0)[0].failed_checks == {}
    assert [change.failed_checks for change in noticed] == [{"503": 2, "timeout": 1}, {}]


def test_an_upstream_that_is_no_longer_checked_is_not_held_down(health: Health) -> None:
    for _ in range(DOWN_AFTER_CHECKS):
        health.checked(HERE, problem="503", now=0)
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
    ("status", "fault", "outcome"),
    [
        (200, None, Outcome.SUCCEEDED),
        (400, Fault.CALLER, Outcome.SUCCEEDED),
        (403, Fault.CALLER, Outcome.SUCCEEDED),
        (429, Fault.CALLER, Outcome.SUCCEEDED),
        (500, Fault.CALLER, Outcome.SUCCEEDED),
        (200, Fault.CALLER, Outcome.SUCCEEDED),
        (408, Fault.UNKNOWN, Outcome.SUCCEEDED),
        (200, Fault.UNKNOWN, Outcome.ERROR),
        (400, Fault.CREDENTIALS, Outcome.ERROR),
        (401, Fault.CREDENTIALS, Outcome.ERROR),
        (429, Fault.PROVIDER, Outcome.BUSY),
        (400, Fault.PROVIDER, Outcome.ERROR),
        (402, Fault.PROVIDER, Outcome.ERROR),
        (503, Fault.PROVIDER, Outcome.ERROR),
        (200, Fault.PROVIDER, Outcome.ERROR),
    ],
)
def test_what_the_caller_caused_is_no_failure_of_the_upstream(
    status: int, fault: Fault | None, outcome: Outcome
) -> None:
    assert outcome_of_answer(status, fault) is outcome


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
