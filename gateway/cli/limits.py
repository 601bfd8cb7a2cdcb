"""`gateway limits`: the use of every limit now."""

from __future__ import annotations

from typing import Any

import click

from gateway.cli.configuration import config_option, demo_option, settings_or_end
from gateway.cli.output import Row, json_option, show_json, table
from gateway.cli.reports import report_or_end

_HEADINGS = ("limit", "of", "used", "held", "left", "amount", "resets at", "runs out at")


@click.command(epilog="Example: gateway limits --team search")
@config_option
@demo_option
@click.option("--team", metavar="TEAM", help="Those that bind this team.")
@json_option
def limits(config: str, demo: str | None, team: str | None, as_json: bool) -> None:
    """Show each limit's use, what is left, when it resets.

    A quota runs out at that time if it is used at the present pace. Held is what requests in flight may still use.
    Times are in UTC. A limit on each end user by itself is left out: their names are not known.
    """
    report = report_or_end("limits", settings_or_end(config, demo), {"team": team})
    if as_json:
        show_json(report)
    elif report["data"]:
        click.echo(table(_HEADINGS, [_row(limit) for limit in report["data"]]))
    else:
        click.echo("There are no limits.")


def _row(limit: dict[str, Any]) -> Row:
    name = limit["name"] + (" (shadow)" if limit["mode"] == "shadow" else "")
    figures = [limit[each] for each in ("used", "held", "left", "amount")]
    times = [(limit[each] or "").replace("T", " ") for each in ("resets_at", "runs_out_at")]
    return [name, f"{limit['scope']} {limit['subject']}".rstrip(), *figures, *times]
