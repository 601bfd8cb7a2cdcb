"""The option that names a configuration, and how its problems are printed; without what reads one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn

import click

from gateway.settings.diagnostics import Diagnostic, SettingsInvalid

DEFAULT_CONFIG = "config/gateway.yaml"
EXIT_INVALID = 2

config_option = click.option(
    "-c",
    "--config",
    metavar="FILE",
    envvar="GATEWAY_CONFIG",
    default=DEFAULT_CONFIG,
    help=f"The configuration. Default: $GATEWAY_CONFIG, then {DEFAULT_CONFIG}.",
)


def print_problems(problems: Iterable[Diagnostic | str], *, warning: bool = False) -> None:
    """One line each, on standard error."""
    for problem in problems:
        click.echo(f"{problem} (warning)" if warning else str(problem), err=True)


def end_with(invalid: SettingsInvalid) -> NoReturn:
    print_problems(invalid.problems)
    sys.exit(EXIT_INVALID)
