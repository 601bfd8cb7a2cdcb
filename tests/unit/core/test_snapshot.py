from __future__ import annotations

from gateway.core.caller import Caller
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.snapshot import ConfigSnapshot
from gateway.core.target import Model

LARGE = Model("openai/large", (), aliases=("large", "best"))
SMALL = Model("openai/small", ())
OTHER = Model("other/large", ())
NAMES = {"openai/large": LARGE, "large": LARGE, "best": LARGE, "openai/small": SMALL, "other/large": OTHER}
CATALOGUE = ConfigSnapshot({}, NAMES)
ANYONE = Caller("1", "anyone", "t")
NARROW = Caller("2", "narrow", "t", models=(("openai/*",),))


def test_a_model_is_found_by_its_name_and_by_each_alias() -> None:
    assert [CATALOGUE.model_for(ANYONE, name) for name in ("openai/large", "large", "best")] == [LARGE] * 3


def test_a_forbidden_model_is_as_unknown_as_one_that_does_not_exist() -> None:
    assert CATALOGUE.model_for(NARROW, "other/large") is None
    assert CATALOGUE.model_for(NARROW, "nobody/knows") is None


def test_an_alias_is_judged_by_the_name_behind_it() -> None:
    assert CATALOGUE.model_for(NARROW, "best") is LARGE
    assert CATALOGUE.model_for(Caller("3", "by alias", "t", models=(("best",),)), "best") is None


def test_names_are_taken_to_the_letter() -> None:
    assert CATALOGUE.model_for(ANYONE, "OpenAI/large") is None
    assert CATALOGUE.model_for(ANYONE, "openai/large ") is None
    assert CATALOGUE.model_for(ANYONE, "openai/*") is None


def test_each_model_is_listed_once_and_only_to_whom_may_use_it() -> None:
    assert CATALOGUE.models_of(ANYONE) == [LARGE, SMALL, OTHER]
    assert CATALOGUE.models_of(NARROW) == [LARGE, SMALL]


def limit(name: str, scope: Scope, subject: str = "", team: str = "") -> Limit:
    return Limit(name, scope, subject, Meter.REQUESTS, Per.MINUTE, 10, 10, team)


def test_the_limits_of_a_team_are_those_that_can_bind_its_keys_each_once() -> None:
    everybody = limit("all", Scope.ORGANISATION)
    teams = {name: limit("team", Scope.TEAM, name, name) for name in ("a", "b")}
    key = limit("key", Scope.KEY, "1", "a")
    each_user = limit("user", Scope.USER, "", "a")
    of_model = limit("model", Scope.MODEL, "m")
    callers = {
        "x": Caller("1", "first", "a", limits=(everybody, teams["a"], key), user_limits=(each_user,)),
        "y": Caller("2", "second", "a", limits=(everybody, teams["a"])),
        "z": Caller("3", "third", "b", limits=(everybody, teams["b"])),
    }
    snapshot = ConfigSnapshot(callers, {"m": Model("m", (), limits=(of_model,))})
    assert snapshot.limits_of("a") == [everybody, teams["a"], key, of_model]
    assert snapshot.limits_of() == [everybody, teams["a"], key, teams["b"], of_model]
    assert snapshot.teams == {"a", "b"}
