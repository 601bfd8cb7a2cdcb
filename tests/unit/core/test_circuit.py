from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.circuit import (
    FAILURES_IN_A_ROW,
    FIRST_REST_S,
    FIRST_SHARE,
    KEYS_IN_SLOT,
    LEAST_IN_WINDOW,
    LONGEST_COOL_DOWN_S,
    LONGEST_REST_S,
    RECOVERY_S,
    TEAMS_COOLING,
    WINDOW_S,
    Circuit,
    CircuitState,
)
from gateway.core.snapshot import Caller


def fail_circuit(circuit: Circuit, times: int, now: float) -> None:
    for _ in range(times):
        circuit.failed(circuit.begin(now), now)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    fail_circuit(circuit, FAILURES_IN_A_ROW, now)
    assert circuit.state(now) is CircuitState.OPEN
    return circuit


def test_failures_in_a_row_open_it() -> None:
    circuit = Circuit()
    fail_circuit(circuit, FAILURES_IN_A_ROW - 1, now=0)
    assert (circuit.state(0), circuit.share(0)) == (CircuitState.CLOSED, 1.0)
    fail_circuit(circuit, 1, now=0)
    assert (circuit.state(0), circuit.share(0)) == (CircuitState.OPEN, 0.0)


def test_a_success_breaks_the_row() -> None:
    circuit = Circuit()
    for _ in range(3):
        fail_circuit(circuit, FAILURES_IN_A_ROW - 1, now=0)
        circuit.succeeded(circuit.begin(0), 0)
    assert circuit.state(0) is CircuitState.CLOSED


def test_failing_half_of_the_time_opens_it_once_enough_is_seen() -> None:
    circuit = Circuit()
    for number in range(LEAST_IN_WINDOW - 1):
        (circuit.failed if number % 2 else circuit.succeeded)(circuit.begin(number), number)
    assert circuit.state(WINDOW_S - 1) is CircuitState.CLOSED
    fail_circuit(circuit, 1, LEAST_IN_WINDOW)
    assert circuit.state(LEAST_IN_WINDOW) is CircuitState.OPEN


def test_failures_of_long_ago_do_not_count() -> None:
    circuit = Circuit()
    for second in range(100 * LEAST_IN_WINDOW):
        now = second * WINDOW_S / 4
        (circuit.failed if second % 2 else circuit.succeeded)(circuit.begin(now), now)
        assert circuit.state(now) is CircuitState.CLOSED


def test_when_it_has_rested_one_probe_at_a_time_may_pass() -> None:
    circuit = opened()
    assert circuit.wait_s(1) == FIRST_REST_S - 1
    assert circuit.state(FIRST_REST_S) is CircuitState.HALF_OPEN
    assert circuit.share(FIRST_REST_S) == 1.0
    circuit.begin(FIRST_REST_S)
    assert circuit.share(FIRST_REST_S) == 0.0
    assert circuit.wait_s(FIRST_REST_S) == 1.0


def test_a_probe_that_is_answered_begins_the_recovery() -> None:
    circuit = opened()
    now = FIRST_REST_S
    circuit.answered(circuit.begin(now), now)
    assert circuit.state(now) is CircuitState.RECOVERING
    shares = [circuit.share(now + part * RECOVERY_S / 10) for part in range(11)]
    assert shares[0] == pytest.approx(FIRST_SHARE)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert circuit.state(now + RECOVERY_S) is CircuitState.CLOSED
    assert circuit.wait_s(now) == 0.0


def test_a_probe_that_fails_doubles_the_rest_up_to_the_longest() -> None:
    circuit, now, rests = opened(), 0.0, []
    for _ in range(1_100):
        rests.append(circuit.wait_s(now))
        now += rests[-1]
        fail_circuit(circuit, 1, now)
    assert rests[:5] == [5, 10, 20, 40, LONGEST_REST_S]
    assert set(rests[4:]) == {LONGEST_REST_S}


def test_one_failed_probe_is_enough_whatever_opened_it() -> None:
    circuit = Circuit()
    for number in range(LEAST_IN_WINDOW):
        (circuit.failed if number % 2 else circuit.succeeded)(circuit.begin(0), 0)
    now = WINDOW_S + FIRST_REST_S
    assert circuit.state(now) is CircuitState.HALF_OPEN
    fail_circuit(circuit, 1, now)
    assert circuit.state(now) is CircuitState.OPEN


def test_after_a_whole_recovery_the_rest_is_short_again() -> None:
    circuit = opened()
    fail_circuit(circuit, 1, now=FIRST_REST_S)
    now = 3 * FIRST_REST_S
    circuit.succeeded(circuit.begin(now), now)
    now += RECOVERY_S
    fail_circuit(circuit, FAILURES_IN_A_ROW, now)
    assert circuit.wait_s(now) == FIRST_REST_S


def test_a_success_after_the_whole_recovery_closes_it_as_if_it_had_never_opened() -> None:
    circuit = opened()
    circuit.answered(circuit.begin(FIRST_REST_S), FIRST_REST_S)
    circuit.succeeded(circuit.begin(FIRST_REST_S + 1), FIRST_REST_S + 1)
    assert not circuit.is_closed
    later = FIRST_REST_S + RECOVERY_S
    circuit.succeeded(circuit.begin(later), later)
    assert circuit.is_closed
    fail_circuit(circuit, FAILURES_IN_A_ROW, later)
    assert (circuit.is_closed, circuit.state(later)) == (False, CircuitState.OPEN)


def test_some_failures_do_not_end_a_recovery_but_a_row_of_them_does() -> None:
    circuit = opened()
    now = FIRST_REST_S
    circuit.succeeded(circuit.begin(now), now)
    fail_circuit(circuit, FAILURES_IN_A_ROW - 1, now)
    assert circuit.state(now) is CircuitState.RECOVERING
    circuit.succeeded(circuit.begin(now), now)
    fail_circuit(circuit, FAILURES_IN_A_ROW, now)
    assert circuit.state(now) is CircuitState.OPEN


def test_a_probe_whose_client_left_makes_room_for_another() -> None:
    circuit = opened()
    now = FIRST_REST_S
    circuit.left(circuit.begin(now))
    assert circuit.state(now) is CircuitState.HALF_OPEN
    assert circuit.share(now) == 1.0


def test_what_began_before_it_opened_says_nothing_afterwards() -> None:
    circuit = Circuit()
    old = circuit.begin(0)
    fail_circuit(circuit, FAILURES_IN_A_ROW, now=0)
    circuit.succeeded(old, 1)
    circuit.answered(old, 1)
    assert circuit.state(1) is CircuitState.OPEN
    now = FIRST_REST_S
    circuit.begin(now)
    circuit.failed(old, now)
    circuit.answered(old, now)
    circuit.left(old)
    assert circuit.state(now) is CircuitState.HALF_OPEN
    assert circuit.share(now) == 0.0


def test_an_old_success_does_not_break_a_new_row_of_failures() -> None:
    circuit = Circuit()
    old = circuit.begin(0)
    fail_circuit(circuit, FAILURES_IN_A_ROW, now=0)
    now = FIRST_REST_S
    circuit.answered(circuit.begin(now), now)
    fail_circuit(circuit, FAILURES_IN_A_ROW - 1, now)
    circuit.succeeded(old, now)
    fail_circuit(circuit, 1, now)
    assert circuit.state(now) is CircuitState.OPEN


def test_recovering_forgets_what_was_before() -> None:
    circuit = Circuit()
    for number in range(LEAST_IN_WINDOW - 1):
        (circuit.succeeded if number % 2 else circuit.failed)(circuit.begin(0), 0)
    circuit.recover(0)
    fail_circuit(circuit, 1, now=0)
    assert circuit.state(0) is CircuitState.RECOVERING


def test_a_cool_down_stops_it_without_opening_it() -> None:
    circuit = Circuit()
    circuit.cool_down(20, now=0)
    circuit.cool_down(10, now=0)
    assert (circuit.state(0), circuit.share(19), circuit.wait_s(5)) == (CircuitState.CLOSED, 0.0, 15)
    assert circuit.share(20) == 1.0


def test_a_cool_down_of_a_day_is_not_believed() -> None:
    circuit = Circuit()
    circuit.cool_down(86_400, now=0)
    assert circuit.wait_s(0) == LONGEST_COOL_DOWN_S


steps = st.lists(
    st.tuples(st.sampled_from(["begin", "answered", "succeeded", "failed", "left", "cool"]), st.floats(0, 20)),
    max_size=80,
)


@given(steps)
def test_whatever_happens_it_can_be_asked_again_once_its_wait_is_over(happenings: list[tuple[str, float]]) -> None:
    circuit, now, turns = Circuit(), 0.0, []
    for step, seconds in happenings:
        now += seconds
        assert 0.0 <= circuit.share(now) <= 1.0
        assert (circuit.wait_s(now) == 0) == (circuit.share(now) > 0)
        if step == "begin" and circuit.share(now) > 0:
            turns.append(circuit.begin(now))
        elif step == "cool":
            circuit.cool_down(seconds, now)
        elif step == "left" and turns:
            circuit.left(turns.pop())
        elif step in {"answered", "succeeded", "failed"} and turns:
            getattr(circuit, step)(turns[-1], now)
    for turn in turns:
        circuit.left(turn)
    assert circuit.share(now + circuit.wait_s(now)) > 0


def test_what_is_kept_of_callers_is_bounded() -> None:
    circuit = Circuit()
    for number in range(10_000):
        caller = Caller(f"key-{number}", "", f"team-{number}")
        circuit.cool_down(1 + number / 100, 0, caller)
        circuit.succeeded(circuit.begin(0, caller), 0, caller)
    assert len(circuit.cooling(0)) == TEAMS_COOLING
    assert circuit.is_cooling_down(0, caller)
    assert sum(len(counts) for _, counts in circuit._window._slots) <= KEYS_IN_SLOT + 1
    for number in range(10_000):
        caller = Caller(f"key-{number}", "", "")
        circuit.failed(circuit.begin(number, caller), number, caller)
    assert len(circuit._row) <= FAILURES_IN_A_ROW


def test_it_is_open_for_all_where_it_binds_everyone_or_the_only_key_that_asked() -> None:
    assert not Circuit().is_open_for_all(0)
    circuit = opened()
    assert circuit.is_open_for_all(0)
    assert not circuit.is_open_for_all(FIRST_REST_S)
