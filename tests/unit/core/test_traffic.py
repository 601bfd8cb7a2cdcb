from __future__ import annotations

import msgspec
import pytest

from gateway.core.circuit import FAILURES_IN_A_ROW
from gateway.core.health import Change, Outcome
from gateway.core.retries import MOST
from gateway.core.target import Model, Target
from gateway.core.traffic import Traffic
from tests.unit.fakes import target

A, B, C = target("a"), target("b"), target("c", priority=2)
MODEL = Model("m", (A, B, C))
NOW = 100.0


@pytest.fixture
def noticed() -> list[Change]:
    return []


@pytest.fixture
def traffic(noticed: list[Change]) -> Traffic:
    return Traffic(noticed.append)


def break_down(traffic: Traffic, broken: Target) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        traffic.health.begin(broken, NOW).ended(Outcome.FAILED, NOW)


def test_equals_take_turns_before_the_next_priority(traffic: Traffic) -> None:
    orders = [traffic.order(MODEL, b"", NOW) for _ in range(4)]
    assert orders == [[A, B, C], [B, A, C]] * 2


def test_a_target_that_is_not_well_is_not_in_the_order(traffic: Traffic, noticed: list[Change]) -> None:
    break_down(traffic, A)
    assert traffic.order(MODEL, b"", NOW) == [B, C]
    assert noticed == [Change("a", "m", "closed", "open")]


def test_an_only_target_is_asked_as_long_as_it_is_well(traffic: Traffic) -> None:
    only = Model("only", (A,))
    assert traffic.order(only, b"key", NOW) == [A]
    break_down(traffic, A)
    assert traffic.order(only, b"key", NOW) == []


def test_what_has_a_key_goes_to_its_favourite_first_and_to_each_other_once(traffic: Traffic) -> None:
    orders = [traffic.order(MODEL, b"a key", NOW) for _ in range(6)]
    assert len({order[0] for order in orders}) == 1
    assert all(sorted(order, key=MODEL.targets.index) == [A, B, C] for order in orders)
    break_down(traffic, orders[0][0])
    assert traffic.order(MODEL, b"a key", NOW)[0] in {A, B} - {orders[0][0]}


def test_each_model_has_a_budget_of_its_own(traffic: Traffic) -> None:
    budget = traffic.retries(MODEL, NOW)
    while budget.take():
        pass
    assert traffic.retries(MODEL, NOW) is budget
    other = traffic.retries(Model("other", (A,)), NOW)
    assert sum(other.take() for _ in range(2 * int(MOST))) == MOST


def test_what_is_not_kept_begins_anew(traffic: Traffic) -> None:
    gone = Model("gone", (B,))
    break_down(traffic, A)
    break_down(traffic, B)
    kept, forgotten = traffic.retries(MODEL, NOW), traffic.retries(gone, NOW)
    traffic.keep([msgspec.structs.replace(MODEL, targets=(A,))])
    assert (traffic.health.share(A, NOW), traffic.health.share(B, NOW)) == (0.0, 1.0)
    assert traffic.retries(MODEL, NOW) is kept
    assert traffic.retries(gone, NOW) is not forgotten


def test_turns_go_on_over_a_reload_that_leaves_the_routes(traffic: Traffic) -> None:
    first = traffic.order(MODEL, b"", NOW)
    traffic.keep([MODEL])
    assert traffic.order(MODEL, b"", NOW) != first
