from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.app.snapshot_builder import snapshot
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.pricing import Price
from gateway.core.snapshot import Caller, ConfigSnapshot, Timeouts
from gateway.core.usage import Usage
from gateway.settings.loading import build

KEY = "gw_secret"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


def of(**changes: Any) -> ConfigSnapshot:
    told: dict[str, Any] = {
        "upstreams": {"main": {"base_url": "http://127.0.0.1:9000/v1"}},
        "models": {"a/b": {"routes": [{"upstream": "main"}], "aliases": ["b"]}},
        "teams": {"search": {"keys": [{"name": "prod", "key": KEY}]}},
    }
    return snapshot(build(told | changes), loaded_at=1_700_000_000)


def caller_of(team: dict[str, Any], **changes: Any) -> Caller:
    return of(teams={"search": team}, **changes).callers[DIGEST]


def key(**changes: Any) -> list[dict[str, Any]]:
    return [{"name": "prod", "key": KEY, **changes}]


def test_a_model_is_found_by_its_name_and_by_its_aliases() -> None:
    built = of()
    assert built.models["b"] is built.models["a/b"]
    assert list(built.models) == ["a/b", "b"]
    assert (built.models["b"].name, built.models["b"].created) == ("a/b", 1_700_000_000)


def test_a_route_leads_to_its_upstream_under_the_name_that_the_model_has_there() -> None:
    routes = [
        {"upstream": "main", "weight": 3},
        {"upstream": "spare", "model": "b-awq", "priority": 2},
        {"upstream": "main", "model": "c"},
    ]
    upstreams = {name: {"base_url": f"http://{name}/v1/"} for name in ("main", "spare")}
    first, second, third = of(upstreams=upstreams, models={"a/b": {"routes": routes}}).models["a/b"].targets
    assert (first.upstream.name, first.model, first.weight, first.priority) == ("main", "a/b", 3, 1)
    assert (second.upstream.base_url, second.model, second.weight, second.priority) == (
        "http://spare/v1",
        "b-awq",
        1,
        2,
    )
    assert third.upstream is first.upstream


@pytest.mark.parametrize(
    ("written", "header"),
    [
        ({"api_key": "sk-1"}, ("authorization", "Bearer sk-1")),
        ({"api_key": "sk-1", "auth": "api-key"}, ("api-key", "sk-1")),
        ({"api_key": "sk-1", "auth": "x-api-key"}, ("x-api-key", "sk-1")),
        ({"api_key": ""}, None),
        ({"auth": "none"}, None),
    ],
)
def test_an_upstream_gets_its_credential_as_it_wants_it(
    written: dict[str, str], header: tuple[str, str] | None
) -> None:
    upstreams = {"main": {"base_url": "http://a/v1", "headers": {"X-Org": "platform"}, **written}}
    (target,) = of(upstreams=upstreams).models["a/b"].targets
    assert target.upstream.headers == (*([header] if header else []), ("x-org", "platform"))


def test_an_upstreams_waits_are_seconds() -> None:
    timeouts = {"connect": "250ms", "first_byte": "2m", "idle": "1s", "total": "1h"}
    upstreams = {
        "main": {"base_url": "http://a/v1", "timeouts": timeouts, "max_connections": 7, "stream_options": "false"}
    }
    (target,) = of(upstreams=upstreams).models["a/b"].targets
    assert target.upstream.timeouts == Timeouts(connect=0.25, first_byte=120.0, idle=1.0, total=3600.0)
    assert (target.upstream.max_connections, target.upstream.stream_options) == (7, False)


def test_a_price_is_pico_dollars_a_token_to_the_last_digit() -> None:
    def price(**written: str) -> Price | None:
        return of(models={"a/b": {"routes": [{"upstream": "main"}], "price": written}}).models["a/b"].price

    assert price(input="0.15", output="0.60", cached_input="0.07") == Price(150_000, 600_000, 70_000)
    assert price(input="1.1", output="0.000001") == Price(1_100_000, 1, 1_100_000)
    # As floats, 2.01 and 4.02 times a million fall short of the whole number.
    assert price(input="2.01", output="4.02", cached_input="0") == Price(2_010_000, 4_020_000, 0)
    costly = price(input="0.15", output="0.60")
    assert costly is not None
    assert costly.cost(Usage(input=1_000_000, output=1_000_000)) == 750_000


def test_a_caller_is_known_by_the_sha256_of_its_key_and_bears_the_first_digits_as_id() -> None:
    built = of(teams={"search": {"keys": [{"name": "hashed", "sha256": DIGEST.upper()}]}})
    assert list(built.callers) == [DIGEST]
    caller = built.callers[DIGEST]
    assert (caller.key_id, caller.key_name, caller.team) == (DIGEST[:12], "hashed", "search")
    assert of().callers[DIGEST].key_id == caller.key_id


def test_a_key_that_is_empty_is_no_caller() -> None:
    assert of(teams={"search": {"keys": [{"name": "unset", "key": ""}]}}).callers == {}


def test_a_caller_may_use_what_both_its_team_and_its_key_may() -> None:
    assert caller_of({"keys": key()}).models == ()
    assert caller_of({"models": ["a/*"], "keys": key()}).models == (("a/*",),)
    both = caller_of({"models": ["a/*", "c"], "keys": key(models=["*b"])})
    assert both.models == (("a/*", "c"), ("*b",))
    assert both.may_use("a/b")
    assert not both.may_use("c")


def test_a_callers_limits_are_those_of_organisation_team_and_key() -> None:
    team = {
        "limits": [{"tokens": 200_000, "per": "minute", "burst": 100}],
        "user_limits": [{"requests": 20, "per": "minute"}],
        "keys": key(limits=[{"usd": "0.25", "per": "month", "models": ["a/*"]}]),
    }
    caller = caller_of(team, limits=[{"concurrent": 5, "name": "all"}])
    organisation = Limit("all", Scope.ORGANISATION, "", Meter.CONCURRENT, None, 5, 5)
    teams = Limit("tokens-per-minute", Scope.TEAM, "search", Meter.TOKENS, Per.MINUTE, 200_000, 100, "search")
    keys = Limit(
        "usd-per-month:a/*", Scope.KEY, DIGEST[:12], Meter.USD, Per.MONTH, 250_000, 250_000, "search", ("a/*",)
    )
    assert caller.limits == (organisation, teams, keys)
    assert caller.user_limits == (
        Limit("requests-per-minute", Scope.USER, "", Meter.REQUESTS, Per.MINUTE, 20, 20, "search"),
    )


def test_a_caller_has_the_cost_center_of_its_team() -> None:
    assert caller_of({"keys": key()}).cost_center == ""
    assert caller_of({"cost_center": "4711", "keys": key()}).cost_center == "4711"


def test_a_models_limits_are_on_the_model() -> None:
    limits = [{"output_tokens": 10, "per": "total"}]
    model = of(models={"a/b": {"routes": [{"upstream": "main"}], "limits": limits}}).models["a/b"]
    assert model.limits == (
        Limit("output-tokens-in-total", Scope.MODEL, "a/b", Meter.OUTPUT_TOKENS, Per.TOTAL, 10, 10),
    )


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))),
        ("2027-01-01T18:30:00", datetime(2027, 1, 1, 18, 30, tzinfo=ZoneInfo("Asia/Tokyo"))),
        ("2027-01-01T18:30:00.250Z", datetime(2027, 1, 1, 18, 30, 0, 250_000, tzinfo=ZoneInfo("UTC"))),
    ],
)
def test_an_expiry_without_an_offset_is_in_the_configured_time_zone(expires: str, moment: datetime) -> None:
    caller = caller_of({"keys": key(expires=expires, disabled=True)}, timezone="Asia/Tokyo")
    assert caller.expires_ms == int(moment.timestamp() * 1000)
    assert caller.disabled
    assert caller_of({"keys": key()}).expires_ms is None
