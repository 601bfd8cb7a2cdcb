"""`gateway supervise`: replaces `gateway serve` if the configuration asks for several workers.

The process replaces itself, so that the supervisor's memory holds neither the configuration's models nor the code that
serves requests: it lives as long as the gateway.
"""

from __future__ import annotations

import sys

import click

from gateway.app.supervise import SupervisorConfig, supervise
from gateway.cli.errors import errors_in_one_line
from gateway.cli.reexec import JsonArgument, program

EXAMPLE = (
    """Example: gateway supervise '{"config":"config/gateway.yaml","workers":2,"""
    """"listen":[["0.0.0.0",8080]],"admin":["127.0.0.1",9090]}'"""
)


@click.command("supervise", hidden=True, epilog=EXAMPLE)
@click.argument("workers", type=JsonArgument(SupervisorConfig))
def command(workers: SupervisorConfig) -> None:
    """Run several workers.

    gateway serve becomes this if the configuration asks for more than one.
    """
    with errors_in_one_line():
        sys.exit(supervise(workers, [*program(), "worker", "-c", workers.config]))
