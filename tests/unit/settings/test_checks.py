from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.snapshot_builder import snapshot
from gateway.core.http_syntax import RESERVED_HEADERS
from gateway.settings import limit_checks
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.limit_settings import LimitSettings
from gateway.upstream.connect import UpstreamOrigin
from tests.unit.settings.configurations import SHA256, TEAM, VALID, assert_refused, assert_warned, loaded


def test_a_valid_configuration_has_neither_errors_nor_warnings() -> None:
    assert loaded(VALID + TEAM).warnings == ()


def test_operators_and_clients_cannot_be_served_at_one_address() -> None:
    text = "listen: 127.0.0.1:9090\nadmin:\n  listen: 127.0.0.1:9090 # !\n" + VALID
    assert_refused(text, "admin.listen: is the address that clients are served on; it needs one of its own")
    loaded("listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\n" + VALID)


def test_clients_can_be_served_at_several_addresses_each_of_its_own() -> None:
    several = loaded("listen: ['127.0.0.1:8080', '[::1]:8080', '127.0.0.1:0', '127.0.0.1:0']\n" + VALID)
    assert [str(address) for address in several.settings.listen][:2] == ["127.0.0.1:8080", "[::1]:8080"]
    assert_refused("listen:\n- 127.0.0.1:80\n- 127.0.0.1:80 # !\n" + VALID, "listen[1]: is listed twice; remove one")
    text = "listen: [0.0.0.0:80, 127.0.0.1:9090]\nadmin:\n  listen: 127.0.0.1:9090 # !\n" + VALID
    assert_refused(text, "admin.listen: is the address that clients are served on; it needs one of its own")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("'[::]:80'", "0.0.0.0:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("'[::]:80'", "'[::1]:80'"),
        ("localhost:80", "'[::]:80'"),
    ],
)
def test_addresses_that_the_system_does_not_give_together_are_refused(first: str, second: str) -> None:
    wide = first.strip("'")
    said = f"overlaps with {wide}; remove one, or choose another port"
    assert_refused(f"listen:\n- {first}\n- {second} # !\n{VALID}", f"listen[1]: {said}")
    said = f"overlaps with {wide}, where clients are served; choose another port"
    assert_refused(f"listen: {first}\nadmin:\n  listen: {second} # !\n{VALID}", f"admin.listen: {said}")


def test_addresses_that_do_not_overlap_can_share_a_port() -> None:
    loaded("listen: ['127.0.0.1:80', '[::1]:80', '0.0.0.0:81', '[::]:0', '0.0.0.0:0']\n" + VALID)


def test_the_largest_body_fits_into_the_memory_of_all() -> None:
    said = "max_body_memory: is below `max_body`, so a body of that size could never be taken"
    assert_refused("max_body: 2MiB\nmax_body_memory: 1MiB # !\n" + VALID, said)
    loaded("max_body: 2MiB\nmax_body_memory: 2MiB\n" + VALID)


def test_a_body_larger_than_the_memory_that_is_left_out_is_refused_where_it_is_written() -> None:
    said = "max_body: is above `max_body_memory`, which is 256MiB where it is left out; raise that to at least as much"
    assert_refused("timezone: UTC\nmax_body: 1GiB # !\n" + VALID, said)
    loaded("max_body: 256MiB\n" + VALID)


def test_several_workers_need_counters_that_they_share() -> None:
    said = "workers: would each count by themselves with memory://; set `store.url` to redis://…, or leave it at 1"
    assert_refused("workers: 2 # !\n" + VALID, said)
    assert_refused("workers: auto # !\nstore: {url: 'memory://'}\n" + VALID, said)
    assert loaded("workers: auto\nstore: {url: 'redis://localhost'}\n" + VALID).settings.workers == "auto"
    assert loaded("workers: 1\n" + VALID).settings.workers == 1


def test_a_route_leads_to_an_upstream_that_is_there() -> None:
    text = VALID + "  other:\n    routes:\n      - {upstream: main}\n      - {upstream: spare} # !\n"
    assert_refused(text, "models.other.routes[1].upstream: is not an upstream of this configuration; known here: main")


def test_a_model_has_a_route() -> None:
    assert_refused(
        VALID + "  a: {} # !\n  b: {routes: []} # !\n",
        "models.a.routes: is missing; a model needs at least one route",
        "models.b.routes: is missing; a model needs at least one route",
    )


def test_an_answer_fits_into_the_context() -> None:
    text = VALID + "  a: {routes: [{upstream: main}], context_window: 10, max_output_tokens: 11} # !\n"
    assert_refused(text, "models.a.max_output_tokens: is above the model's `context_window`")
    loaded(text.replace("11", "10"))


def test_an_alias_is_the_name_of_nothing_else() -> None:
    assert_refused(
        VALID + "  a: {routes: [{upstream: main}], aliases: [local/free, b, gpt-oss, b]} # !\n",
        "models.a.aliases[0]: is already the name of a model",
        "models.a.aliases[2]: is already the name of an alias of openai/gpt-oss-120b",
        "models.a.aliases[3]: is already the name of an alias of a",
    )


def test_a_credential_is_never_given_for_nothing() -> None:
    text = VALID.replace("9000/v1}", "9000/v1, auth: none, api_key: ${KEY:-}} # !")
    assert_refused(text, "upstreams.main.api_key: would never be sent with `auth: none`; leave one of them out")


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_no_header_that_the_client_of_the_upstreams_refuses_is_accepted(name: str) -> None:
    text = VALID.replace("9000/v1}", f"9000/v1, headers: {{{name.title()}: b}}}} # !")
    assert_refused(text, f"upstreams.main.headers.{name.title()}: is a header that the gateway sets itself")


@given(
    host=st.from_regex(r"[!-~]{1,12}", fullmatch=True),
    header=st.tuples(st.from_regex(r"[!-~]{1,4}", fullmatch=True), st.text(min_size=1, max_size=4)),
)
def test_requests_can_be_written_to_every_upstream_that_is_accepted(host: str, header: tuple[str, str]) -> None:
    written = json.dumps({"base_url": f"http://{host}/v1", "headers": dict([header])})
    try:
        accepted = loaded(VALID.replace("{base_url: http://127.0.0.1:9000/v1}", written))
    except SettingsInvalid:
        return
    for upstream in snapshot(accepted.settings).upstreams():
        UpstreamOrigin(upstream)


def test_headers_are_not_those_that_the_gateway_sets_itself() -> None:
    text = VALID.replace("9000/v1}", "9000/v1, api_key: ${KEY}, headers: {X-A: b, Host: b, Authorization: b}} # !")
    assert_refused(
        text,
        "upstreams.main.headers.Host: is a header that the gateway sets itself",
        "upstreams.main.headers.Authorization: is the header that carries `api_key`; leave one of them out",
        environ={"KEY": "sk-1"},
    )


PRIVATE = "can carry a credential of the client, which no upstream may see"
NO_PATTERN = (
    "models.openai/*: is read as it is, and not as a pattern, but has one of * ? [ ]; write each model by its name"
)


def test_a_header_that_never_passes_cannot_be_let_through() -> None:
    text = VALID.replace("9000/v1}", "9000/v1, pass_headers: [x-my-header, Cookie]} # !")
    assert_refused(text, "upstreams.main.pass_headers[1]: " + PRIVATE)
    upstream = loaded(text.replace(", Cookie", "")).settings.upstreams["main"]
    assert upstream.pass_headers == ("x-my-header",)


def test_a_pattern_of_headers_is_refused_since_it_would_let_none_through() -> None:
    text = VALID.replace("9000/v1}", "9000/v1, pass_headers: [x-my-*]} # !")
    said = "is read as it is, and not as a pattern; write each header by its name"
    assert_refused(text, f"upstreams.main.pass_headers[0]: {said}")


def test_a_header_that_is_added_is_written_once_however_it_is_spelled() -> None:
    text = VALID.replace("9000/v1}", "9000/v1, headers: {x-org: a, X-Org: b}} # !")
    assert_refused(text, "upstreams.main.headers.X-Org: is there twice, in another spelling; remove one")


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "Cookie", "x-auth-token"])
def test_an_end_user_cannot_be_named_by_a_credential(header: str) -> None:
    text = VALID + f"teams:\n  search:\n    end_user:\n      header: {header} # !\n"
    said = "can carry a credential, which would be in the log and in reports as the end user's name"
    assert_refused(text, f"teams.search.end_user.header: {said}")


@pytest.mark.parametrize("header", ["x-openwebui-user-email", "x-customer-key", "x-monkey", "x-forwarded-user"])
def test_an_end_user_can_be_named_by_any_other_header(header: str) -> None:
    text = VALID + f"teams: {{search: {{end_user: {{header: {header}}}}}}}\n"
    assert loaded(text).settings.teams["search"].end_user.header == header


def test_a_parameter_of_the_query_is_given_once() -> None:
    text = VALID.replace("9000/v1}", "9000/v1?api-version=1, query: {api-version: 2}} # !")
    assert_refused(text, "upstreams.main.query.api-version: is in the query of `base_url` too; leave one of them out")
    upstream = loaded(text.replace("?api-version=1", "?tenant=1")).settings.upstreams["main"]
    assert (upstream.base_url, upstream.query) == ("http://127.0.0.1:9000/v1?tenant=1", {"api-version": "2"})


def test_a_models_name_is_not_a_pattern() -> None:
    assert_refused(VALID + "  'openai/*': {routes: [{upstream: main}]} # !\n", NO_PATTERN)
    assert "My Model.gguf" in loaded(VALID + "  My Model.gguf: {routes: [{upstream: main}]}\n").settings.models


def test_a_pattern_of_a_team_or_a_key_matches_a_model_that_it_can_use() -> None:
    assert_refused(
        VALID
        + f"""\
teams:
  search:
    models: ["openai/*", "opneai/*"] # !
    keys:
      - name: prod
        sha256: {SHA256}
        models:
          - "openai/*"
          - "local/*" # !
          - gpt-oss # !
""",
        "teams.search.models[1]: matches no model that can be used here; there are local/free, openai/gpt-oss-120b",
        "teams.search.keys[0].models[1]: matches no model that can be used here; there are openai/gpt-oss-120b",
        "teams.search.keys[0].models[2]: matches no model that can be used here; "
        "it is an alias, name openai/gpt-oss-120b itself",
    )


def test_a_key_is_given_in_exactly_one_way() -> None:
    assert_refused(
        VALID
        + f"""\
teams:
  search:
    keys:
      - {{name: neither}} # !
      - {{name: both, key: "${{KEY}}", sha256: {SHA256}}} # !
""",
        "teams.search.keys[0]: needs either `key` or `sha256`, and not both",
        "teams.search.keys[1]: needs either `key` or `sha256`, and not both",
        environ={"KEY": "gw_1"},
    )


def test_no_two_keys_are_the_same_in_any_team_and_however_they_are_given() -> None:
    digest = hashlib.sha256(b"gw_secret").hexdigest().upper()
    assert_refused(
        VALID
        + f"""\
teams:
  search:
    keys:
      - {{name: one, key: "${{KEY}}"}}
      - {{name: empty, key: "${{NO_KEY:-}}"}}
      - {{name: empty-too, key: "${{NO_KEY:-}}"}}
  other:
    keys:
      - {{name: one, sha256: {digest}}} # !
""",
        "teams.other.keys[0]: is the same key as teams.search.keys[0]",
        environ={"KEY": "gw_secret"},
    )


def test_a_keys_name_stands_once_in_its_team() -> None:
    text = VALID + TEAM + f"      - {{name: prod, sha256: {SHA256.replace('0f', 'f0')}}} # !\n"
    assert_refused(text, "teams.search.keys[1].name: is the name of another key of this team")
    loaded(text.replace("      - {name: prod, sha256: f0", "  other:\n    keys:\n      - {name: prod, sha256: f0"))


def test_who_cannot_use_the_gateway_is_a_warning() -> None:
    assert_warned(
        VALID + "teams:\n  search: {} # !\n",
        "teams.search: has no keys, so nobody can use the gateway in its name",
    )
    assert [str(warning) for warning in loaded(VALID).warnings] == [
        "gateway.yaml:1: teams: is missing, so nobody can use the gateway"
    ]
    assert loaded(VALID + "teams:\n  search: {}\nstore: {url: redis://localhost}\n").warnings == ()


def test_an_upstream_that_no_route_leads_to_is_a_warning() -> None:
    text = VALID.replace("models:", "  spare: {base_url: http://127.0.0.1:9001/v1} # !\nmodels:", 1)
    assert_warned(text + TEAM, "upstreams.spare: has no route that leads to it")


def test_a_secret_in_clear_is_a_warning_and_one_from_a_reference_is_not() -> None:
    text = (
        "admin: {token: abc} # !\n"
        + VALID.replace("9000/v1}", "9000/v1, api_key: sk-1} # !")
        + """\
teams:
  search:
    keys:
      - {name: clear, key: gw_1} # !
      - {name: default, key: "${NO_KEY:-gw_2}"} # !
      - {name: environment, key: "${KEY}"}
"""
    )
    clear = "is in clear text in the file; take it from ${NAME} or ${file:PATH}"
    assert_warned(
        text,
        f"admin.token: {clear}",
        f"upstreams.main.api_key: {clear}",
        f"teams.search.keys[0].key: {clear}",
        f"teams.search.keys[1].key: {clear}",
        environ={"KEY": "gw_3"},
    )


def test_an_empty_key_is_a_warning_and_opens_nothing() -> None:
    text = VALID + 'teams: {search: {keys: [{name: dev, key: "${KEY:-}"}]}} # !\n'
    assert_warned(
        text,
        "teams.search.keys[0].key: is empty, so nobody can use this key; set the variable that it is taken from",
    )
    assert loaded(text).settings.teams["search"].keys[0].digest == ""


PLACES = {
    "organisation": "limits:\n  - LIMIT\n",
    "team": "teams:\n  search:\n    limits:\n      - LIMIT\n",
    "user": "teams:\n  search:\n    user_limits:\n      - LIMIT\n",
    "key": f"teams: {{search: {{keys: [{{name: prod, sha256: {SHA256}, limits: [\n  LIMIT\n]}}]}}}}\n",
    "model": "  third:\n    routes: [{upstream: main}]\n    limits:\n      - LIMIT\n",
}
AT = {
    "organisation": "limits[0]",
    "team": "teams.search.limits[0]",
    "user": "teams.search.user_limits[0]",
    "key": "teams.search.keys[0].limits[0]",
    "model": "models.third.limits[0]",
}
ONE_METER = "needs exactly one meter of requests, tokens, input_tokens, output_tokens, usd, concurrent"
COUNT = "must be a whole number from 1 to 9007199254740992; digits may be grouped with _"
AMOUNT = "must be a number above 0 with at most 6 decimals; digits may be grouped with _"
PER = "must be 'second', 'minute', 'hour', 'day', 'week', 'month' or 'total'"
NO_PER = "is missing; it must be one of second, minute, hour, day, week, month, total"
RATES_ALONE = "applies only to rates (per second, minute or hour)"
QUOTAS_ALONE = "applies only to quotas (per day, week, month or total)"
WRONG = [
    ("{per: minute}", "", ONE_METER),
    ("{requests: 1, tokens: 1, per: minute}", "", ONE_METER),
    ("{requests: 0, per: minute}", ".requests", COUNT),
    ("{usd: 0, per: month}", ".usd", AMOUNT),
    ("{requests: 1, per: minute, burst: 0}", ".burst", AMOUNT),
    ("{requests: 1, per: minute, burst: 1.5}", ".burst", "must be a whole number of requests"),
    ("{requests: 1}", ".per", NO_PER),
    ("{requests: 1, per: year}", ".per", PER),
    ("{concurrent: 1, per: minute}", ".per", "has no meaning for `concurrent`, which counts requests in flight"),
    ("{requests: 1, per: day, burst: 2}", ".burst", RATES_ALONE),
    ("{concurrent: 1, burst: 2}", ".burst", RATES_ALONE),
    ("{requests: 1, per: hour, when_spent: stop}", ".when_spent", QUOTAS_ALONE),
    ("{requests: 1, per: day, prr: day}", ".prr", "is not a known setting; did you mean per?"),
    ("{requests: 1, per: day, models: []}", ".models", "must not be empty; leave it out to mean all"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("limit", "below", "message"), WRONG)
def test_a_limit_that_cannot_be_kept_is_refused_wherever_it_stands(
    place: str, limit: str, below: str, message: str
) -> None:
    text = VALID + PLACES[place].replace("LIMIT", f"{limit} # !")
    assert_refused(text, f"{AT[place]}{below}: {message}")


def test_amounts_are_refused_where_arithmetic_would_not_be_exact() -> None:
    assert_refused(
        VALID
        + """\
limits:
  - {tokens: 9_000_000_000_000_000, per: hour}
  - {input_tokens: 2_501_999_797, per: hour} # !
  - {requests: 1, per: second, burst: 9_007_199_254_741} # !
  - {usd: 9007199254.740992, per: total, models: [openai/*]}
  - {usd: 9007199254.740993, per: month, models: [openai/*]} # !
""",
        "limits[1].input_tokens: is too large to be kept exactly; at most 2501999792 input_tokens",
        "limits[2].burst: is too large to be kept exactly; at most 9007199254740 requests",
        "limits[4].usd: is too large to be kept exactly; at most 9007199254740992 micro-dollars",
    )


def test_a_limit_counts_at_least_one_model_that_its_place_may_use() -> None:
    assert_refused(
        VALID
        + f"""\
    limits:
      - {{requests: 1, per: day, models: ["openai/*"]}} # !
limits:
  - {{requests: 1, per: day, models: ["openai/*", "mistral/*"]}} # !
teams:
  search:
    models: ["openai/*"]
    limits: [{{requests: 1, per: day, models: ["local/*"]}}] # !
    user_limits: [{{requests: 1, per: day, models: [gpt-oss]}}] # !
    keys:
      - {{name: prod, sha256: {SHA256}, limits: [{{requests: 1, per: day, models: [local/free]}}]}} # !
""",
        "models.local/free.limits[0].models[0]: matches no model that can be used here; there are local/free",
        "limits[0].models[1]: matches no model that can be used here; there are local/free, openai/gpt-oss-120b",
        "teams.search.limits[0].models[0]: matches no model that can be used here; there are openai/gpt-oss-120b",
        "teams.search.user_limits[0].models[0]: matches no model that can be used here; "
        "it is an alias, name openai/gpt-oss-120b itself",
        "teams.search.keys[0].limits[0].models[0]: matches no model that can be used here; "
        "there are openai/gpt-oss-120b",
    )


def test_a_limit_of_money_needs_a_price_on_every_model_that_it_counts() -> None:
    unpriced = "counts models without a price: local/free; give them one or narrow `models`"
    assert_refused(
        VALID
        + f"""\
    limits: [{{usd: 1, per: day}}] # !
limits:
  - {{usd: 1, per: day}} # !
  - {{usd: 1, per: month, models: ["openai/*"]}}
teams:
  priced:
    models: ["openai/*"]
    limits: [{{usd: 1, per: day}}]
    keys: [{{name: prod, sha256: {SHA256}, limits: [{{usd: 1, per: day}}]}}]
  every:
    user_limits: [{{usd: 1, per: day}}] # !
""",
        f"models.local/free.limits[0].usd: {unpriced}",
        f"limits[0].usd: {unpriced}",
        f"teams.every.user_limits[0].usd: {unpriced}",
    )


def test_a_keys_limit_counts_only_what_the_key_may_use() -> None:
    narrow = 'limits: [{usd: 1, per: day}], models: ["openai/*"]'
    loaded(VALID + f"teams: {{a: {{keys: [{{name: prod, sha256: {SHA256}, {narrow}}}]}}}}\n")
    elsewhere = 'limits: [{requests: 1, per: day, models: ["openai/*"]}], models: ["local/*"]'
    assert_refused(
        VALID + f"teams: {{a: {{keys: [{{name: prod, sha256: {SHA256}, {elsewhere}}}]}}}} # !\n",
        "teams.a.keys[0].limits[0].models[0]: matches no model that can be used here; there are local/free",
    )


def test_a_price_that_has_an_error_of_its_own_is_not_taken_for_none() -> None:
    text = VALID.replace("0.60}", "much} # !") + "limits: [{usd: 1, per: day, models: [openai/*]}]\n"
    assert_refused(
        text,
        "models.openai/gpt-oss-120b.price.output: must be USD per million tokens: "
        "a number from 0 to 1000000 with at most 6 decimals",
    )


def priced(price: str, *, tail: str = "") -> str:
    """The first model with this price, on a line of its own; the price of its route is left out."""
    return VALID.replace("price: {input: 0.15, output: 0.60}", f"price: {price}") + tail


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ("{}", "price: is empty; name at least one price, or leave it out"),
        ("{above: [], tiers: {}}", "price: is empty; name at least one price, or leave it out"),
        ("{input: 1, tiers: {flex: {}}}", "price.tiers.flex: is empty; name at least one price, or leave it out"),
        ("{input: 1, above: [{tokens: 9}]}", "price.above[0]: is empty; name at least one price, or leave it out"),
        ("{above: [{input: 9}]}", "price.above[0].tokens: is missing; it is required"),
        (
            "{above: [{tokens: 9, input: 1}, {tokens: 9, output: 1}]}",
            "price.above[1].tokens: is the same as of another step; put their prices into one",
        ),
        ("{cached_imput: 1}", "price.cached_imput: is not a known setting; did you mean cached_input?"),
        (
            "{tiers: {flex: {above: [{tokens: 9, outputs: 1}]}}}",
            "price.tiers.flex.above[0].outputs: is not a known setting; did you mean output?",
        ),
        (
            "{second: 0.0000000001}",
            "price.second: must be USD per unit: a number from 0 to 1000000 with at most 9 decimals",
        ),
        (
            "{million_characters: 0.0000001}",
            (
                "price.million_characters: must be USD per million characters: "
                "a number from 0 to 1000000 with at most 6 decimals"
            ),
        ),
        (
            "{tiers: {PRIORITY: {input: 1}}}",
            "price.tiers.PRIORITY: its name must be 1 to 64 small letters, digits, dashes and underscores",
        ),
        ("{regions: {us: 1.1}}", "price: is empty; name at least one price, or leave it out"),
        (
            "{input: 1, regions: {us: 1.1005}}",
            "price.regions.us: must be a factor above 0 and up to 100, with at most 3 decimals, such as 1.1",
        ),
        (
            "{input: 1, regions: {us: 0}}",
            "price.regions.us: must be a factor above 0 and up to 100, with at most 3 decimals, such as 1.1",
        ),
        (
            "{input: 1, regions: {US: 1.1}}",
            "price.regions.US: its name must be 1 to 32 small letters, digits, dashes and underscores, such as us",
        ),
    ],
)
def test_a_price_that_says_nothing_or_cannot_be_kept_is_refused(price: str, message: str) -> None:
    assert_refused(priced(price + " # !"), f"models.openai/gpt-oss-120b.{message}")


def test_no_price_is_required_by_itself() -> None:
    assert loaded(priced("{second: 0.000030833}") + TEAM).warnings == ()
    assert loaded(priced("{image: 0.04, tiers: {flex: {image: 0.02}}}") + TEAM).warnings == ()


def test_a_route_may_have_the_price_that_a_limit_of_money_needs() -> None:
    usd = "limits: [{usd: 1, per: day, models: [local/free]}]\n"
    free = "  local/free:\n    routes: [{upstream: main}]\n"
    assert_refused(
        (VALID + usd).replace("[local/free]}]", "[local/free]}] # !"),
        "limits[0].usd: counts models without a price: local/free; give them one or narrow `models`",
    )
    own = free.replace("main}]", "main, price: {output: 1}}]")
    assert loaded(VALID.replace(free, own) + usd + TEAM).warnings == ()
    half = free.replace("main}]", "main, price: {output: 1}}, {upstream: main, model: other}]")
    assert_refused(
        VALID.replace(free, half) + usd.replace("]}]", "]}] # !"),
        "limits[0].usd: counts models without a price: local/free; give them one or narrow `models`",
    )
    routes = "    routes:\n      - {upstream: main, price: {output: 1}}\n      - {upstream: main, model: other} # !\n"
    assert_warned(
        VALID.replace(free, "  local/free:\n" + routes) + TEAM,
        "models.local/free.routes[1]: has no price, so that what it serves is free",
    )


def test_output_that_is_free_is_a_warning_where_the_model_answers_in_text() -> None:
    message = (
        "models.openai/gpt-oss-120b.price: has no `output`, so that the output is free; write `output: 0` if it is"
    )
    assert_warned(priced("{input: 1} # !") + TEAM, message)
    assert loaded(priced("{input: 1, output: 0}") + TEAM).warnings == ()
    assert loaded(priced("{input: 1}").replace("    max_output_tokens: 1000\n", "") + TEAM).warnings == ()


def test_a_service_tier_that_no_api_names_is_a_warning() -> None:
    (warning,) = loaded(priced("{output: 1, tiers: {prioritty: {output: 2}}}") + TEAM).warnings
    assert warning.setting == "models.openai/gpt-oss-120b.price.tiers.prioritty"
    assert loaded(priced("{output: 1, tiers: {priority: {output: 2}, fast: {output: 2}}}") + TEAM).warnings == ()


def test_searches_that_are_free_are_a_warning_under_a_limit_of_money() -> None:
    usd = "limits: [{usd: 1, per: day, models: [openai/*]}]\n"
    searching = priced("{output: 1} # !").replace("base_url: http://127.0.0.1:9000/v1", "preset: openai")
    message = "has no `search`, so that web searches are free; name their price, or `search: 0`"
    assert_warned(searching + usd + TEAM, f"models.openai/gpt-oss-120b.price: {message}")
    assert loaded(searching + TEAM).warnings == ()
    assert loaded(priced("{output: 1}") + usd + TEAM).warnings == ()
    assert loaded(searching.replace("output: 1", "output: 1, search: 0") + usd + TEAM).warnings == ()


def test_two_limits_of_one_place_cannot_have_one_name() -> None:
    assert_refused(
        VALID
        + """\
limits:
  - {requests: 1, per: minute}
  - {requests: 2, per: minute} # !
  - {requests: 2, per: minute, models: ["openai/*"]}
  - {requests: 3, per: minute, name: third}
  - {tokens: 3, per: minute, name: third} # !
""",
        "limits[1]: has the same name as another one here, requests-per-minute; give one a `name`",
        "limits[4]: has the same name as another one here, third; give one a `name`",
    )
    loaded(VALID + "limits: [{requests: 1, per: day}]\nteams: {a: {limits: [{requests: 1, per: day}]}}\n")


def test_a_model_under_a_quota_without_a_longest_answer_is_a_warning() -> None:
    text = VALID.replace("    max_output_tokens: 1000\n", "").replace("local/free:", "local/free: # !")
    message = "is under a quota but has no `max_output_tokens`: one long answer may overrun it"
    quota = "limits: [{output_tokens: 1, per: day, models: [local/*]}]\n"
    assert_warned(text + quota + TEAM, f"models.local/free: {message}")
    for harmless in (
        "{input_tokens: 1, per: day}",
        "{requests: 1, per: day}",
        "{tokens: 1, per: hour}",
        "{concurrent: 1}",
    ):
        assert loaded(text + f"limits: [{harmless}]\n" + TEAM).warnings == ()


@pytest.mark.parametrize(
    ("limit", "longest", "requests"),
    [
        # Fourteen shares from 12,500 down to 2,203, then 2,048 each.
        ("{tokens: 100_000, per: month}", 128_000, 22),
        ("{output_tokens: 100_000, per: day}", 10_000, 22),
        ("{tokens: 31_000, per: day, models: [openai/*]}", 1_000, 31),
        ("{tokens: 31_001, per: day}", 1_000, None),
        ("{tokens: 31_000, per: hour}", 1_000, None),
        ("{input_tokens: 10, per: day}", 1_000, None),
        ("{usd: 0.06, per: day, models: [openai/*]}", 128_000, 22),
        ("{usd: 0.06, per: day, mode: shadow, models: [openai/*]}", 128_000, 22),
        ("{usd: 500, per: month, models: [openai/*]}", 128_000, None),
    ],
)
def test_a_quota_that_few_parallel_requests_exhaust_is_a_warning(
    limit: str, longest: int, requests: int | None
) -> None:
    text = VALID.replace("1000", str(longest), 1) + TEAM + f"limits:\n  - {limit}"
    if requests is None:
        assert loaded(text).warnings == ()
        return
    (warning,) = loaded(text).warnings
    assert warning.setting == f"limits[0].{limit[1:].partition(':')[0]}"
    message = f"would be exhausted by {requests} parallel requests without `max_tokens` to openai/gpt-oss-120b: "
    assert warning.message.startswith(message)


@pytest.mark.parametrize(
    ("priced", "requests"),
    [
        ("{output: 0.60}", 22),
        ("{output: 0.30, tiers: {priority: {output: 0.60}}}", 22),
        ("{output: 0.10, tiers: {flex: {output: 0.05}, fast: {output: 9}}}", None),
        ("{output: 0.30, regions: {us: 2}}", 22),
        ("{output: 0.10, above: [{tokens: 200_000, output: 9}]}", None),
        ("{output: 0.01, audio_output: 0.60}", 22),
    ],
)
def test_a_quota_of_dollars_is_exhausted_at_the_price_that_it_reserves_by(priced: str, requests: int | None) -> None:
    """Also where only a route has a price."""
    text = VALID.replace("1000", "128_000", 1).replace("price: {input: 0.15, output: 0.60}", "price: null")
    text = text.replace("{upstream: main}", f"{{upstream: main, price: {priced}}}", 1)
    warnings = loaded(text + TEAM + "limits:\n  - {usd: 0.06, per: day, models: [openai/*]}").warnings
    crowded = [each.message.split()[4] for each in warnings if "parallel requests" in each.message]
    assert crowded == ([] if requests is None else [str(requests)])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ({"tokens": 5, "per": "minute"}, "tokens-per-minute"),
        ({"input_tokens": 5, "per": "second", "burst": 9}, "input-tokens-per-second"),
        ({"usd": "0.5", "per": "total"}, "usd-in-total"),
        ({"concurrent": 5}, "concurrent"),
        ({"usd": 5, "per": "month", "models": ["openai/*"]}, "usd-per-month:openai/*"),
        ({"requests": 5, "per": "week", "models": ["b", "a", "b"]}, "requests-per-week:a,b"),
        ({"requests": 5, "per": "week", "models": ["b"], "name": "weekly"}, "weekly"),
    ],
)
def test_a_limit_without_a_name_is_called_after_meter_window_and_models(written: dict[str, object], name: str) -> None:
    assert LimitSettings.model_validate(written).title == name


def test_a_limit_keeps_its_name_when_its_amount_changes() -> None:
    names = {LimitSettings.model_validate({"usd": usd, "per": "month"}).title for usd in ("1", "2.5", 3)}
    assert len(names) == 1


def test_what_a_quota_can_reserve_is_computed_for_unlike_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a configuration of 10,000 keys and 1,000 models would take minutes to check."""
    computed = []
    held = limit_checks._requests_held

    def counted(limit: LimitSettings, cap: limit_checks._OutputCap) -> int:
        computed.append(cap)
        return held(limit, cap)

    monkeypatch.setattr(limit_checks, "_requests_held", counted)
    routes = "routes: [{upstream: main}], price: {input: 1, output: 2}"
    models = "".join(f"  m{number}: {{{routes}, max_output_tokens: {1 + number % 2}000}}\n" for number in range(50))
    text = VALID.replace("models:\n", "models:\n" + models) + TEAM + "limits:\n  - {tokens: 31_000, per: day}"
    assert "to m1: " in loaded(text).warnings[0].message
    assert len(computed) == 4
