from __future__ import annotations

import pytest
from click.testing import CliRunner

from gateway.__main__ import main


@pytest.mark.parametrize(
    ("group", "options", "subcommand"),
    [
        ("requests", ["--team", "search"], ["cancel", "4f0c2a9e51d37b860000002a"]),
        ("requests", ["-c", "gateway.yaml"], ["cancel", "4f0c2a9e51d37b860000002a"]),
        ("limits", ["--team", "search"], ["grants"]),
    ],
)
def test_an_option_that_a_subcommand_would_ignore_is_refused(
    group: str, options: list[str], subcommand: list[str]
) -> None:
    ended = CliRunner().invoke(main, [group, *options, *subcommand], prog_name="gateway")
    problem = f"Error: Write the options after {subcommand[0]!r}, not before it. Help: gateway {group} --help"
    assert (ended.exit_code, ended.stderr.splitlines()[-1]) == (2, problem)
