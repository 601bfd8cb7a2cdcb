from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import COMMANDS, main


def test_the_list_of_commands_says_of_each_what_it_does_in_a_whole_sentence() -> None:
    listed = CliRunner().invoke(main, ["--help"]).stdout.partition("Commands:")[2].splitlines()
    told = {line.split()[0]: line for line in listed if line.startswith("  ") and line.split()[0] in COMMANDS}
    assert set(told) == set(COMMANDS) - {"supervise", "worker"}
    assert [line for line in told.values() if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("group", ["keys", "limits", "notify", "requests"])
def test_the_list_of_a_groups_commands_cuts_no_sentence(group: str) -> None:
    shown = CliRunner().invoke(main, [group, "--help"]).stdout
    listed = [line for line in shown.partition("Commands:")[2].splitlines() if re.match("  [a-z]", line)]
    assert listed
    assert [line for line in listed if line.endswith("...")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_of_itself(command: str) -> None:
    assert f"Example: gateway {command}" in CliRunner().invoke(main, [command, "--help"]).stdout


@pytest.mark.parametrize(
    "arguments", [["explain", "\udcff"], ["requests", "cancel", "\udcff"], ["usage", "--team", "\udcff"]]
)
def test_arguments_that_are_no_text_end_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "admin: {token: a-token-of-operators}\nupstreams: {a: {base_url: 'http://127.0.0.1:1/v1'}}\n"
        "models: {m: {routes: [{upstream: a}]}}\n"
    )
    ended = CliRunner().invoke(main, [*arguments, "-c", str(config)], prog_name="gateway")
    assert ended.exit_code == 2
    assert ended.stderr.splitlines()[-1] == "Error: An argument is not UTF-8 text. Help: gateway --help"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus'. Help: gateway --help"),
        (["usag"], "No such command 'usag'. Did you mean usage? Help: gateway --help"),
        (["--bogus"], "No such option '--bogus'. Help: gateway --help"),
        (["check", "file.yaml"], "Got unexpected extra argument (file.yaml). Help: gateway check --help"),
        (["check", "--xyzzy"], "No such option '--xyzzy'. Help: gateway check --help"),
        (["keys", "bogus"], "No such command 'bogus'. Help: gateway keys --help"),
        (["usage", "--since"], "Option '--since' requires an argument. Help: gateway usage --help"),
        (["explain"], "Missing argument 'REQUEST_ID'. Help: gateway explain --help"),
        (["diff"], "Name one of --against FILE and --running. Help: gateway diff --help"),
        (
            ["demo-upstream", "--port", "99999"],
            "Invalid value for '--port': 99999 is not in the range 0<=x<=65535. Help: gateway demo-upstream --help",
        ),
        (
            ["serve", "--listen", "127.0.0.1:8080"],
            "--listen goes with --demo or --upstream; in the file it is `listen`. Help: gateway serve --help",
        ),
        (
            ["serve", "--upstream", ""],
            "--upstream needs a URL, such as https://host/v1. Help: gateway serve --help",
        ),
        (
            ["serve", "--admin-listen", "127.0.0.1:9090"],
            (
                "--admin-listen goes with --demo or --upstream; in the file it is `admin.listen`."
                " Help: gateway serve --help"
            ),
        ),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_what_to_do_next(arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(main, arguments, prog_name="gateway")
    assert (ended.exit_code, ended.stderr) == (2, f"Error: {said}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_fits_into_80_columns(command: str) -> None:
    lines = CliRunner().invoke(main, [command, "--help"], terminal_width=80).stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_a_group_without_a_command_shows_its_help() -> None:
    ended = CliRunner().invoke(main, ["keys"], prog_name="gateway")
    assert (ended.exit_code, ended.stderr.splitlines()[0]) == (2, "Usage: gateway keys [OPTIONS] COMMAND [ARGS]...")
