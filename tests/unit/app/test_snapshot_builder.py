from __future__ import annotations

import hashlib
import pickle
import random
import shutil
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.app.snapshot_builder import price_of, snapshot
from gateway.core.end_users import EndUserRule
from gateway.core.endpoints import ENDPOINT_NAMES, ENDPOINTS, Dialect
from gateway.core.issuers import TokenClaims, TokenIssuer
from gateway.core.limits import Limit, Meter, Per, Scope
from gateway.core.pricing import Price
from gateway.core.proxies import Proxy
from gateway.core.snapshot import Caller, ConfigSnapshot, Timeouts, Upstream
from gateway.core.usage import Usage
from gateway.settings.loading import build, demo_settings
from gateway.settings.presets import PRESETS
from gateway.settings.price_settings import PriceSettings

KEY = "gw_secret"
AUTHORITY = Path(__file__).parents[2] / "contract" / "upstream" / "certificates" / "authority.pem"
BASE = {"base_url": "https://llm.corp/v1"}
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()


def of(**changes: Any) -> ConfigSnapshot:
    told: dict[str, Any] = {
        "upstreams": {"main": {"base_url": "http://127.0.0.1:9000/v1"}},
        "models": {"a/b": {"routes": [{"upstream": "main"}], "aliases": ["b"]}},
        "teams": {"search": {"keys": [{"name": "prod", "key": KEY}]}},
    }
    return snapshot(build(told | changes), loaded_at=1_700_000_000)


def upstream_of(environ: dict[str, str] | None = None, **written: Any) -> Upstream:
    settings = demo_settings(KEY, "https://llm.corp/v1", environ=environ, upstreams={"demo": BASE | written})
    (upstream,) = snapshot(settings).upstreams()
    return upstream


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


def test_an_upstream_gets_its_query_and_the_headers_that_it_is_open_for() -> None:
    written = {"query": {"api-version": "2024-10-21", "q": "a b&c"}, "pass_headers": ["X-My-Header"]}
    (target,) = of(upstreams={"main": {"base_url": "http://a/v1", **written}}).models["a/b"].targets
    assert target.upstream.query == "api-version=2024-10-21&q=a%20b%26c"
    assert target.upstream.pass_headers == {"x-my-header"}


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
        return of(models={"a/b": {"routes": [{"upstream": "main"}], "price": written}}).models["a/b"].targets[0].price

    assert price(input="0.15", output="0.60", cached_input="0.07") == Price(150_000, 600_000, 70_000)
    assert price(input="1.1", output="0.000001") == Price(1_100_000, 1, 1_100_000)
    # As floats, 2.01 and 4.02 times a million fall short of the whole number.
    assert price(input="2.01", output="4.02", cached_input="0") == Price(2_010_000, 4_020_000, 0)
    costly = price(input="0.15", output="0.60")
    assert costly is not None
    assert costly.cost(Usage(input=1_000_000, output=1_000_000)) == 750_000


def test_a_route_has_its_own_price_or_the_models() -> None:
    routes = [{"upstream": "main"}, {"upstream": "main", "model": "other", "price": {"output": "2"}}]
    model = of(models={"a/b": {"routes": routes, "price": {"input": "1"}}}).models["a/b"]
    assert [target.price for target in model.targets] == [Price(1_000_000, 0), Price(0, 2_000_000)]
    free = of(models={"a/b": {"routes": routes}}).models["a/b"]
    assert [target.price for target in free.targets] == [None, Price(0, 2_000_000)]


def test_each_price_is_in_pico_dollars_for_one() -> None:
    written = {
        "input": "1.25",
        "request": "0.005",
        "second": "0.000000001",
        "million_characters": "15",
        "above": [{"tokens": "200_000", "input": "2.5"}],
        "tiers": {"flex": {"input": "0.5", "above": [{"tokens": 10, "output": 1}]}},
        "regions": {"us": "1.1", "eu": 1},
    }
    price = price_of(PriceSettings.model_validate(written))
    assert price is not None
    assert (price.input, price.request, price.second, price.character) == (1_250_000, 5 * 10**9, 1_000, 15_000_000)
    assert [(step.tokens, step.price.input) for step in price.above] == [(200_000, 2_500_000)]
    assert price.tiers["flex"].above[0].price.output == 1_000_000
    assert price.regions == {"us": 1_100, "eu": 1_000}


def test_the_prices_of_an_upstream_are_known_by_its_names_of_the_models_and_by_theirs_here() -> None:
    cheap, dear = {"input": "1"}, {"input": "2"}
    models = {
        "opus": {"routes": [{"upstream": "main", "model": "claude-opus"}], "price": dear, "aliases": ["best"]},
        "other": {"routes": [{"upstream": "main", "model": "claude-opus"}], "price": cheap},
        "free": {"routes": [{"upstream": "main"}]},
    }
    opus = Price(2_000_000, 0)
    assert of(models=models).prices == {
        "main": {"claude-opus": opus, "opus": opus, "best": opus, "other": Price(1_000_000, 0)}
    }


CLAUDE = {"input": "3", "output": "15", "cached_input": "0.30", "cache_write": "3.75", "cache_write_1h": "6"}
GEMINI = {"input": "1.25", "output": "10", "above": [{"tokens": "200_000", "input": "2.50", "output": "15"}]}
GPT = {
    "input": "2",
    "output": "8",
    "cached_input": "0.50",
    "tiers": {
        "priority": {"input": "3.50", "output": "14", "cached_input": "0.875"},
        "flex": {"input": "1", "output": "4"},
    },
}


@pytest.mark.parametrize(
    ("written", "usage", "micro_dollars"),
    [
        (CLAUDE, Usage(10_000, 1_000, cached_input=6_000, cache_write=3_000, cache_write_1h=500), 32_550),
        (GEMINI, Usage(200_000, 1_000), 260_000),
        (GEMINI, Usage(200_001, 1_000), 515_003),
        (GPT, Usage(1_000, 100, service_tier="default"), 2_800),
        (GPT, Usage(1_000, 100, service_tier="priority"), 4_900),
        ({**CLAUDE, "regions": {"us": "1.1"}}, Usage(1_000, 100, region="us"), 4_950),
        ({"second": "0.000030833"}, Usage(audio_ms=90_000), 2_775),
        ({"image": "0.04"}, Usage(images=3), 120_000),
        ({"input": "5", "image_input": "10", "image_output": "40"}, Usage(50, 4_160, image_output=4_160), 166_650),
    ],
)
def test_the_examples_of_the_documentation_cost_what_it_says(
    written: dict[str, Any], usage: Usage, micro_dollars: int
) -> None:
    price = price_of(PriceSettings.model_validate(written))
    assert price is not None
    assert price.cost(usage) == micro_dollars


TOKEN_PRICES = (
    ("input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input"),
    ("output", "audio_output", "image_output"),
)
"""Each first is the one that the others fall back to."""

UNITS = {
    "request": "",
    "image": "images",
    "search": "searches",
    "second": "audio_ms",
    "million_characters": "characters",
}


def random_prices(dice: random.Random) -> dict[str, str]:
    names = [*TOKEN_PRICES[0], *TOKEN_PRICES[1], "million_characters"]
    written = {name: f"{dice.randrange(1_000)}.{dice.randrange(10**6):06}" for name in names}
    written |= {name: f"{dice.randrange(10)}.{dice.randrange(10**9):09}" for name in UNITS if name not in written}
    return dict(dice.sample(sorted(written.items()), dice.randint(1, len(written))))


def random_usage(dice: random.Random) -> Usage:
    parts: dict[str, Any] = {name: dice.randrange(10**5) for name in TOKEN_PRICES[0][1:] + TOKEN_PRICES[1][1:]}
    units: dict[str, Any] = {name: dice.randrange(10**4) for name in UNITS.values() if name}
    entered = sum(parts[name] for name in TOKEN_PRICES[0][1:]) + dice.randrange(10**5)
    output = sum(parts[name] for name in TOKEN_PRICES[1][1:]) + dice.randrange(10**5)
    return Usage(entered, output, **parts, **units, service_tier=dice.choice(["", "flex", "priority"]))


def exact_dollars(written: dict[str, Any], usage: Usage) -> Fraction:
    """By the words of docs/configuration.md, in fractions of a dollar, from what is written."""
    tier = written["tiers"].get(usage.service_tier)
    given: dict[str, Any] = written | (tier or {})
    reached = [step for step in (tier or written).get("above", []) if usage.input > step["tokens"]]
    given |= max(reached, key=lambda step: step["tokens"], default={})
    total = Fraction(given.get("request", "0"))
    for whole, *parts in TOKEN_PRICES:
        rest = getattr(usage, whole)
        for part in parts:
            rest -= getattr(usage, part)
            total += getattr(usage, part) * Fraction(given.get(part, given.get(whole, "0"))) / 10**6
        total += rest * Fraction(given.get(whole, "0")) / 10**6
    total += usage.images * Fraction(given.get("image", "0")) + usage.searches * Fraction(given.get("search", "0"))
    total += Fraction(usage.audio_ms, 1000) * Fraction(given.get("second", "0"))
    return total + usage.characters * Fraction(given.get("million_characters", "0")) / 10**6


def test_ten_thousand_written_prices_charge_the_exact_cost_rounded_once() -> None:
    dice = random.Random(4)
    for _ in range(2_500):
        written: dict[str, Any] = {**random_prices(dice), "tiers": {}}
        written["above"] = [{**random_prices(dice), "tokens": dice.randint(1, 10**6)} for _ in range(dice.randrange(3))]
        if dice.random() < 0.5:
            written["tiers"]["flex"] = random_prices(dice)
        price = price_of(PriceSettings.model_validate(written))
        assert price is not None
        for usage in (random_usage(dice) for _ in range(4)):
            micro_dollars = exact_dollars(written, usage) * 10**6
            assert price.cost(usage) == (micro_dollars + Fraction(1, 2)).__floor__(), (written, usage)


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


def test_an_upstream_is_reached_through_its_own_proxy_or_that_of_the_environment() -> None:
    environ = {"HTTPS_PROXY": "http://corporate:3128"}
    assert upstream_of(environ, proxy="http://u:p@own:1").proxy == Proxy("own", 1, "Basic dTpw")
    assert upstream_of(environ).proxy == Proxy("corporate", 3128)
    assert upstream_of(environ, proxy="none").proxy is None
    assert upstream_of().proxy is None


def test_a_renewed_certificate_makes_another_upstream(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    shutil.copy(AUTHORITY, authority)
    first, same = upstream_of(tls={"ca": str(authority)}), upstream_of(tls={"ca": str(authority)})
    authority.write_bytes(authority.read_bytes() * 2)
    renewed = upstream_of(tls={"ca": str(authority)})
    assert first == same
    assert first != renewed
    assert renewed.tls is not None
    assert (renewed.tls.ca, renewed.tls.cert, renewed.tls.key) == (str(authority), "", "")


def paths_of(upstream: Upstream) -> dict[str, str]:
    """Where each endpoint that an upstream has is asked there."""
    usual = upstream.base_url.partition("://")[2].partition("/")[2]
    return {
        row.name: (f"/{usual}" if (base := upstream.base_path(row.name)) is None else base) + row.upstream_path("m")
        for row in ENDPOINTS.values()
        if upstream.endpoints is None or row.name in upstream.endpoints
    }


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_each_preset_is_whole_but_for_a_url_that_names_a_resource(preset: str) -> None:
    own = {} if "base_url" in PRESETS[preset] else {"base_url": "https://own.test/v1"}
    settings = build({"upstreams": {"u": {"preset": preset, **own}}, "models": {"m": {"routes": [{"upstream": "u"}]}}})
    (upstream,) = snapshot(settings).upstreams()
    assert upstream.endpoints is None or "chat.completions" in upstream.endpoints or preset in ("voyage", "jina")
    assert upstream.endpoints is None or upstream.endpoints <= set(ENDPOINT_NAMES)


@pytest.mark.parametrize(
    ("preset", "endpoint", "path"),
    [
        ("gemini", "chat.completions", "/v1beta/openai/chat/completions"),
        ("gemini", "gemini.generateContent", "/v1beta/models/m:generateContent"),
        ("deepseek", "messages", "/anthropic/v1/messages"),
        ("deepseek", "chat.completions", "/v1/chat/completions"),
        ("cohere", "rerank.v2", "/v2/rerank"),
        ("cohere", "rerank", "/v1/rerank"),
        ("cohere", "embeddings", "/compatibility/v1/embeddings"),
        ("vllm", "rerank.v2", "/v2/rerank"),
        ("litellm", "gemini.countTokens", "/v1beta/models/m:countTokens"),
        ("fireworks", "messages", "/inference/v1/messages"),
        ("bedrock", "messages", "/anthropic/v1/messages"),
        ("bedrock", "responses", "/openai/v1/responses"),
        ("foundry", "messages", "/anthropic/v1/messages"),
        ("deepseek", "responses", "/responses"),
        ("groq", "embeddings", "/openai/v1/embeddings"),
        ("cohere", "audio.transcriptions", "/compatibility/v1/audio/transcriptions"),
        ("openrouter", "audio.speech", "/api/v1/audio/speech"),
        ("openrouter", "audio.transcriptions", "/api/v1/audio/transcriptions"),
    ],
)
def test_a_provider_is_asked_where_it_has_an_endpoint(preset: str, endpoint: str, path: str) -> None:
    own = {} if "base_url" in PRESETS[preset] else {"base_url": "https://own.test/openai/v1"}
    settings = build({"upstreams": {"u": {"preset": preset, **own}}, "models": {"m": {"routes": [{"upstream": "u"}]}}})
    (upstream,) = snapshot(settings).upstreams()
    assert paths_of(upstream)[endpoint] == path


@pytest.mark.parametrize(
    ("preset", "endpoint"),
    [
        ("azure", "moderations"),
        ("xai", "messages"),
        ("xai", "embeddings"),
        ("openrouter", "images.generations"),
        ("mistral", "audio.speech"),
        ("bedrock", "responses.compact"),
    ],
)
def test_a_provider_is_not_asked_for_what_it_has_not_or_has_in_another_shape(preset: str, endpoint: str) -> None:
    own = {} if "base_url" in PRESETS[preset] else {"base_url": "https://own.test/openai/v1"}
    settings = build({"upstreams": {"u": {"preset": preset, **own}}, "models": {"m": {"routes": [{"upstream": "u"}]}}})
    (upstream,) = snapshot(settings).upstreams()
    assert endpoint in ENDPOINT_NAMES
    assert upstream.endpoints is not None
    assert endpoint not in upstream.endpoints


@pytest.mark.parametrize("preset", ["openai", "azure", "foundry", "bedrock", "groq", "xai", "openrouter"])
def test_who_deprecates_max_tokens_is_not_sent_it(preset: str) -> None:
    assert PRESETS[preset]["output_cap"] == "max_completion_tokens"


def test_cohere_is_not_asked_for_the_usage_of_a_stream() -> None:
    upstreams = {"u": {"preset": "cohere"}}
    assert (
        not build({"upstreams": upstreams, "models": {"m": {"routes": [{"upstream": "u"}]}}})
        .upstreams["u"]
        .stream_options
    )


def test_what_stands_beside_a_preset_goes_before_it() -> None:
    upstream = upstream_of(preset="deepseek", endpoints=["responses*"], base_paths={"responses*": "/x/"})
    kept = {f"responses.{what}" for what in ("retrieve", "delete", "cancel", "input_items")}
    assert upstream.endpoints == frozenset({"responses", "responses.input_tokens", "responses.compact", *kept})
    assert paths_of(upstream)["responses"] == "/x/responses"


@pytest.mark.parametrize(
    ("auth", "usual", "dialect", "other"),
    [
        ("bearer", ("authorization", "Bearer K"), None, None),
        ("x-goog-api-key", ("x-goog-api-key", "K"), None, None),
        ("google", ("authorization", "Bearer K"), Dialect.GEMINI, ("x-goog-api-key", "K")),
        ("foundry", ("api-key", "K"), Dialect.ANTHROPIC, ("x-api-key", "K")),
    ],
)
def test_a_server_gets_the_key_as_each_api_wants_it(
    auth: str, usual: tuple[str, str], dialect: Dialect | None, other: tuple[str, str] | None
) -> None:
    upstream = upstream_of(auth=auth, api_key="K", headers={"X-Org": "a"})
    assert upstream.headers == (usual, ("x-org", "a"))
    assert upstream.other_dialect == dialect
    assert upstream.other_headers == ((other, ("x-org", "a")) if other else ())


def test_an_identity_provider_is_as_it_is_written() -> None:
    written = {
        "issuer": "https://idp/",
        "audience": ["llm", "api://llm"],
        "jwks": "https://idp/keys",
        "algorithms": ["ES256"],
        "user": "email",
        "groups": "roles",
        "teams": {"b": "search", "a": "search"},
        "team": "team",
        "default_team": "search",
        "models": "models",
    }
    expected = TokenIssuer(
        issuer="https://idp/",
        audiences=frozenset({"llm", "api://llm"}),
        jwks="https://idp/keys",
        algorithms=frozenset({"ES256"}),
        claims=TokenClaims("email", "roles", "team", "models"),
        teams=(("b", "search"), ("a", "search")),
        default_team="search",
    )
    assert of(jwt=[written]).issuers == {"https://idp/": expected}
    assert pickle.loads(pickle.dumps(expected)) == expected  # noqa: S301 # As a reload passes it on.


def test_the_keys_of_an_issuer_are_fetched_through_the_proxy_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch()
    entries = [
        {"issuer": name, "audience": "llm", "jwks": jwks, "default_team": "demo"}
        for name, jwks in (("far", "https://idp/keys"), ("near", "http://localhost/keys"), ("here", str(file)))
    ]
    settings = demo_settings(KEY, "https://llm.corp/v1", environ={"https_proxy": "http://proxy:3128"}, jwt=entries)
    proxies = {name: issuer.proxy for name, issuer in snapshot(settings).issuers.items()}
    assert proxies == {"far": Proxy("proxy", 3128), "near": None, "here": None}


def test_a_team_says_who_its_end_users_are() -> None:
    rule = caller_of({"keys": key(), "end_user": {"header": "X-User", "required": True, "most": 7}}).end_user
    assert rule == EndUserRule("x-user", required=True, most=7)
    assert caller_of({"keys": key()}).end_user == EndUserRule()
