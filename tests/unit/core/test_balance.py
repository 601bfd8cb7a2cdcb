from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balance import Balance, Candidate
from gateway.core.target import Target, Upstream


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


def test_a_recovering_route_is_better_than_none() -> None:
    recovering, spare = Candidate(route("recovering"), 0.1, 0), Candidate(route("spare", priority=2), 0.0, 0)
    assert firsts(Balance(2), [recovering, spare], 20) == ["recovering"] * 20


def test_a_full_route_comes_last() -> None:
    full, spare = Candidate(route("full", most=8), 1.0, 8), Candidate(route("spare", priority=2), 1.0, 0)
    assert names(Balance(2).order([full, spare])) == ["spare", "full"]


@pytest.mark.parametrize(("slowness", "part"), [(1, 0.5), (4, 1 / 3)])
def test_a_slow_route_gets_fewer_requests(slowness: int, part: float) -> None:
    """Each request takes 10 turns, at the slow one `slowness` times as many: requests in flight pile up there."""
    fast, slow = route("fast"), route("slow")
    balance, ends, firsts_of_slow = Balance(2), [], 0
    for turn in range(4_000):
        ends = [(name, end) for name, end in ends if end > turn]
        load = Counter(name for name, _ in ends)
        first = balance.order([Candidate(fast, 1.0, load["fast"]), Candidate(slow, 1.0, load["slow"])])[0]
        ends.append((first.upstream.name, turn + 100 * (slowness if first is slow else 1)))
        firsts_of_slow += first is slow
    assert firsts_of_slow / 4_000 == pytest.approx(part, abs=0.03)


def test_under_load_the_weights_still_hold() -> None:
    heavy, light = route("heavy", 3), route("light", 1)
    balance, ends, counted = Balance(2), [], Counter[str]()
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
        assert len(order) == len(able)
        assert set(order) == able
