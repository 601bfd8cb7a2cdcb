"""`gateway diff`: what a configuration would change, in words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.app.config_child import difference
from gateway.cli.admin_client import AdminClient, refusals_in_one_line
from gateway.cli.config_option import EXIT_INVALID, config_option
from gateway.cli.configuration import load_or_end
from gateway.cli.output import json_option, show_json
from gateway.identity.requests import AdministrationRequest
from gateway.settings.text_change import TextChange


@click.command(epilog="Example: gateway diff -c config/gateway.yaml --running")
@config_option
@click.option("--against", metavar="FILE", help="Compare with this file, as the one before.")
@click.option("--running", is_flag=True, help="Compare with what the running gateway has in force.")
@json_option
def diff(config: str, against: str | None, running: bool, as_json: bool) -> None:
    """Show what a configuration would change.

    Both are compared as they are written: ${NAME} is not replaced, and a secret is never shown. A line says where the
    counter of a limit starts from zero, and where a setting needs a restart. Exit status 2 if the configuration is not
    valid.
    """
    if running == (against is not None):
        raise click.UsageError("Name one of --against FILE and --running.")
    found = _of_running(config) if against is None else difference(_text(against), _text(config), config)
    if as_json:
        show_json(found)
    else:
        for change in msgspec.convert(found["changes"], list[TextChange]):
            click.echo(change.in_words())
        if found["valid"] and not found["changes"]:
            click.echo("Nothing differs.")
    for problem in found["problems"]:
        where = ": ".join(str(part) for part in (_place(problem), problem["path"], problem["message"]) if part)
        click.echo(where, err=True)
    if not found["valid"]:
        sys.exit(EXIT_INVALID)


def _of_running(config: str) -> dict[str, Any]:
    """Asks the gateway of this configuration's admin listener. Ends the command where that cannot be done."""
    body = msgspec.json.encode({"text": _text(config)})
    with refusals_in_one_line():
        client = AdminClient.for_settings(load_or_end(config).settings)
        return client.administer(AdministrationRequest("POST", "config/diff", {}, body))


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise click.BadParameter(f"{file} cannot be read: {why}", param_hint="FILE") from None


def _place(problem: dict[str, Any]) -> str:
    return f"{problem['file']}:{problem['line']}" if problem["line"] else str(problem["file"])
