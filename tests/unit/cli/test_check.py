from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from gateway.cli.check import check
from gateway.cli.schema import schema
from gateway.settings import json_schema

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
        f"{file}:5: max_body: must be a size above nothing such as 512B, 64KiB, 10MiB or 1GiB",
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
