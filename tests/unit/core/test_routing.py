from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.circuit import FAILURES_IN_A_ROW, FIRST_REST_S, FIRST_SHARE, RECOVERY_S, Opening
from gateway.core.health import Candidate, Change, Outcome
from gateway.core.retry import MOST
from gateway.core.routing import Balance, RoutingState
from gateway.core.snapshot import Model, Target, Upstream
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
    orders = [routing.order(MODEL.targets, b"", NOW) for _ in range(4)]
    assert orders == [[A, B, C], [B, A, C]] * 2


def test_a_target_that_is_not_well_is_not_in_the_order(routing: RoutingState, noticed: list[Change]) -> None:
    break_down(routing, A)
    assert routing.order(MODEL.targets, b"", NOW) == [B, C]
    assert noticed == [Change("a", "m", "closed", "open", Opening(NOW, {}))]


ONLY = Model("only", (A,))


def asked(routing: RoutingState, model: Model, times: int, *, every_s: float, since: float = NOW) -> list[Target]:
    """Who is asked first, of so many requests at this pace; those that are refused are left out."""
    orders = [routing.order(model.targets, b"", since + number * every_s) for number in range(times)]
    return [order[0] for order in orders if order]


def test_where_every_circuit_is_open_the_least_bad_route_gets_a_trickle(routing: RoutingState) -> None:
    for target_ in (A, B, C):
        break_down(routing, target_)
    routing.health.begin(A, NOW).ended(Outcome.NEUTRAL, NOW)
    in_two_seconds = asked(routing, MODEL, 200, every_s=0.01)
    assert in_two_seconds == [A, A]


def test_an_only_route_that_is_broken_gets_a_trickle_and_no_more(routing: RoutingState) -> None:
    assert asked(routing, ONLY, 10, every_s=0.01) == [A] * 10
    break_down(routing, A)
    assert len(asked(routing, ONLY, 400, every_s=0.01)) == 4


def test_a_trickle_that_is_answered_begins_the_recovery(routing: RoutingState) -> None:
    break_down(routing, A)
    routing.health.begin(A, NOW).ended(Outcome.SUCCEEDED, NOW)
    assert routing.health.share(A, NOW) == pytest.approx(FIRST_SHARE)


def test_a_trickle_that_fails_leaves_the_rest_as_it_is(routing: RoutingState) -> None:
    break_down(routing, A)
    before = routing.health.wait_s([A], NOW)
    for _ in range(10):
        routing.health.begin(A, NOW).ended(Outcome.FAILED, NOW)
    assert routing.health.wait_s([A], NOW) == before


def test_an_only_route_that_recovers_gets_a_growing_share(routing: RoutingState) -> None:
    break_down(routing, A)
    recovery = NOW + FIRST_REST_S
    routing.health.begin(A, recovery).ended(Outcome.SUCCEEDED, recovery)
    pace = 100
    counts = [
        len(asked(routing, ONLY, pace, every_s=1 / pace, since=recovery + second)) / pace
        for second in range(int(RECOVERY_S))
    ]
    assert counts[0] == pytest.approx(FIRST_SHARE, abs=0.05)
    assert counts[15] == pytest.approx(0.55, abs=0.06)
    assert counts[-1] > 0.9


def test_a_model_that_few_use_is_not_refused_while_it_recovers(routing: RoutingState) -> None:
    break_down(routing, A)
    recovery = NOW + FIRST_REST_S
    routing.health.begin(A, recovery).ended(Outcome.SUCCEEDED, recovery)
    assert asked(routing, ONLY, 10, every_s=3, since=recovery + 1) == [A] * 10


def test_who_asked_for_time_gets_no_trickle(routing: RoutingState) -> None:
    routing.health.begin(A, NOW).ended(Outcome.BUSY, NOW, cool_down_s=60)
    assert asked(routing, ONLY, 59, every_s=1) == []


def test_what_has_a_key_goes_to_its_favourite_first_and_to_each_other_once(routing: RoutingState) -> None:
    orders = [routing.order(MODEL.targets, b"a key", NOW) for _ in range(6)]
    assert len({order[0] for order in orders}) == 1
    assert all(sorted(order, key=MODEL.targets.index) == [A, B, C] for order in orders)
    break_down(routing, orders[0][0])
    assert routing.order(MODEL.targets, b"a key", NOW)[0] in {A, B} - {orders[0][0]}


def test_each_model_has_a_budget_of_its_own(routing: RoutingState) -> None:
    budget = routing.retries(MODEL, NOW)
    while budget.take(NOW):
        pass
    assert routing.retries(MODEL, NOW) is budget
    other = routing.retries(Model("other", (A,)), NOW)
    assert sum(other.take(NOW) for _ in range(2 * int(MOST))) == MOST


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
    first = routing.order(MODEL.targets, b"", NOW)
    routing.keep([MODEL])
    assert routing.order(MODEL.targets, b"", NOW) != first


def route(name: str, weight: int = 1, priority: int = 1, most: int = 512) -> Target:
    return Target(Upstream(name, f"http://{name}", max_connections=most), "m", weight, priority)


def idle(*routes: Target) -> list[Candidate]:
    return [Candidate(target, share=1.0, in_flight=0) for target in routes]


def names(order: list[Target]) -> list[str]:
    return [target.upstream.name for target in order]


def firsts(balance: Balance, candidates: list[Candidate], times: int) -> list[str]:
    return [names(balance.order(candidates))[0] for _ in range(times)]


def test_weights_share_exactly_and_smoothly() -> None:
    candidates = idle(route("a", 5), route("b", 1), route("c", 1))
    assert firsts(Balance(3), candidates, 7) == ["a", "a", "b", "a", "c", "a", "a"]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_over_a_round_each_route_comes_first_as_often_as_its_weight(weights: list[int]) -> None:
    candidates = idle(*(route(str(place), weight) for place, weight in enumerate(weights)))
    counted = Counter(firsts(Balance(len(weights)), candidates, sum(weights)))
    assert [counted[str(place)] for place in range(len(weights))] == weights


def test_lower_priorities_come_first_and_the_others_stand_behind() -> None:
    candidates = idle(route("spare", 9, priority=2), route("a"), route("last", priority=3), route("b"))
    balance = Balance(4)
    assert names(balance.order(candidates)) == ["a", "b", "spare", "last"]
    assert names(balance.order(candidates)) == ["b", "a", "spare", "last"]


def test_a_spare_route_leaves_the_weights_of_the_first_as_they_are() -> None:
    candidates = idle(route("a", 3), route("b", 1), route("spare", 9, priority=2))
    assert Counter(firsts(Balance(3), candidates, 400)) == {"a": 300, "b": 100}


def test_who_has_no_share_is_not_tried_at_all() -> None:
    sick, well = Candidate(route("sick"), 0.0, 0), Candidate(route("well", priority=2), 1.0, 0)
    assert names(Balance(2).order([sick, well])) == ["well"]
    assert Balance(1).order([sick]) == []


def test_a_recovering_route_gets_its_part_and_the_rest_goes_elsewhere() -> None:
    recovering, spare = Candidate(route("recovering"), 0.1, 0), Candidate(route("spare", priority=2), 1.0, 0)
    counted = Counter(firsts(Balance(2), [recovering, spare], 1_000))
    assert counted["recovering"] == pytest.approx(100, abs=1)


def test_without_another_a_recovering_route_gets_its_part_alone() -> None:
    recovering, spare = Candidate(route("recovering"), 0.1, 0), Candidate(route("spare", priority=2), 0.0, 0)
    balance = Balance(2)
    assert sum(bool(balance.order([recovering, spare])) for _ in range(1_000)) == pytest.approx(100, abs=1)


def test_a_full_route_comes_last() -> None:
    full, spare = Candidate(route("full", most=8), 1.0, 8), Candidate(route("spare", priority=2), 1.0, 0)
    assert names(Balance(2).order([full, spare])) == ["spare", "full"]


@pytest.mark.parametrize(("slowness", "part"), [(1, 0.5), (4, 1 / 3)])
def test_a_slow_route_gets_fewer_requests(slowness: int, part: float) -> None:
    """Each request takes 10 turns, at the slow one `slowness` times as many: requests in flight pile up there."""
    fast, slow = route("fast"), route("slow")
    balance, ends, firsts_of_slow = Balance(2), list[tuple[str, int]](), 0
    for turn in range(4_000):
        ends = [(name, end) for name, end in ends if end > turn]
        load = Counter(name for name, _ in ends)
        first = balance.order([Candidate(fast, 1.0, load["fast"]), Candidate(slow, 1.0, load["slow"])])[0]
        ends.append((first.upstream.name, turn + 100 * (slowness if first is slow else 1)))
        firsts_of_slow += first is slow
    assert firsts_of_slow / 4_000 == pytest.approx(part, abs=0.03)


def test_under_load_the_weights_still_hold() -> None:
    heavy, light = route("heavy", 3), route("light", 1)
    balance, ends, counted = Balance(2), list[tuple[str, int]](), Counter[str]()
    for turn in range(4_000):
        ends = [(name, end) for name, end in ends if end > turn]
        load = Counter(name for name, _ in ends)
        first = balance.order([Candidate(heavy, 1.0, load["heavy"]), Candidate(light, 1.0, load["light"])])[0]
        ends.append((first.upstream.name, turn + 100))
        counted[first.upstream.name] += 1
    assert counted["heavy"] / 4_000 == pytest.approx(0.75, abs=0.01)


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 9)), min_size=4, max_size=4),
        max_size=30,
    )
)
def test_every_route_that_may_be_tried_stands_in_the_order_once(rounds: list[list[tuple[float, int]]]) -> None:
    routes = [route("a", 3, most=8), route("b", 1), route("c", 2, priority=2), route("d", 1, priority=2, most=4)]
    balance = Balance(4)
    for limit_status in rounds:
        candidates = [Candidate(target, *each) for target, each in zip(routes, limit_status, strict=True)]
        able = {candidate.target.upstream.name for candidate in candidates if candidate.share > 0}
        order = names(balance.order(candidates))
        assert len(order) == len(set(order))
        assert set(order) in (able, set())
        assert order or all(candidate.share < 1.0 for candidate in candidates)
