"""`gateway check`: lists everything that is wrong with a configuration, at once."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.config_option import EXIT_INVALID, config_option, print_problems
from gateway.finance.price_catalogue import CatalogueMissing, load_catalogue
from gateway.finance.price_comparison import warnings
from gateway.settings.diagnostics import Diagnostic, SettingsInvalid
from gateway.settings.loading import Loaded, load, located
from gateway.settings.models import Settings


@click.command(epilog="Example: gateway check -c config/gateway.yaml")
@config_option
@click.option("--no-secrets", is_flag=True, help="Accept ${NAME} and files that this machine does not have, as in CI.")
@click.option("--json", "as_json", is_flag=True, help="Print the result on standard output, as JSON.")
def check(config: str, no_secrets: bool, as_json: bool) -> None:
    """Validate a configuration. Exit status 0: it can be used; 2: it cannot.

    Each error is one line, FILE:LINE: path.to.key: what is wrong, what is allowed. ${NAME} is replaced from the
    environment of this command, so set the gateway's variables here, too. With --no-secrets they may be missing: what
    depends on them is then not checked.
    """
    try:
        loaded = load(config, os.environ, secrets=not no_secrets)
    except SettingsInvalid as invalid:
        if as_json:
            click.echo(_report(errors=invalid.problems))
        else:
            print_problems(invalid.problems)
        sys.exit(EXIT_INVALID)
    found = (*loaded.warnings, *located(_price_warnings(loaded.settings), config, os.environ))
    if as_json:
        click.echo(_report(warnings=found, unset=loaded.unset))
    else:
        print_problems(found, warning=True)
        click.echo(f"{config} is valid{_extent(loaded)}.")


def _price_warnings(settings: Settings) -> list[Diagnostic]:
    """Prices that are not the catalogue's, where the extra `prices` is installed."""
    if not any(model.price for model in settings.models.values()):
        return []
    with suppress(CatalogueMissing):
        catalogue = load_catalogue(datetime.now(UTC))
        return [Diagnostic(path, message) for path, message in warnings(settings, catalogue)]
    return []


def _extent(loaded: Loaded) -> str:
    if not loaded.unset:
        return f": {_summary(loaded.settings)}"
    names = ", ".join(each.setting for each in loaded.unset)
    return f", as far as it can be checked here. These values are not set: {names}"


def _report(
    errors: tuple[Diagnostic, ...] = (), warnings: tuple[Diagnostic, ...] = (), unset: tuple[Diagnostic, ...] = ()
) -> str:
    report: dict[str, Any] = {
        "valid": not errors,
        "errors": [problem.as_json() for problem in errors],
        "warnings": [problem.as_json() for problem in warnings],
        "unchecked": [problem.as_json() for problem in unset],
    }
    return json.dumps(report, indent=2, ensure_ascii=False)


def _summary(settings: Settings) -> str:
    keys = sum(len(team.keys) for team in settings.teams.values())
    return ", ".join(
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in (
            (len(settings.upstreams), "upstream"),
            (len(settings.models), "model"),
            (len(settings.teams), "team"),
            (keys, "key"),
        )
    )
