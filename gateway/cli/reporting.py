"""What `gateway usage` and `gateway limits` share: how a report is asked for, and how it is told that there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import click

from gateway.app.reports import NoReport, lives_in_memory, report
from gateway.cli.configuration import load_or_end
from gateway.core.errors import FieldInvalid

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, the same that the admin API gives.")


def ask(page: str, config: str, query: Mapping[str, str | None]) -> dict[str, Any]:
    """The report that this configuration's gateway has. Ends the command where there is none."""
    settings = load_or_end(config).settings
    if lives_in_memory(settings) and settings.admin.secret:
        click.echo(f"memory:// is in the running gateway: asking it at {settings.admin.listen}.", err=True)
    try:
        return asyncio.run(report(page, settings, {name: text for name, text in query.items() if text}))
    except FieldInvalid as invalid:
        raise click.UsageError(invalid.message) from None
    except NoReport as reason:
        raise click.ClickException(str(reason)) from None


def show_json(told: Mapping[str, Any]) -> None:
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))
