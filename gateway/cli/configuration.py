"""What commands that read a configuration share: the option that names it, and how its problems are told."""

from __future__ import annotations

from collections.abc import Iterable

import click

from gateway.settings import Problem

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


def tell(problems: Iterable[Problem], *, warning: bool = False) -> None:
    """One line each, on standard error."""
    for problem in problems:
        click.echo(f"{problem} (warning)" if warning else str(problem), err=True)
