from __future__ import annotations

import json
import re
from typing import Any

from gateway.settings.loading import parse
from gateway.settings.models import Settings
from gateway.settings.schema import json_schema

SCHEMA = json_schema()

RE2_REPEATS_MAX = 1000


def setting(section: str, name: str) -> dict[str, Any]:
    described: dict[str, Any] = SCHEMA["$defs"][section]["properties"][name]
    return described


def test_the_schema_knows_every_setting_of_the_first_level_and_no_other() -> None:
    assert set(SCHEMA["properties"]) == set(Settings.model_fields)
    assert SCHEMA["additionalProperties"] is False
    assert SCHEMA["required"] == ["upstreams", "models"]


def test_every_setting_is_described() -> None:
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    settings = [(name, said) for section in sections for name, said in section.get("properties", {}).items()]
    assert len(settings) > 40
    assert [name for name, said in settings if not said.get("description")] == []


def test_a_default_is_written_as_one_writes_it_in_the_file() -> None:
    assert SCHEMA["properties"]["listen"]["default"] == "0.0.0.0:8080"
    assert setting("DrainSettings", "timeout")["default"] == "10m"
    assert "default" not in setting("UpstreamSettings", "api_key")


def test_a_reference_may_stand_for_every_scalar_and_grouped_digits_for_numbers() -> None:
    reference, grouped = {"$ref": "#/$defs/Reference"}, {"$ref": "#/$defs/GroupedDigits"}
    assert reference in setting("DrainSettings", "delay")["anyOf"]
    assert {reference["$ref"], grouped["$ref"]} < {
        kind.get("$ref") for kind in setting("LimitSettings", "tokens")["anyOf"]
    }
    assert reference in setting("LimitSettings", "per")["anyOf"]
    assert reference in setting("TeamSettings", "models")["items"]["anyOf"]
    assert re.search(SCHEMA["$defs"]["Reference"]["pattern"], "a-${NAME:-b}")
    assert re.search(SCHEMA["$defs"]["GroupedDigits"]["pattern"], "200_000")


def test_a_price_names_at_least_one_thing_in_the_schema_too() -> None:
    sections = {name: SCHEMA["$defs"][name] for name in ("PriceSettings", "TierPriceSettings", "PriceStepSettings")}
    assert {name: section["minProperties"] for name, section in sections.items()} == {
        "PriceSettings": 1,
        "TierPriceSettings": 1,
        "PriceStepSettings": 2,
    }
    assert sections["PriceStepSettings"]["required"] == ["tokens"]
    assert [section.get("required", []) for section in list(sections.values())[:2]] == [[], []]


def test_a_limit_has_one_meter_in_the_schema_too() -> None:
    meters = [alternative["required"] for alternative in SCHEMA["$defs"]["LimitSettings"]["oneOf"]]
    assert meters == [["requests"], ["tokens"], ["input_tokens"], ["output_tokens"], ["usd"], ["concurrent"]]


def test_a_limit_names_its_window_in_the_schema_unless_it_counts_requests_in_flight() -> None:
    limit = SCHEMA["$defs"]["LimitSettings"]
    assert (limit["if"]["required"], limit["else"]["required"]) == (["concurrent"], ["per"])
    assert limit["then"]["properties"]["per"] == {"type": "null"}


def test_no_pattern_repeats_more_often_than_helm_can_read() -> None:
    counts = [int(count) for count in re.findall(r"\{[0-9,]*?([0-9]+)\}", json.dumps(SCHEMA))]
    assert 0 < max(counts) <= RE2_REPEATS_MAX


def test_a_setting_that_can_be_left_out_can_be_nothing_in_the_schema_too() -> None:
    null = {"type": "null"}
    assert null in setting("JwtSettings", "default_team")["anyOf"]
    assert null in SCHEMA["properties"]["admin"]["anyOf"]
    assert SCHEMA["properties"]["limits"]["type"] == ["array", "null"]
    assert setting("LimitSettings", "requests")["anyOf"].count(null) == 1
    assert null not in setting("RouteSettings", "upstream")["anyOf"]
    assert SCHEMA["properties"]["upstreams"]["type"] == "object"
    assert SCHEMA["$defs"]["TeamSettings"]["type"] == ["object", "null"]


def test_an_upstream_has_a_base_url_of_its_own_or_of_its_preset() -> None:
    upstream = SCHEMA["$defs"]["UpstreamSettings"]
    own, of_preset = upstream["anyOf"]
    assert "required" not in upstream or "base_url" not in upstream["required"]
    assert (own, of_preset["required"]) == ({"required": ["base_url"]}, ["preset"])
    assert of_preset["properties"]["preset"]["not"]["enum"] == ["azure", "foundry", "vertex", "bedrock"]


def test_digits_may_be_grouped_in_a_price_with_decimals_too() -> None:
    assert {"$ref": "#/$defs/GroupedNumber"} in setting("PriceSettings", "input")["anyOf"]
    pattern = SCHEMA["$defs"]["GroupedNumber"]["pattern"]
    assert [bool(re.search(pattern, text)) for text in ("1_000.5", "1_000", "1_000.", "1000", "_1.5")] == [
        *(True, True, False, False, False)
    ]


TEXT_THAT_LOOKS_LIKE_NUMBERS = """
upstreams:
  4711: {base_url: "http://h/v1", query: {api-version: 2024-10-21, tries: 0471, on: true}, headers: {X-Org: 4711}}
models: {1.10: {routes: [{upstream: 4711, model: 1_0}], aliases: [1e3]}}
teams:
  0471:
    cost_center: 0471
    owner: 1_000
    models: [1.10]
    limits: [{requests: 1, per: day, name: 007, models: [1.10]}]
    keys: [{name: 2024-10-21, sha256: %s, models: [1.10]}]
  no: {cost_center: yes}
notify: [{url: "http://h/", format: slack, name: 0x1F, teams: [0471]}]
jwt:
  - {issuer: 4711, audience: [4711], jwks: /k, user: 1, groups: 2, team: 3, models: 4, teams: {05: 0471}}
store: {prefix: 0}
"""


def test_text_that_looks_like_a_number_is_read_as_it_is_written() -> None:
    written = TEXT_THAT_LOOKS_LIKE_NUMBERS % ("a" * 64)
    settings = parse(written, "gateway.yaml", {}, connection_files=False).settings
    team, other = settings.teams["0471"], settings.teams["no"]
    assert (team.cost_center, team.owner, other.cost_center) == ("0471", "1_000", "yes")
    assert (team.limits[0].name, team.keys[0].name, settings.store.prefix) == ("007", "2024-10-21", "0")
    assert settings.models["1.10"].routes[0].model == "1_0"
    assert settings.upstreams["4711"].query == {"api-version": "2024-10-21", "tries": "0471", "on": "true"}
    assert (settings.jwt[0].issuer, settings.jwt[0].teams, settings.notify[0].name) == ("4711", {"05": "0471"}, "0x1F")


def test_the_schema_takes_an_unquoted_number_where_the_gateway_reads_text_and_nowhere_else() -> None:
    unquoted = {"$ref": "#/$defs/UnquotedText"}
    texts = (
        *(
            ("TeamSettings", "cost_center"),
            ("TeamSettings", "owner"),
            ("KeySettings", "name"),
            ("LimitSettings", "name"),
        ),
        *(
            ("RouteSettings", "upstream"),
            ("RouteSettings", "model"),
            ("StoreSettings", "prefix"),
            ("JwtSettings", "issuer"),
        ),
    )
    others = (
        *(("KeySettings", "sha256"), ("KeySettings", "expires"), ("LimitSettings", "per"), ("LimitSettings", "tokens")),
        *(("DrainSettings", "delay"), ("AdminSettings", "listen"), ("UpstreamSettings", "base_url")),
    )
    assert [name for name in texts if unquoted not in setting(*name)["anyOf"]] == []
    assert [name for name in others if unquoted in setting(*name)["anyOf"]] == []
    assert [name for name in ("timezone", "keepalive") if unquoted in SCHEMA["properties"][name]["anyOf"]] == []
    assert unquoted in setting("ModelSettings", "aliases")["items"]["anyOf"]
    assert unquoted not in setting("UpstreamSettings", "endpoints")["items"]["anyOf"]
    assert all(unquoted in each["anyOf"] for each in setting("UpstreamSettings", "query")["patternProperties"].values())
