from __future__ import annotations

import msgspec
import pytest

from gateway.core.limits import Limit, Meter, Mode, Per, Scope
from gateway.core.pricing import Price
from gateway.core.reservation import LimitStatuses
from gateway.core.snapshot import (
    BINDINGS_MAX,
    USERS_MAX,
    Binding,
    Caller,
    ConfigSnapshot,
    Model,
    Target,
    Upstream,
    bind,
    matches,
)
from gateway.core.usage import NOTHING_USED, Usage
from tests.unit.fakes import headers_in

LARGE = Model("openai/large", (), aliases=("large", "best"))
SMALL = Model("openai/small", ())
OTHER = Model("other/large", ())
NAMES = {"openai/large": LARGE, "large": LARGE, "best": LARGE, "openai/small": SMALL, "other/large": OTHER}
SNAPSHOT = ConfigSnapshot({}, NAMES)
ANYONE = Caller("1", "anyone", "t")
NARROW = Caller("2", "narrow", "t", models=(("openai/*",),))


def test_a_model_is_found_by_its_name_and_by_each_alias() -> None:
    assert [model_for(ANYONE, name) for name in ("openai/large", "large", "best")] == [LARGE] * 3


def test_a_forbidden_model_is_as_unknown_as_one_that_does_not_exist() -> None:
    assert model_for(NARROW, "other/large") is None
    assert model_for(NARROW, "nobody/knows") is None


def test_an_alias_is_judged_by_the_name_behind_it() -> None:
    assert model_for(NARROW, "best") is LARGE
    assert model_for(Caller("3", "by alias", "t", models=(("best",),)), "best") is None


def test_names_are_taken_to_the_letter() -> None:
    assert model_for(ANYONE, "OpenAI/large") is None
    assert model_for(ANYONE, "openai/large ") is None
    assert model_for(ANYONE, "openai/*") is None


def test_each_model_is_listed_once_and_only_to_whom_may_use_it() -> None:
    assert SNAPSHOT.models_of(ANYONE) == [LARGE, SMALL, OTHER]
    assert SNAPSHOT.models_of(NARROW) == [LARGE, SMALL]


def model_for(caller: Caller, asked: str) -> Model | None:
    binding = SNAPSHOT.binding(caller, asked)
    return binding.model if binding is not None else None


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


def bound(name: str, scope: Scope = Scope.TEAM, models: tuple[str, ...] = ()) -> Limit:
    return Limit(name, scope, "search", Meter.REQUESTS, Per.MINUTE, 1, 1, team="search", models=models)


GPT = Model("openai/gpt-oss-120b", (), limits=(bound("model", Scope.MODEL),))


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
    assert Caller("id", "name", "search", models=models).may_use(GPT.name) is allowed


def test_every_limit_of_organisation_model_team_key_and_user_binds() -> None:
    of_user = bound("user", Scope.USER)
    caller = Caller("id", "name", "search", limits=(bound("team"), bound("key", Scope.KEY)), user_limits=(of_user,))
    bound_limits = bind(caller, GPT).limits_for("ann")
    assert [each.name for each in bound_limits] == ["team", "key", "model", "user"]
    assert bound_limits[-1].subject == "ann"
    assert of_user.subject == "search"


def test_users_are_bound_each_by_itself_and_nobody_by_none() -> None:
    caller = Caller("id", "name", "search", user_limits=(bound("user", Scope.USER),))
    (ann,), (ben,) = bind(caller, Model("m", ())).limits_for("ann"), bind(caller, Model("m", ())).limits_for("ben")
    assert ann.identity != ben.identity
    assert bind(caller, Model("m", ())).limits_for("") == ()


def test_a_limit_on_other_models_does_not_bind() -> None:
    limits = (bound("openai", models=("openai/*",)), bound("others", models=("anthropic/*", "x")), bound("all"))
    caller = Caller("id", "name", "search", limits=limits)
    assert [each.name for each in bind(caller, GPT).limits] == ["openai", "all", "model"]


@pytest.mark.parametrize(
    ("name", "patterns", "fits"),
    [
        ("openai/gpt", ("openai/*",), True),
        ("openai/gpt/4", ("openai/*",), True),
        ("openai", ("openai/*",), False),
        ("x/openai/gpt", ("openai/*",), False),
        ("gpt-4", ("gpt-?",), True),
        ("gpt-40", ("gpt-?",), False),
        ("gpt-4", ("gpt-[34]",), True),
        ("gpt-5", ("gpt-[!34]",), True),
        ("GPT-4", ("gpt-*",), False),
        ("a", ("b", "a"), True),
        ("a", (), False),
        ("a.b", ("a?b",), True),
        ("axb", ("a.b",), False),
        ("a\nb", ("a*b",), True),
    ],
)
def test_names_fit_globs(name: str, patterns: tuple[str, ...], fits: bool) -> None:
    assert matches(name, patterns) is fits


def test_a_key_and_a_model_have_one_binding_also_by_an_alias() -> None:
    binding = SNAPSHOT.binding(ANYONE, "openai/large")
    assert binding is not None
    assert SNAPSHOT.binding(ANYONE, "openai/large") is SNAPSHOT.binding(ANYONE, "best") is binding
    assert binding.limits_for("") is binding.limits


def test_a_key_that_was_changed_is_bound_again() -> None:
    before = SNAPSHOT.binding(ANYONE, "openai/small")
    changed = Caller("1", "anyone", "t", limits=(bound("new"),))
    after = SNAPSHOT.binding(changed, "openai/small")
    assert (before is not after, after and [each.name for each in after.limits]) == (True, ["new"])


def test_the_same_user_has_the_same_limits_while_it_is_remembered() -> None:
    caller = Caller("id", "name", "search", limits=(bound("team"),), user_limits=(bound("user", Scope.USER),))
    binding = bind(caller, GPT)
    ann = binding.limits_for("ann")
    for number in range(USERS_MAX - 1):
        binding.limits_for(f"user {number}")
    assert binding.limits_for("ann") is ann
    for number in range(USERS_MAX):
        binding.limits_for(f"another {number}")
    again = binding.limits_for("ann")
    assert (again is not ann, again == ann) == (True, True)


def testbindings_are_kept_up_to_a_bound() -> None:
    snapshot = ConfigSnapshot({}, {"m": Model("m", ())})
    first = snapshot.binding(Caller("0", "0", "t"), "m")
    for number in range(1, BINDINGS_MAX + 1):
        snapshot.binding(Caller(str(number), "many", "t"), "m")
    assert snapshot.binding(Caller("0", "0", "t"), "m") is not first


def test_names_that_are_not_served_leave_nothing_behind() -> None:
    snapshot = ConfigSnapshot({}, NAMES)
    for number in range(100):
        assert snapshot.binding(ANYONE, f"made up {number}") is None
    assert len(snapshot.bindings) == 0


def test_each_limit_has_its_charge_and_its_header_in_the_same_place() -> None:
    limits = (bound("a"), msgspec.structs.replace(bound("b"), mode=Mode.SHADOW))
    binding = bind(Caller("id", "name", "search", limits=limits, user_limits=(bound("user", Scope.USER),)), GPT)
    assert [each.name for each in binding.limits_for("ann")] == ["a", "b", "model", "user"]
    assert binding.rules_for("", 5, Usage()).each == (1,) * 4
    for used, remaining in (([0, 1, 0, 0], "1"), ([0, 0, 0, 1], "0")):
        statuses = LimitStatuses(binding.limits_for("ann"), used, held=[0] * 4, resets_ms=[0] * 4)
        assert headers_in(binding.headers.lines(statuses, now_ms=0))["x-ratelimit-remaining-requests"] == remaining


def own(subject: str, amount: int = 100, meter: Meter = Meter.TOKENS, mode: Mode = Mode.ENFORCE) -> Limit:
    return Limit("own", Scope.KEY, subject, meter, Per.MINUTE, amount, amount, team="t", mode=mode)


def bound_by(*limits: Limit, model: Model = SMALL) -> Binding:
    return bind(Caller(limits[0].subject, "k", "t", limits=limits), model)


def test_keys_whose_limits_differ_in_names_alone_share_what_is_charged_and_shown() -> None:
    one, two = bound_by(own("1")), bound_by(own("2"))
    assert one.rules_for("", 50, NOTHING_USED) is two.rules_for("", 50, NOTHING_USED)
    assert one.charged is two.charged
    statuses = LimitStatuses(one.limits, [1], [2], [0])
    assert one.headers.lines(statuses, 0) == two.headers.lines(statuses, 0)


@pytest.mark.parametrize("other", [own("2", 200), own("2", meter=Meter.REQUESTS), own("2", mode=Mode.SHADOW)])
def test_keys_whose_limits_differ_in_more_are_charged_and_shown_by_their_own(other: Limit) -> None:
    bound_by(own("1"))  # Made first, so that what is shared by mistake would be its.
    binding = bound_by(other)
    rules = binding.rules_for("", 50, NOTHING_USED)
    assert rules.most == (other.burst,)
    assert rules.by_input == (((0, 0, 1_000_000, other.burst),) if other.meter is Meter.TOKENS else ())
    assert binding.charged((0, 1, 2, 3, 4)) == ((1,) if other.meter is Meter.TOKENS else (0,))
    shown = headers_in(binding.headers.lines(LimitStatuses(binding.limits, [1], [2], [0]), 0))
    assert shown.get(f"x-ratelimit-limit-{other.meter}") == (None if other.mode is Mode.SHADOW else f"{other.burst}")


def test_the_same_limits_are_charged_by_the_prices_of_each_model() -> None:
    cheap, dear = (
        Model("m", (Target(Upstream("u", "http://u"), "m", price=Price(price, price)),)) for price in (10, 20)
    )
    dollars = own("1", meter=Meter.USD)
    charges = [bound_by(dollars, model=model).rules_for("", 50, NOTHING_USED).per_input for model in (cheap, dear)]
    assert charges == [(10,), (20,)]
