"""`gateway serve`: run the gateway, from a file or as a demonstration."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

from gateway.app.serve import Announce, Source
from gateway.app.serve import serve as run
from gateway.core.errors import GatewayError
from gateway.settings import Settings, SettingsInvalid, load
from gateway.settings.kinds import Address

DEFAULT_CONFIG = "config/gateway.yaml"


@click.command(epilog="Example: gateway serve -c config/gateway.yaml")
@click.option("-c", "--config", metavar="FILE", help=f"Default: $GATEWAY_CONFIG, then {DEFAULT_CONFIG}.")
@click.option("--demo", "as_demo", is_flag=True, help="No file: the built-in upstream, one key, memory only.")
@click.option("--upstream", metavar="URL", help="No file: that server and its models; its key in $UPSTREAM_API_KEY.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Where to serve without a file.")
def serve(config: str | None, as_demo: bool, upstream: str | None, listen: str) -> None:
    """Run the gateway until SIGTERM or SIGINT, then let running streams finish."""
    if as_demo and upstream:
        raise click.UsageError("--demo and --upstream exclude one another.")
    if config and (as_demo or upstream):
        raise click.UsageError("--config goes without --demo and --upstream, which need no file.")
    if as_demo or upstream:
        _run_without_file(upstream, listen)
    else:
        path = config or os.environ.get("GATEWAY_CONFIG") or DEFAULT_CONFIG
        _run(Source(_from_file(path), path), _say_nothing)


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
        for problem in invalid.problems:
            click.echo(str(problem), err=True)
        sys.exit(2)
    except OSError as error:
        raise click.ClickException(f"Cannot listen: {error.strerror or error}. Is another gateway running?") from None
    except GatewayError as error:
        raise click.ClickException(error.message) from None


@asynccontextmanager
async def _from_file(path: str) -> AsyncIterator[Settings]:
    loaded = load(path, os.environ)
    for warning in loaded.warnings:
        click.echo(f"{warning} (warning)", err=True)
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
