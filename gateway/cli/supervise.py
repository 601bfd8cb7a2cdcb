"""`gateway supervise`: what `gateway serve` becomes where the configuration asks for several workers.

A process of its own kind, since it lives as long as the gateway: it has neither the configuration's
models nor anything that serves in its memory.
"""

from __future__ import annotations

import sys

import click

from gateway.app.supervisor import Charter, supervise
from gateway.cli.again import Plain, program
from gateway.cli.starting import told_to_people

EXAMPLE = (
    """Example: gateway supervise '{"config":"config/gateway.yaml","workers":2,"""
    """"listen":["0.0.0.0",8080],"admin":["127.0.0.1",9090]}'"""
)


@click.command("supervise", hidden=True, epilog=EXAMPLE)
@click.argument("charter", type=Plain(Charter))
def command(charter: Charter) -> None:
    """Keep several workers.

    gateway serve becomes this where the configuration asks for more than one.
    """
    with told_to_people():
        sys.exit(supervise(charter, [*program(), "worker", "-c", charter.config]))
