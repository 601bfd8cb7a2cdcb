"""Turns what keeps a gateway from starting into one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import click

from gateway.core.errors import GatewayError

_PORT_TAKEN = (
    "Another program uses this port. Choose other ports: listen and admin.listen of the configuration; without"
    " a file --listen and --admin-listen, or make demo PORT=8081."
)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the command with 1 where the system or an upstream does not give what is needed."""
    try:
        yield
    except OSError as error:
        hint = f" {_PORT_TAKEN}" if error.errno == errno.EADDRINUSE else ""
        raise click.ClickException(f"Cannot start: {error.strerror or error}.{hint}") from None
    except GatewayError as error:
        raise click.ClickException(error.message) from None
