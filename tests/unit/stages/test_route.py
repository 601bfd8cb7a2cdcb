from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from gateway.core.consultations import Consultation
from gateway.core.errors import NoTarget, UpstreamAuthFailed
from gateway.core.health import Outcome
from gateway.core.routing import RoutingState
from gateway.core.snapshot import Model, Target
from gateway.stages.route import route
from tests.unit.fakes import CALLER, StandingClock, exchange_of, target


class Picking:
    """One model's targets, and what is known of them."""

    def __init__(self, *targets: Target) -> None:
        self.clock = StandingClock()
        self.routing = RoutingState(lambda _change: None)
        _, self.parsed = exchange_of(model=Model("m", targets))

    def picked(self) -> list[str]:
        return [each.upstream.name for each in route(self.parsed, {}, CALLER, self.routing, self.clock)]

    def fail(self, one: Target, times: int = 5, outcome: Outcome = Outcome.FAILED, reason: str = "") -> None:
        for _ in range(times):
            now = self.clock.monotonic()
            self.routing.health.begin(one, now).ended(outcome, now, reason=reason)


def test_a_target_whose_upstream_lacks_the_model_that_a_tool_asks_is_left_out() -> None:
    picking = Picking(target("first"), target("both", priority=2))
    advisor = Consultation(0, "opus", Model("opus", (target("both"), target("third"))))
    picking.parsed = msgspec.structs.replace(picking.parsed, consulted=(advisor,))
    assert picking.picked() == ["both"]


def test_the_upstream_that_keeps_what_a_request_is_about_is_asked_and_no_other() -> None:
    picking = Picking(target("first"), target("keeps", priority=2), target("last", priority=3))
    picked = route(picking.parsed, {}, CALLER, picking.routing, picking.clock, "keeps")
    assert [each.upstream.name for each in picked] == ["keeps"]
    picking.fail(picking.parsed.model.targets[1])
    route(picking.parsed, {}, CALLER, picking.routing, picking.clock, "keeps")
    with pytest.raises(NoTarget):
        route(picking.parsed, {}, CALLER, picking.routing, picking.clock, "keeps")


def test_one_target_is_taken() -> None:
    assert Picking(target("only")).picked() == ["only"]


def test_a_model_without_targets_is_served_by_nobody() -> None:
    with pytest.raises(NoTarget) as refused:
        Picking().picked()
    assert (refused.value.status, bool(refused.value.retry_after_ms)) == (503, True)


def test_lower_priority_numbers_come_first_whatever_their_weight() -> None:
    picking = Picking(target("last", priority=3, weight=1_000), target("first"), target("second", priority=2, weight=9))
    assert all(picking.picked() == ["first", "second", "last"] for _ in range(50))


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 2, 7), (100, 1)])
def test_turns_are_taken_exactly_by_weight(weights: tuple[int, ...]) -> None:
    picking = Picking(*(target(str(number), weight=weight) for number, weight in enumerate(weights)))
    rounds = 10
    firsts = Counter(picking.picked()[0] for _ in range(rounds * sum(weights)))
    assert firsts == {str(number): rounds * weight for number, weight in enumerate(weights)}


def test_every_target_that_is_well_stands_in_the_order_once() -> None:
    picking = Picking(*(target(str(number), weight=number + 1, priority=1 + number % 2) for number in range(9)))
    for _ in range(50):
        assert sorted(picking.picked()) == sorted(str(number) for number in range(9))


def test_a_target_whose_circuit_is_open_is_left_out() -> None:
    sick, well = target("sick"), target("well", priority=2)
    picking = Picking(sick, well)
    picking.fail(sick)
    assert picking.picked() == ["well"]


def test_where_none_is_well_the_answer_says_when_to_come_back() -> None:
    only = target("only")
    picking = Picking(only)
    picking.fail(only)
    assert picking.picked() == ["only"]
    with pytest.raises(NoTarget) as refused:
        picking.picked()
    assert "Try again after" in refused.value.message
    assert refused.value.retry_after_ms == 5_000


def test_where_every_upstream_rejects_the_gateways_key_the_error_says_so() -> None:
    first, second = target("first"), target("second", priority=2)
    picking = Picking(first, second)
    for each in (first, second):
        picking.fail(each, outcome=Outcome.ERROR, reason="upstream_auth_failed")
    assert len(picking.picked()) == 1
    with pytest.raises(UpstreamAuthFailed, match="api_key"):
        picking.picked()
    picking.clock.ms += 5_000
    assert len(picking.picked()) == 2


@pytest.mark.parametrize("other", ["500", "hung_up"])
def test_where_one_of_them_fails_otherwise_another_try_may_help(other: str) -> None:
    first, second = target("first"), target("second", priority=2)
    picking = Picking(first, second)
    picking.fail(first, outcome=Outcome.ERROR, reason="upstream_auth_failed")
    picking.fail(second, outcome=Outcome.ERROR, reason=other)
    picking.picked()
    with pytest.raises(NoTarget):
        picking.picked()
