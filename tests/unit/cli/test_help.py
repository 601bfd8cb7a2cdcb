from __future__ import annotations

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
