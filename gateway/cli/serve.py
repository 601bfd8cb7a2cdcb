"""`gateway serve`: run the gateway, from a file or as a demonstration."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
from click.core import ParameterSource

from gateway.app.serve import Announce, Source
from gateway.app.serve import serve as run
from gateway.cli.configuration import EXIT_INVALID, config_option, tell
from gateway.core.errors import GatewayError
from gateway.settings import Settings, SettingsInvalid, load
from gateway.settings.kinds import Address


@click.command(epilog="Example: gateway serve -c config/gateway.yaml")
@config_option
@click.option("--demo", "as_demo", is_flag=True, help="No file: the built-in upstream, one key, memory only.")
@click.option("--upstream", metavar="URL", help="No file: that server and its models; its key in $UPSTREAM_API_KEY.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Where to serve without a file.")
@click.pass_context
def serve(context: click.Context, config: str, as_demo: bool, upstream: str | None, listen: str) -> None:
    """Run the gateway until SIGTERM or SIGINT.

    Running streams then finish, as long as drain.timeout allows; a second signal cuts them short. SIGHUP
    takes the configuration up anew.
    """
    if as_demo and upstream:
        raise click.UsageError("--demo and --upstream exclude one another.")
    named = context.get_parameter_source("config") is ParameterSource.COMMANDLINE
    if named and (as_demo or upstream):
        raise click.UsageError("--config goes without --demo and --upstream, which need no file.")
    if as_demo or upstream:
        _run_without_file(upstream, listen)
    else:
        _run(Source(_from_file(config), config), _say_nothing)


def _run_without_file(upstream: str | None, listen: str) -> None:
    # A gateway in production has no use for the demo upstream, and does not load it.
    from gateway.app.demo import before, demo, new_key

    key = new_key()
    if upstream:
        _run(Source(before(upstream, os.environ.get("UPSTREAM_API_KEY", ""), key, listen)), _show_how(key))
    else:
        _run(Source(demo(key, listen)), _show_how(key))


def _run(source: Source, announce: Announce) -> None:
    try:
        run(source, announce)
    except SettingsInvalid as invalid:
        tell(invalid.problems)
        sys.exit(EXIT_INVALID)
    except OSError as error:
        raise click.ClickException(f"Cannot listen: {error.strerror or error}. Is another gateway running?") from None
    except GatewayError as error:
        raise click.ClickException(error.message) from None


@asynccontextmanager
async def _from_file(path: str) -> AsyncIterator[Settings]:
    loaded = load(path, os.environ)
    tell(loaded.warnings, warning=True)
    yield loaded.settings


def _say_nothing(_settings: Settings, _address: Address) -> None:
    """The log has told it already."""


def _show_how(key: str) -> Announce:
    def show(settings: Settings, address: Address) -> None:
        models = list(settings.models)
        url = f"http://{address}/v1/chat/completions"
        head = f"curl -sN {url} \\\n  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n  -d "
        fields = f'"model": "{models[0]}", "messages": [{{"role": "user", "content": "Say hello."}}]'
        more = f" (and {len(models) - 1} more)" if len(models) > 1 else ""
        click.echo(f"\nThe gateway serves {models[0]}{more} at http://{address}/v1 with the key {key}\n")
        click.echo(f"A plain answer:\n\n{head}'{{{fields}}}'\n")
        click.echo(f"A streamed one:\n\n{head}'{{{fields}, \"stream\": true}}'\n")
        click.echo(f"Metrics: curl -s http://{settings.admin.listen}/metrics    To stop: Ctrl-C\n")

    return show
