from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from gateway.cli.demo_upstream import demo_upstream, script_from
from gateway.demo.script import DemoScript


def test_help_shows_every_field_of_the_script_and_an_example() -> None:
    shown = CliRunner().invoke(demo_upstream, ["--help"]).output
    assert all("--" + name.replace("_", "-") in shown for name in DemoScript.__struct_fields__)
    assert "Example: gateway demo-upstream" in shown


def test_flags_become_a_script() -> None:
    given = {"chunks": "3", "bom": True, "newline": "crlf", "cuts": "[1, 2]", "status": None, "tokens_per_second": 50.0}
    assert script_from(given) == DemoScript(chunks=3, bom=True, newline="crlf", cuts=(1, 2), chunk_delay_ms=20)


def test_a_flag_that_makes_no_sense_is_a_usage_error() -> None:
    with pytest.raises(click.BadParameter, match="usage"):
        script_from({"usage": "sometimes"})
    assert CliRunner().invoke(demo_upstream, ["--chunks", "-1"]).exit_code == 2
