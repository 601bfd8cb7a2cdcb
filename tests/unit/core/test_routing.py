from __future__ import annotations

import msgspec
import pytest

from gateway.core.circuit import FAILURES_IN_A_ROW
from gateway.core.health import Change, Outcome
from gateway.core.retries import MOST
from gateway.core.routing import RoutingState
from gateway.core.target import Model, Target
from tests.unit.fakes import target

A, B, C = target("a"), target("b"), target("c", priority=2)
MODEL = Model("m", (A, B, C))
NOW = 100.0


@pytest.fixture
def noticed() -> list[Change]:
    return []


@pytest.fixture
def routing(noticed: list[Change]) -> RoutingState:
    return RoutingState(noticed.append)


def break_down(routing: RoutingState, broken: Target) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        routing.health.begin(broken, NOW).ended(Outcome.FAILED, NOW)


def test_equals_take_turns_before_the_next_priority(routing: RoutingState) -> None:
    orders = [routing.order(MODEL, b"", NOW) for _ in range(4)]
    assert orders == [[A, B, C], [B, A, C]] * 2


def test_a_target_that_is_not_well_is_not_in_the_order(routing: RoutingState, noticed: list[Change]) -> None:
    break_down(routing, A)
    assert routing.order(MODEL, b"", NOW) == [B, C]
    assert noticed == [Change("a", "m", "closed", "open")]


def test_an_only_target_is_asked_as_long_as_it_is_well(routing: RoutingState) -> None:
    only = Model("only", (A,))
    assert routing.order(only, b"key", NOW) == [A]
    break_down(routing, A)
    assert routing.order(only, b"key", NOW) == []


def test_what_has_a_key_goes_to_its_favourite_first_and_to_each_other_once(routing: RoutingState) -> None:
    orders = [routing.order(MODEL, b"a key", NOW) for _ in range(6)]
    assert len({order[0] for order in orders}) == 1
    assert all(sorted(order, key=MODEL.targets.index) == [A, B, C] for order in orders)
    break_down(routing, orders[0][0])
    assert routing.order(MODEL, b"a key", NOW)[0] in {A, B} - {orders[0][0]}


def test_each_model_has_a_budget_of_its_own(routing: RoutingState) -> None:
    budget = routing.retries(MODEL, NOW)
    while budget.take():
        pass
    assert routing.retries(MODEL, NOW) is budget
    other = routing.retries(Model("other", (A,)), NOW)
    assert sum(other.take() for _ in range(2 * int(MOST))) == MOST


def test_what_is_not_kept_begins_anew(routing: RoutingState) -> None:
    gone = Model("gone", (B,))
    break_down(routing, A)
    break_down(routing, B)
    kept, forgotten = routing.retries(MODEL, NOW), routing.retries(gone, NOW)
    routing.keep([msgspec.structs.replace(MODEL, targets=(A,))])
    assert (routing.health.share(A, NOW), routing.health.share(B, NOW)) == (0.0, 1.0)
    assert routing.retries(MODEL, NOW) is kept
    assert routing.retries(gone, NOW) is not forgotten


def test_turns_go_on_over_a_reload_that_leaves_the_routes(routing: RoutingState) -> None:
    first = routing.order(MODEL, b"", NOW)
    routing.keep([MODEL])
    assert routing.order(MODEL, b"", NOW) != first
