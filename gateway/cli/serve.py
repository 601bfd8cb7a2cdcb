"""`gateway serve`: run the gateway, from a file or as a demonstration."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gateway.app.first_load import FirstLoad
from gateway.cli.config_option import config_option, end_with, print_problems
from gateway.cli.errors import errors_in_one_line
from gateway.cli.first_load import loaded_or_end
from gateway.cli.reexec import json_argument, program
from gateway.settings.diagnostics import SettingsInvalid
from gateway.settings.value_readers import Workers, read_workers

if TYPE_CHECKING:
    from gateway.app.serve import Announce, Source


def _workers(_context: click.Context, _option: click.Parameter, given: str | None) -> Workers | None:
    try:
        return None if given is None else read_workers(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog="Example: gateway serve -c config/gateway.yaml")
@config_option
@click.option("--workers", metavar="N", callback=_workers, help="Number of processes; auto: one for each core.")
@click.option(
    "--demo", "as_demo", is_flag=True, help="Run without a file: the demo upstream, one key, the store in memory."
)
@click.option(
    "--upstream", metavar="URL", help="Run without a file in front of this server; its key is $UPSTREAM_API_KEY."
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    default="127.0.0.1:8080",
    show_default=True,
    help="Address for clients, without a file.",
)
@click.option(
    "--admin-listen",
    metavar="ADDRESS",
    help="Address for operators, without a file. Default: 127.0.0.1, 1010 ports above --listen.",
)
@click.pass_context
def serve(context: click.Context, /, config: str, workers: Workers | None, **without_file: Any) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Running streams then finish, as long as drain.timeout allows; a second signal cuts them short. SIGHUP
    reloads the configuration.
    """
    as_demo, upstream = without_file["as_demo"], without_file["upstream"]
    if upstream == "":
        raise click.UsageError("--upstream needs a URL, such as https://host/v1.")
    if as_demo and upstream:
        raise click.UsageError("--demo and --upstream cannot be combined.")
    if not (as_demo or upstream):
        for name in ("listen", "admin_listen"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option, setting = name.replace("_", "-"), name.replace("_", ".")
                raise click.UsageError(f"--{option} goes with --demo or --upstream; in the file it is `{setting}`.")
        _run_from_file(config, workers)
        return
    if context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--config cannot be combined with --demo or --upstream, which need no file.")
    if workers not in (None, 1):
        raise click.UsageError(f"--workers cannot be combined with --demo or --upstream: {_ALONE}")
    _run_without_file(upstream, without_file["listen"], without_file["admin_listen"])


_ALONE = "with memory:// each worker would count by itself."


def _run_from_file(config: str, asked: Workers | None) -> None:
    with errors_in_one_line():
        reading = FirstLoad(config)
    # The child reads while this is imported.
    from gateway.app.serve import Announce, Source

    loaded = loaded_or_end(reading)
    print_problems(loaded.warnings, warning=True)
    settings = loaded.settings
    workers = asked or settings.workers
    if workers != 1 and settings.store.is_in_memory:
        raise click.UsageError(f"--workers needs a shared store, such as store.url: redis://…; {_ALONE}")
    count = _cores() if workers == "auto" else workers
    if count > 1:
        listeners = {"listen": settings.listen, "admin": settings.admin.listen}
        supervisor_config = json_argument({"config": config, "workers": count, **listeners})
        # Not a child: a supervisor that signals and watches this process goes on with the one that it becomes.
        os.execv(sys.executable, [*program(), "supervise", supervisor_config])  # noqa: S606 # No shell is wanted.
    _run(Source(nullcontext(loaded), config), Announce(_say_nothing, _say_nothing))


def _cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_without_file(upstream: str | None, listen: str, admin_listen: str | None) -> None:
    # A gateway in production has no use for the demo upstream, and does not load it.
    from gateway.app.demo import access, demo, in_front_of
    from gateway.app.serve import Announce, Source  # As below.
    from gateway.cli.first_steps import show_drain, show_how  # As above.

    opened = access(listen, admin_listen, os.environ, in_front_of_demo=not upstream)
    announce = Announce(partial(show_how, opened.key, opened.admin_token), show_drain)
    _run(Source(in_front_of(upstream, os.environ, opened) if upstream else demo(opened)), announce)


def _run(source: Source, announce: Announce) -> None:
    # What serves is loaded by the process that serves.
    from gateway.app.serve import run_gateway

    try:
        with errors_in_one_line():
            run_gateway(source, announce)
    except SettingsInvalid as invalid:
        end_with(invalid)


def _say_nothing(*_said: object) -> None:
    """The log says it already."""
