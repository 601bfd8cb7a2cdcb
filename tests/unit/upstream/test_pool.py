"""How models and teams share the connections of an upstream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.pool import ConnectionShares, Holder


def shares_of(total: int, *models: str) -> ConnectionShares:
    shares = ConnectionShares(total)
    shares.models = models
    return shares


def take_all(shares: ConnectionShares, model: str) -> int:
    """As many as this model gets."""
    while shares.may_take(Holder(model)):
        shares.take(Holder(model))
    return held(shares, model)


def held(shares: ConnectionShares, model: str) -> int:
    _, by_model = shares.held(Holder(model))
    return by_model


@pytest.mark.parametrize(("total", "most"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (64, 48), (512, 384)])
def test_a_model_among_others_takes_three_quarters_at_most(total: int, most: int) -> None:
    assert take_all(shares_of(total, "hangs", "other"), "hangs") == most


def test_a_model_that_is_alone_takes_all() -> None:
    assert take_all(shares_of(64, "alone"), "alone") == 64
    assert take_all(shares_of(64), "not configured yet") == 64


def test_several_that_hang_leave_some_to_the_next() -> None:
    shares = shares_of(64, "first", "second", "third", "fourth")
    for hanging in ("first", "second", "third"):
        take_all(shares, hanging)
    assert shares.free > 0
    assert shares.may_take(Holder("fourth"))
    assert shares.may_take(Holder(""))  # The gateway's own request, such as a health check.


def test_nothing_is_kept_free_for_models_that_hold_as_many() -> None:
    shares = shares_of(10, "a", "b")
    while shares.free:
        before = shares.free
        for model in ("a", "b"):
            if shares.may_take(Holder(model)):
                shares.take(Holder(model))
        assert shares.free < before
    assert (held(shares, "a"), held(shares, "b")) == (5, 5)


def test_what_is_given_back_can_be_taken_again() -> None:
    shares = shares_of(4, "hangs", "other")
    take_all(shares, "hangs")
    assert not shares.may_take(Holder("hangs"))
    shares.give_back(Holder("hangs"))
    assert shares.may_take(Holder("hangs"))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_there_are_never_more_taken_than_there_are_and_who_holds_none_gets_what_is_free(
    steps: list[tuple[str, bool]],
) -> None:
    shares = shares_of(12, "a", "b", "c")
    for model, takes in steps:
        if takes and shares.may_take(Holder(model)):
            shares.take(Holder(model))
        elif not takes and held(shares, model):
            shares.give_back(Holder(model))
        assert shares.free + sum(held(shares, each) for each in "abc") == 12
        assert all(shares.may_take(Holder(each)) for each in "abc" if not held(shares, each)) or not shares.free


def take_all_of(shares: ConnectionShares, holder: Holder) -> int:
    while shares.may_take(holder):
        shares.take(holder)
    by_team, _ = shares.held(holder)
    return by_team


def test_a_team_among_others_takes_three_quarters_at_most_over_all_models() -> None:
    shares = shares_of(64, "a", "b")
    shares.teams = 2
    take_all_of(shares, Holder("a", "busy"))
    assert take_all_of(shares, Holder("b", "busy")) == 48
    assert shares.may_take(Holder("b", "other"))


def test_a_team_that_is_alone_takes_all() -> None:
    shares = shares_of(64, "a")
    shares.teams = 1
    assert take_all_of(shares, Holder("a", "alone")) == 64


def test_teams_that_want_everything_hold_equally_many() -> None:
    shares = shares_of(12, "m")
    shares.teams = 3
    for team in "abcabcabcabcabcabc":
        if shares.may_take(Holder("m", team)):
            shares.take(Holder("m", team))
    assert [shares.held(Holder("m", team))[0] for team in "abc"] == [4, 4, 4]
    assert shares.free == 0


def test_the_gateway_s_own_requests_are_no_team() -> None:
    shares = shares_of(4, "m")
    shares.teams = 1
    shares.take(Holder())
    assert take_all_of(shares, Holder("m", "alone")) == 3
