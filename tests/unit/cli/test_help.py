from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import COMMANDS, main


def test_the_list_of_commands_says_of_each_what_it_does_in_a_whole_sentence() -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout.partition("Commands:")[2].splitlines()
    told = {line.split()[0]: line for line in listed if line.startswith("  ") and line.split()[0] in COMMANDS}
    assert set(told) == set(COMMANDS) - {"supervise", "worker"}
    assert [line for line in told.values() if not line.endswith(".") or line.endswith("...")] == []


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
    ended = CliRunner().invoke(main, [*arguments, "-c", str(config)])
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (2, "Error: An argument is not UTF-8 text.")
