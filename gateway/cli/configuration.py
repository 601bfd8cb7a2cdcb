"""What all commands that read a configuration themselves share."""

from __future__ import annotations

import os

import click
from click.core import ParameterSource

from gateway.cli.config_option import end_with
from gateway.settings.demo_credentials import DEMO_ADMIN_TOKEN, DEMO_KEY
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.loading import Loaded, demo_settings, load
from gateway.settings.models import Settings

demo_option = click.option(
    "--demo",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="127.0.0.1:9090",
    help="Ask the running demo, at its admin listener.",
)


def load_or_end(config: str) -> Loaded:
    """The configuration. One with errors ends the command."""
    try:
        return load(config, os.environ)
    except SettingsInvalid as invalid:
        end_with(invalid)


def settings_or_end(config: str, demo: str | None) -> Settings:
    """Those of the configuration, or of the demo whose admin listener is at `demo`."""
    if demo is None:
        return load_or_end(config).settings
    try:
        # Only its admin listener is asked.
        admin = {"listen": demo, "token": DEMO_ADMIN_TOKEN}
        return demo_settings(DEMO_KEY, "http://127.0.0.1/v1", admin=admin)
    except SettingsInvalid:
        raise click.BadParameter(
            "must be an address of this machine, such as 127.0.0.1:9090", param_hint="--demo"
        ) from None


def refuse_options_of_group(context: click.Context) -> None:
    """End the command if options are in front of its subcommand, which would ignore them."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"Write the options after {context.invoked_subcommand!r}, not before it.")
