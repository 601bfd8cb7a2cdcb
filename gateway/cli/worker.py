"""`gateway worker`: one of the processes that `gateway supervise` starts."""

from __future__ import annotations

import click

from gateway.app.serve import run_worker
from gateway.cli.configuration import config_option, end_with, load_or_end
from gateway.cli.errors import errors_in_one_line
from gateway.cli.reexec import JsonArgument
from gateway.runtime.workers import WorkerSpec
from gateway.settings.diagnostics import SettingsInvalid

EXAMPLE = """Example: gateway worker -c config/gateway.yaml '{"worker":1,"ports":[8080]}'"""


@click.command(hidden=True, epilog=EXAMPLE)
@config_option
@click.argument("spec", type=JsonArgument(WorkerSpec))
def worker(config: str, spec: WorkerSpec) -> None:
    """Serve as one of several processes.

    The supervisor starts it, with the control channel as standard input.
    """
    settings = load_or_end(config).settings
    try:
        with errors_in_one_line():
            run_worker(spec, config, settings)
    except SettingsInvalid as invalid:
        end_with(invalid)
