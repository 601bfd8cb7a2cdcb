from __future__ import annotations

import pytest

from gateway.core.caller import Caller
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.target import Model


def limit(name: str, scope: Scope = Scope.TEAM, models: tuple[str, ...] = ()) -> Limit:
    return Limit(name, scope, "search", Meter.REQUESTS, Per.MINUTE, 1, 1, team="search", models=models)


MODEL = Model("openai/gpt-oss-120b", (), limits=(limit("model", Scope.MODEL),))


@pytest.mark.parametrize(
    ("models", "allowed"),
    [
        ((), True),
        ((("*",),), True),
        ((("openai/*",),), True),
        ((("openai/gpt-oss-120b",),), True),
        ((("anthropic/*", "openai/*"),), True),
        ((("*/gpt-*",),), True),
        ((("openai/*",), ("*-120b",)), True),
        ((("openai/*",), ("*-20b",)), False),
        ((("anthropic/*",), ("*",)), False),
        (((),), False),
        ((("OpenAI/*",),), False),
        ((("gpt-oss-120b",),), False),
        ((("openai/gpt-oss",),), False),
    ],
)
def test_a_model_needs_to_fit_the_team_and_the_key(models: tuple[tuple[str, ...], ...], allowed: bool) -> None:
    assert Caller("id", "name", "search", models=models).may_use(MODEL.name) is allowed


def test_every_limit_of_organisation_model_team_key_and_user_binds() -> None:
    of_user = limit("user", Scope.USER)
    caller = Caller("id", "name", "search", limits=(limit("team"), limit("key", Scope.KEY)), user_limits=(of_user,))
    bound = caller.limits_on(MODEL, "ann")
    assert [each.name for each in bound] == ["team", "key", "model", "user"]
    assert bound[-1].subject == "ann"
    assert of_user.subject == "search"


def test_users_are_bound_each_by_itself_and_nobody_by_none() -> None:
    caller = Caller("id", "name", "search", user_limits=(limit("user", Scope.USER),))
    (ann,), (ben,) = caller.limits_on(Model("m", ()), "ann"), caller.limits_on(Model("m", ()), "ben")
    assert ann.identity != ben.identity
    assert caller.limits_on(Model("m", ()), "") == ()


def test_a_limit_on_other_models_does_not_bind() -> None:
    limits = (limit("openai", models=("openai/*",)), limit("others", models=("anthropic/*", "x")), limit("all"))
    bound = Caller("id", "name", "search", limits=limits).limits_on(MODEL, "")
    assert [each.name for each in bound] == ["openai", "all", "model"]
