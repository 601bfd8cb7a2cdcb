from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.check import check
from gateway.cli.schema import schema
from gateway.settings.schema import json_schema

GOOD = """\
upstreams: {main: {base_url: "http://127.0.0.1:9000/v1"}}
models: {a: {routes: [{upstream: main}]}}
teams: {search: {}}
"""


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(check, arguments, env=environ)


def test_a_good_configuration_ends_with_zero_and_its_warnings(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD)
    result = run("-c", str(file))
    assert result.exit_code == 0
    assert result.stdout == f"{file} is valid: 1 upstream, 1 model, 1 team, 0 keys.\n"
    assert result.stderr == (
        f"{file}:3: teams.search: has no keys, so nobody can use the gateway in its name (warning)\n"
    )


def test_a_bad_configuration_ends_with_two_and_one_line_for_each_error(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD + "listn: x\nmax_body: 5\n")
    result = run(GATEWAY_CONFIG=str(file))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:4: listn: is not a known setting; did you mean listen?",
        f"{file}:5: max_body: must be a size above 0 such as 512B, 64KiB, 10MiB or 1GiB",
    ]


def test_a_file_that_is_not_there_ends_with_two_and_what_to_do(tmp_path: Path) -> None:
    result = run("-c", str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "No such file or directory; name a configuration with -c FILE or in $GATEWAY_CONFIG\n"
    )


def test_programs_get_the_same_as_json(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD + "max_body: 5\n")
    bad = run("-c", str(file), "--json")
    assert bad.exit_code == 2
    (error,) = json.loads(bad.stdout)["errors"]
    assert (error["file"], error["line"], error["path"]) == (str(file), 4, "max_body")
    file.write_text(GOOD)
    good = json.loads(run("-c", str(file), "--json").stdout)
    assert (good["valid"], good["errors"], len(good["warnings"])) == (True, [], 1)


def test_every_command_shows_an_example() -> None:
    for command in (check, schema):
        assert "Example: gateway " in CliRunner().invoke(command, ["--help"]).stdout


def test_the_schema_is_printed_as_json() -> None:
    assert json.loads(CliRunner().invoke(schema).stdout) == json_schema()


def test_a_price_that_is_not_the_catalogues_is_a_warning_and_no_error(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "upstreams: {main: {preset: openai}}\n"
        "models: {gpt-4o: {routes: [{upstream: main}], price: {input: 999999, output: 999999}}}\n"
        "teams: {search: {}}\n"
    )
    result = run("-c", str(file), "--json")
    assert result.exit_code == 0
    warnings = [warning for warning in json.loads(result.stdout)["warnings"] if "price" in warning["path"]]
    assert [warning["path"] for warning in warnings] == [
        "models.gpt-4o.price.input",
        "models.gpt-4o.price.output",
    ]
    assert "% higher than the" in warnings[0]["message"]
    assert {(warning["file"], warning["line"]) for warning in warnings} == {(str(file), 2)}


SECRET = """\
listen: ${LISTEN}
admin: {token: "${GATEWAY_ADMIN_TOKEN}"}
store: {url: "${REDIS_URL:-memory://}"}
upstreams:
  main:
    base_url: "https://${UPSTREAM_HOST}/v1"
    api_key: ${file:/run/secrets/upstream}
    headers: {X-Org: "${ORGANISATION}"}
    tls: {cert: /run/secrets/tls.crt, key: /run/secrets/tls.key}
models:
  a: {routes: [{upstream: main}], max_output_tokens: "${CAP}"}
teams:
  search:
    keys:
      - {name: one, key: "${ONE_KEY}"}
      - {name: two, sha256: "${TWO_HASH}", expires: "${EXPIRES}"}
    limits: [{tokens: "${TOKENS}", per: minute}]
"""
UNSET = ("LISTEN", "GATEWAY_ADMIN_TOKEN", "UPSTREAM_HOST", "ORGANISATION", "CAP", "ONE_KEY", "TWO_HASH", "EXPIRES")


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose secrets this machine does not have."""
    for name in (*UNSET, "TOKENS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "gateway.yaml"
    file.write_text(SECRET)
    return file


def test_a_machine_without_secrets_cannot_check_a_file_that_needs_them(secret: Path) -> None:
    result = run("-c", str(secret))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 12
    assert all("the environment has no" in line or "cannot be read" in line for line in result.stderr.splitlines())


def test_a_machine_without_secrets_can_check_everything_else(secret: Path) -> None:
    result = run("-c", str(secret), "--no-secrets")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert result.stdout.startswith(f"{secret} is valid, as far as it can be checked here. These values are not set: ")
    assert "listen, admin.token, upstreams.main.base_url, " in result.stdout


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("listn: x", "listn: is not a known setting; did you mean listen?"),
        ("max_body: 5", "max_body: must be a size above 0"),
        ("workers: ${WOR KERS}", "workers: a `${…}` is malformed"),
        ("timezone: ${file:gateway.yaml}x", "timezone:"),
        ("drain: {delay: soon}", "drain.delay: must be a duration"),
        ("limits: [{usd: 5, per: month, models: ['none/*']}]", "limits[0]"),
    ],
)
def test_what_is_wrong_without_any_secret_is_still_an_error(secret: Path, line: str, wrong: str) -> None:
    secret.write_text(f"{SECRET}{line}\n")
    result = run("-c", str(secret), "--no-secrets")
    assert (result.exit_code, result.stdout) == (2, "")
    (told,) = result.stderr.splitlines()
    assert told.startswith(f"{secret}:{len(SECRET.splitlines()) + 1}: {wrong}")


def test_errors_beside_an_unset_value_are_found(secret: Path) -> None:
    secret.write_text(SECRET.replace("upstream: main}]", "upstream: mian}]").replace("per: minute", "per: minuet"))
    told = run("-c", str(secret), "--no-secrets").stderr
    assert "models.a.routes[0].upstream: " in told
    assert "teams.search.limits[0].per: " in told
    assert len(told.splitlines()) == 2


def test_a_value_that_is_set_is_checked_without_secrets_too(secret: Path) -> None:
    result = run("-c", str(secret), "--no-secrets", LISTEN="nowhere", REDIS_URL="http://redis")
    assert result.exit_code == 2
    assert [line.partition(": ")[2].partition(":")[0] for line in result.stderr.splitlines()] == ["listen", "store.url"]


def test_a_reference_that_looks_like_a_secret_itself_is_an_error(secret: Path) -> None:
    secret.write_text(SECRET.replace("${ORGANISATION}", "${AKIAIOSFODNN7EXAMPLE12}"))
    result = run("-c", str(secret), "--no-secrets")
    assert result.exit_code == 2
    assert "looks like a secret" in result.stderr
    assert "AKIA" not in result.stderr


def test_a_reference_in_the_place_of_a_section_is_an_error(secret: Path) -> None:
    secret.write_text("upstreams: ${UPSTREAMS}\nmodels: {a: {routes: [{upstream: main}]}}\nteams: {search: ~}\n")
    result = run("-c", str(secret), "--no-secrets")
    assert result.exit_code == 2
    assert "upstreams: the environment has no UPSTREAMS" in result.stderr


def test_programs_get_what_was_not_checked(secret: Path) -> None:
    told = json.loads(run("-c", str(secret), "--no-secrets", "--json").stdout)
    assert (told["valid"], told["errors"], len(told["unchecked"])) == (True, [], 10)
    assert told["unchecked"][0]["path"] == "listen"
    complete = json.loads(run("-c", str(secret), "--no-secrets", "--json", **dict.fromkeys(UNSET, "")).stdout)
    assert complete["valid"] is False


@pytest.mark.parametrize("arguments", [["--no-secret-s"], ["--no-secrets", "extra"], ["-c"], ["--no-secrets=yes"]])
def test_wrong_arguments_end_with_two_and_how_it_is_used(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.output


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    result = run("-c", str(tmp_path), "--no-secrets")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert os.fspath(tmp_path) in result.stderr
