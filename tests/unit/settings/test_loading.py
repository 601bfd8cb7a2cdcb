from __future__ import annotations

import gc
import hashlib
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.core.address import Address
from gateway.core.limits import Meter
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.loading import DEMO_MODEL, demo_settings, load, parse
from tests.unit.settings.configurations import SHA256, TEAM, VALID, assert_refused, loaded, problems


def test_what_is_left_out_has_its_default() -> None:
    settings = loaded(VALID + TEAM).settings
    assert settings.listen == (Address("0.0.0.0", 8080),)
    assert settings.admin.listen == Address("127.0.0.1", 9090)
    assert settings.timezone == ZoneInfo("UTC")
    assert settings.max_body == 32 * 2**20
    assert (settings.drain.delay, settings.drain.timeout) == (timedelta(seconds=5), timedelta(minutes=10))
    assert settings.store.url == "memory://"
    upstream = settings.upstreams["main"]
    assert (upstream.auth, upstream.max_connections, upstream.stream_options) == ("bearer", 512, True)
    waits = upstream.timeouts
    assert (waits.first_byte, waits.idle, waits.total) == tuple(timedelta(minutes=each) for each in (10, 2, 30))


def test_a_setting_that_is_nothing_counts_as_left_out() -> None:
    settings = loaded(VALID + "drain:\nlimits: ~\nteams:\n  search:\n").settings
    assert settings.drain.delay == timedelta(seconds=5)
    assert settings.limits == ()
    assert settings.teams["search"].keys == ()


def test_the_contracts_own_spelling_of_references_in_flow_mappings_is_read() -> None:
    text = VALID + "teams: {search: {keys: [{name: dev, key: ${DEV_KEY}}]}}\n"
    (key,) = loaded(text, {"DEV_KEY": "gw_1"}).settings.teams["search"].keys
    assert key.key is not None
    assert key.key.get_secret_value() == "gw_1"


def test_a_reference_may_bring_any_kind_of_value() -> None:
    text = VALID + TEAM + "max_body: ${SIZE}\nlimits: [{requests: ${N:-7}, per: ${PER}}]\n"
    settings = loaded(text, {"SIZE": "1KiB", "PER": "hour"}).settings
    assert settings.max_body == 1024
    assert (settings.limits[0].amount, settings.limits[0].per) == (7, "hour")


def test_every_error_is_told_at_once_whichever_stage_finds_it() -> None:
    text = f"""\
listen: everywhere # !
timezone: Europe/Berlyn # !
admin: {{listen: 127.0.0.1:9090, lissen: x}} # !
upstreams:
  main:
    base_ur: http://127.0.0.1:9000/v1 # !
    base_url: http://127.0.0.1:9000/v1
    max_connections: ${{CONNECTIONS}} # !
models:
  a:
    routes: [{{upstream: mian}}] # !
    price: {{input: 0.1234567, output: 1}} # !
  b:
    routes: [{{upstream: main}}]
limits:
  - {{requests: 10, per: fortnight}} # !
  - {{usd: 5, per: month}} # !
  - {{requests: 1, tokens: 1, per: minute}} # !
teams:
  search:
    models: [z*] # !
    keys:
      - {{name: one, sha256: {SHA256}}}
      - {{name: two, sha256: {SHA256}}} # !
      - {{name: two, sha256: {SHA256[1:]}}} # !
  other:
    keys:
      - {{name: one}} # !
"""
    assert_refused(
        text,
        "listen: must be an address and a port from 0 to 65535, such as 0.0.0.0:8080, [::]:8080 or localhost:8080",
        "timezone: must be a time zone of the IANA database, such as UTC, Europe/Berlin or Asia/Tokyo",
        "admin.lissen: is not a known setting; did you mean listen?",
        "upstreams.main.base_ur: is not a known setting; did you mean base_url?",
        "upstreams.main.max_connections: the environment has no CONNECTIONS; set it, or write ${CONNECTIONS:-default}",
        "models.a.routes[0].upstream: is not an upstream of this configuration; did you mean main?",
        "models.a.price.input: must be USD per million tokens: a number from 0 to 1000000 with at most 6 decimals",
        "limits[0].per: must be 'second', 'minute', 'hour', 'day', 'week', 'month' or 'total'",
        "limits[1].usd: counts models without a price: b; give them one or narrow `models`",
        "limits[2]: needs exactly one meter of requests, tokens, input_tokens, output_tokens, usd, concurrent",
        "teams.search.models[0]: matches no model that can be used here; there are a, b",
        "teams.search.keys[1]: is the same key as teams.search.keys[0]",
        "teams.search.keys[2].sha256: must be the SHA-256 of a key: 64 hexadecimal digits "
        '(printf %s "$KEY" | sha256sum)',
        "teams.search.keys[2].name: is the name of another key of this team",
        "teams.other.keys[0]: needs either `key` or `sha256`, and not both",
    )


def test_what_has_an_error_inside_is_not_judged_as_a_whole() -> None:
    assert_refused(
        """\
upstreams:
  main: # !
    base: http://127.0.0.1:9000/v1 # !
models:
  a:
    routes:
      - {upstream: main, wait: 1} # !
limits:
  - {requets: 1, per: minute} # !
teams:
  search: {keys: [{name: x, key: ${MISSING}}]} # !
""",
        "upstreams.main.base_url: is missing; it is required",
        "upstreams.main.base: is not a known setting; did you mean base_url?",
        "models.a.routes[0].wait: is not a known setting; did you mean weight?",
        "limits[0].requets: is not a known setting; did you mean requests?",
        "teams.search.keys[0].key: the environment has no MISSING; set it, or write ${MISSING:-default}",
    )


NAME_REFUSED = "teams.a b: its name must be 1 to 64 letters, digits, dots, dashes and underscores, no dot first"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("drain: 5s", "drain: must be a mapping of settings; known here: delay, timeout"),
        ("limits: {requests: 1}", "limits: must be a list, such as [a, b]"),
        (
            "limits: [600/minute]",
            (
                "limits[0]: must be a mapping of settings; known here: requests, tokens, input_tokens, output_tokens, "
                "usd, concurrent, per, burst, name, models, mode, when_spent"
            ),
        ),
        (
            "limits: [{requests: 1,000, per: minute}]",
            "limits[0].000: is not a known setting; the digits of a number are grouped with _, as in 1_000",
        ),
        (
            "limits: [{requests: 1, per: minuet}]",
            (
                "limits[0].per: must be 'second', 'minute', 'hour', 'day', 'week', 'month' or 'total'; "
                "did you mean minute?"
            ),
        ),
        (
            "limits: [{requests: 1, per: fortnight}]",
            "limits[0].per: must be 'second', 'minute', 'hour', 'day', 'week', 'month' or 'total'",
        ),
        ("teams: [search]", "teams: must be a mapping, from names to settings"),
        ("teams: {search: {models: openai/*}}", "teams.search.models: must be a list, such as [a, b]"),
        ("teams: {search: {models: []}}", "teams.search.models: must not be empty; leave it out to mean all"),
        ("teams: {a b: {}}", NAME_REFUSED),
        ("teams: {a: {cost_center: [4711]}}", "teams.a.cost_center: must be text"),
        ("teams: {a: {cost_center: " + "4" * 65 + "}}", "teams.a.cost_center: must have at most 64 characters"),
        ("teams: {a: {limit: 1}}", "teams.a.limit: is not a known setting; did you mean limits?"),
        ("max_body: [1]", "max_body: must be a size above 0 such as 512B, 64KiB, 10MiB or 1GiB"),
        ("max_body: {a: 1}", "max_body: must be a size above 0 such as 512B, 64KiB, 10MiB or 1GiB"),
        (
            "store: {url: mysql://x}",
            (
                "store.url: must begin with one of memory://, redis://, rediss://, unix://, redis+sentinel://, "
                "rediss+sentinel://, redis+cluster://, rediss+cluster://"
            ),
        ),
    ],
)
def test_a_value_of_the_wrong_form_says_which_it_must_have(line: str, message: str) -> None:
    told = problems(VALID + line + "\n")
    assert message in {f"{problem.setting}: {problem.message}" for problem in told}
    assert {problem.line for problem in told} == {VALID.count("\n") + 1}


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n", "{}\n"])
def test_an_empty_file_says_what_is_missing(text: str) -> None:
    told = [f"{problem.setting}: {problem.message}" for problem in problems(text)]
    assert told == [
        "upstreams: is missing; name at least one upstream",
        "models: is missing; name at least one model",
    ]


@pytest.mark.parametrize("text", ["a list", "[1, 2]", "5"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    (problem,) = problems(text)
    assert str(problem) == "gateway.yaml:1: must be a mapping of settings"


@pytest.mark.parametrize("secrets", [True, False])
@pytest.mark.parametrize("text", ["${NOWHERE}", "${file:/nowhere}", "a ${NOWHERE} b"])
def test_a_file_that_is_one_reference_to_nothing_is_refused(text: str, secrets: bool) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        parse(text, "gateway.yaml", {}, secrets=secrets)
    assert not secrets or any("NOWHERE" in str(problem).upper() for problem in refused.value.problems)


def test_a_key_that_is_set_twice_is_told_where_it_is_set_again() -> None:
    text = "listen: localhost:80\n" + VALID + "listen: localhost:81 # !\n"
    assert_refused(text, "listen: is set twice, first on line 1")


def test_a_key_that_is_no_name_is_told_on_its_own_line_and_not_its_sections() -> None:
    assert_refused(
        VALID + "drain:\n  delay: 1s\n  ~: 2s # !\n", "drain: a key is not text; write a name before the colon"
    )


def test_an_unknown_setting_is_refused_also_without_a_value() -> None:
    assert_refused(VALID + "lisen: # !\n", "lisen: is not a known setting; did you mean listen?")


def test_a_name_with_a_dot_is_quoted_in_a_path() -> None:
    (problem,) = problems(VALID + "  gpt-4.1: {routes: []}\n")
    assert problem.setting == 'models["gpt-4.1"].routes'


def test_a_name_that_is_empty_is_quoted_in_a_path() -> None:
    (told,) = problems(VALID + 'teams: {"": {}}\n')
    assert told.setting == 'teams[""]'


def test_the_line_of_a_value_below_its_key_is_the_keys() -> None:
    (problem,) = problems("max_body:\n  - 1\n" + VALID)
    assert (problem.line, problem.setting) == (1, "max_body")


SECRETS = {
    "api_key": ("upstreams: {main: {base_url: http://a/v1, api_key: ${S}}}", "hunter2 \n"),
    "header": ("upstreams: {main: {base_url: http://a/v1, headers: {X-Token: ${S}}}}", "hunter2\n"),
    "key": ("teams: {a: {keys: [{name: b, key: ${S}}]}}", "hunter2 "),
    "sha256": ("teams: {a: {keys: [{name: b, sha256: ${S}}]}}", "hunter2"),
    "number": ("upstreams: {main: {base_url: http://a/v1, max_connections: ${S}}}", "hunter2"),
    "url": ("upstreams: {main: {base_url: ${S}}}", "https://user:hunter2@host/v1"),
    "word": ("upstreams: {main: {base_url: http://a/v1, auth: ${S}}}", "hunter2"),
    "section": ("admin: ${S}", "hunter2"),
    "store": ("store: {url: ${S}}", "redis://:hunter2@host/x"),
    "address": ("listen: ${S}", "hunter2"),
    "duration": ("drain: {delay: ${S}}", "hunter2"),
    "size": ("max_body: ${S}", "hunter2"),
    "zone": ("timezone: ${S}", "hunter2"),
    "model": ("models: {m: {routes: [{upstream: ${S}, model: ${S}, weight: ${S}}], aliases: ${S}}}", "hunter2 "),
    "limit": ("limits: [{requests: ${S}, per: ${S}, burst: ${S}, name: ${S}, models: ['${S}']}]", "hunter2 "),
    "price": ("models: {m: {price: {input: ${S}, output: ${S}}}}", "hunter2"),
    "expires": ("teams: {a: {keys: [{name: b, expires: ${S}, disabled: ${S}, models: ['${S}']}]}}", "hunter2 "),
}


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS.keys())
def test_a_message_never_contains_a_value(text: str, secret: str) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        loaded(text, {"S": secret})
    assert "hunter2" not in str(invalid.value)
    assert "(the value comes from ${S})" in str(invalid.value)
    assert invalid.value.__cause__ is None
    with pytest.raises(SettingsInvalid) as invalid:
        loaded(text.replace("'${S}'", "${S}").replace("${S}", f'"{secret.strip()} "'))
    assert "hunter2" not in str(invalid.value)


SECRET_NAMES = (
    "sk-proj-abcdefghijklmnop",
    "gw_kNcL5Yz0Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKc",
    "gw_aaaaaaaaaaaaaaaaaaaaaaaa",
    "AKIAIOSFODNN7EXAMPLE",
    "hunter2",
    "Bearer sk-abcdefghijklmnop",
    "0f" * 32,
)


@pytest.mark.parametrize("secret", SECRET_NAMES)
@pytest.mark.parametrize(
    "text", ["SECRET: x\n", "admin:\n  SECRET: x\n", "upstreams:\n  a:\n    base_url: http://a\n    SECRET:\n"]
)
def test_an_unknown_setting_that_may_be_a_secret_is_not_shown(secret: str, text: str) -> None:
    text = text.replace("SECRET", secret)
    told = [found for found in problems(text) if "not shown" in found.message]
    assert len(told) == 1
    assert text.splitlines()[told[0].line - 1].strip().startswith(secret)
    assert secret not in f"{told[0]} {told[0].as_json()}"
    assert told[0].setting.endswith('["…"]')


@pytest.mark.parametrize("secret", [name for name in SECRET_NAMES if name != "hunter2"])
def test_a_secret_in_place_of_a_name_is_not_shown_in_a_path(secret: str) -> None:
    told = problems(f"teams:\n  '{secret}': {{limits: [{{}}]}}\n")
    assert told
    assert secret not in "".join(map(str, told))


def test_a_secret_in_place_of_a_variable_is_not_shown() -> None:
    assert "gw_kNc" not in "".join(map(str, problems(f"listen: ${{{SECRET_NAMES[1]}}}\n" + VALID)))


@pytest.mark.parametrize("name", ["lisen", "max_connection", "shiny-new-setting", "keepalive2", "KeepAlive"])
def test_a_misspelt_setting_is_shown(name: str) -> None:
    assert any(found.setting == name for found in problems(f"{name}: x\n" + VALID))


@pytest.mark.parametrize(
    "name",
    [
        "openai/gpt-4o-2024-08-06",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "mistralai/Mixtral-8x22B-Instruct-v0.1",
        "accounts/fireworks/models/deepseek-v3p1-terminus",
        "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
    ],
)
def test_the_name_of_a_model_is_shown(name: str) -> None:
    assert name in str(problems(VALID + f"  {name}: {{routes: []}}\n")[0])


def test_text_that_is_not_yaml_does_not_show_in_the_message() -> None:
    for text in (
        "key: *hunter2",
        "key: @hunter2",
        "key: 'hunter2",
        "a: !hunter2 1",
        "key: hunter2: x",
        "{key: hunter2",
    ):
        (problem,) = problems(text)
        assert problem.line in {1, 2}
        assert "hunter2" not in str(problem)


def test_settings_do_not_show_their_secrets() -> None:
    text = VALID.replace("9000/v1}", "9000/v1, api_key: hunter2, headers: {X-Token: hunter2}}")
    settings = loaded(text + "teams: {a: {keys: [{name: b, key: hunter2}]}}").settings
    assert "hunter2" not in f"{settings} {settings!r} {settings.upstreams}"


def test_a_file_is_loaded_with_its_own_name_and_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("gw_1\n")
    file = tmp_path / "gateway.yaml"
    file.write_bytes(
        b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode() + b"teams: {a: {keys: [{name: b, key: ${file:secret}}]}}"
    )
    assert load(file, {}).warnings == ()
    file.write_text(VALID + "lisen: x\n")
    with pytest.raises(SettingsInvalid, match=rf"^{file}:12: lisen: is not a known setting; did you mean listen\?$"):
        load(file, {})


def test_settings_know_the_hash_of_their_file() -> None:
    one, other = loaded(VALID).settings.file_hash, loaded(VALID + "workers: 1\n").settings.file_hash
    assert one == loaded(VALID).settings.file_hash == hashlib.sha256(VALID.encode()).hexdigest()[:12]
    assert one != other
    assert demo_settings("gw_1", URL).file_hash == ""


def test_a_load_leaves_the_garbage_collector_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    for text in (VALID, "lisen: x"):
        file.write_text(text)
        with suppress(SettingsInvalid):
            load(file, {})
        assert gc.isenabled()


def test_a_file_that_cannot_be_read_says_how_to_name_another(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsInvalid) as invalid:
            load(path, {})
        hint = "name a configuration with -c FILE or in $GATEWAY_CONFIG"
        assert str(invalid.value) == f"{path}: cannot be read: {reason}; {hint}"


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_bytes("# one\r\nlisten: ü\n".encode("latin-1"))
    with pytest.raises(SettingsInvalid) as invalid:
        load(file, {})
    assert str(invalid.value) == f"{file}:2: is not UTF-8 text; save the file as UTF-8"


URL = "http://127.0.0.1:9000/v1"


def test_the_demo_has_one_key_one_model_and_limits_to_be_seen() -> None:
    settings = demo_settings("gw_1", URL)
    assert list(settings.models) == [DEMO_MODEL]
    assert settings.models[DEMO_MODEL].price is not None
    (team,) = settings.teams.values()
    (key,) = team.keys
    assert key.key is not None
    assert key.key.get_secret_value() == "gw_1"
    assert {limit.meter for limit in team.limits} >= {Meter.REQUESTS, Meter.TOKENS, Meter.CONCURRENT, Meter.USD}
    assert settings.upstreams["demo"].credential is None
    assert settings.listen == (Address("127.0.0.1", 8080),)


def test_a_named_server_gets_its_key_and_every_model_that_it_lists() -> None:
    settings = demo_settings("gw_1", URL, api_key="sk-1", models=["tiny.gguf", "a/b"], listen="127.0.0.1:0")
    assert list(settings.models) == ["tiny.gguf", "a/b"]
    assert settings.upstreams["demo"].credential == ("authorization", "Bearer sk-1")
    assert settings.listen[0].port == 0
    assert all(limit.meter is not Meter.USD for limit in settings.teams["demo"].limits)


def test_what_cannot_be_used_is_told_like_any_configuration() -> None:
    with pytest.raises(SettingsInvalid, match=r"^upstreams\.demo\.base_url: must be an http:// or https:// URL"):
        demo_settings("gw_1", "localhost:9000")
