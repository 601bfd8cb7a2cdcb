"""What commands that read a configuration share: the option that names it, and how its problems are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import NoReturn

import click

from gateway.settings import Diagnostic, Loaded, SettingsInvalid, load

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


def print_problems(problems: Iterable[Diagnostic], *, warning: bool = False) -> None:
    """One line each, on standard error."""
    for problem in problems:
        click.echo(f"{problem} (warning)" if warning else str(problem), err=True)


def load_or_end(config: str) -> Loaded:
    """The configuration. One with errors ends the command."""
    try:
        return load(config, os.environ)
    except SettingsInvalid as invalid:
        end_with(invalid)


def end_with(invalid: SettingsInvalid) -> NoReturn:
    print_problems(invalid.problems)
    sys.exit(EXIT_INVALID)
