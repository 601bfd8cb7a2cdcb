"""`gateway worker`: one of the processes that `gateway supervise` starts."""

from __future__ import annotations

import click

from gateway.app.first_load import FirstLoad
from gateway.cli.config_option import config_option, end_with
from gateway.cli.errors import errors_in_one_line
from gateway.cli.first_load import loaded_or_end
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
    with errors_in_one_line():
        reading = FirstLoad(config)
    # The child reads while this is imported.
    from gateway.app.serve import run_worker

    loaded = loaded_or_end(reading)
    try:
        with errors_in_one_line():
            run_worker(spec, config, loaded)
    except SettingsInvalid as invalid:
        end_with(invalid)
