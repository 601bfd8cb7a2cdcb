"""`gateway reload`: the running gateway reads its configuration file again."""

from __future__ import annotations

import sys

import click

from gateway.cli.admin_client import AdminClient, refusals_in_one_line
from gateway.cli.config_option import config_option
from gateway.cli.configuration import load_or_end
from gateway.cli.output import json_option, show_json


@click.command(epilog="Example: gateway reload -c config/gateway.yaml")
@config_option
@json_option
def reload(config: str, as_json: bool) -> None:
    """Have the running gateway reload its configuration file.

    The command asks the gateway at the admin listener that FILE names, and ends when the reload has ended. If the
    file has errors, it prints them, and the configuration in force stays.
    """
    settings = load_or_end(config).settings
    with refusals_in_one_line():
        reloaded = AdminClient.for_settings(settings).reload()
    if as_json:
        show_json(reloaded)
    elif reloaded["taken_up"]:
        click.echo("The configuration is reloaded. The log and 'gateway audit' have what it changed.")
    else:
        for problem in reloaded["problems"]:
            click.echo(problem, err=True)
        click.echo("The configuration is refused; the one in force stays.", err=True)
    if not reloaded["taken_up"]:
        sys.exit(1)
