"""`gateway limits`: shows the use of every limit; grants raise a limit for a while."""

from __future__ import annotations

import re
from typing import Any

import click

from gateway.cli.administration import ask_once
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option, refuse_options_of_group, settings_or_end
from gateway.cli.output import Row, csv_option, json_option, refuse_both, show_json, show_listing, table, time_cell
from gateway.cli.reports import report_or_end
from gateway.core.grants import GRANT_ID
from gateway.core.json_object import JsonObject

_HEADINGS = ("limit", "of", "used", "held", "left", "amount", "granted", "resets at", "runs out at")
_GRANTS_HEADINGS = ("id", "limit", "of", "amount", "until", "granted by", "why")


@click.group(invoke_without_command=True, epilog="Example: gateway limits --team search")
@config_option
@demo_option
@click.option("--team", metavar="TEAM", help="Only limits that apply to this team.")
@json_option
@click.pass_context
def limits(context: click.Context, config: str, demo: str | None, team: str | None, as_json: bool) -> None:
    """Show each limit's use, what is left, when it resets.

    Held is what is reserved for requests in flight. Granted is how much of the amount comes from grants. A quota runs
    out at the time shown if it is used at the present pace. Times are in UTC. Limits on single end users are not
    listed, because their names are not known in advance.
    """
    if context.invoked_subcommand is not None:
        refuse_options_of_group(context)
        return
    report = report_or_end("limits", settings_or_end(config, demo), {"team": team})
    if as_json:
        show_json(report)
    elif report["data"]:
        click.echo(table(_HEADINGS, [_row(limit) for limit in report["data"]]))
    else:
        click.echo("There are no limits.")


@limits.command(epilog="Example: gateway limits grant --team search --limit tokens-per-day --amount 500_000 --until 3d"
                       " --why 'product launch'")  # fmt: skip
@config_option
@click.option("--team", metavar="TEAM", help="The team that has the limit. With none of these: the organisation.")
@click.option("--key", metavar="ID", help="The key that has the limit.")
@click.option("--user", metavar="USER", help="The end user of the team that has the limit.")
@click.option("--model", metavar="MODEL", help="The model that has the limit.")
@click.option("--limit", metavar="NAME", required=True, help="The limit's name, as `gateway limits` shows it.")
@click.option("--amount", metavar="N", required=True, help="The amount to add, in the limit's unit.")
@click.option("--until", metavar="WHEN", required=True, help="3d, 2026-12-01 (its first moment) or a time.")
@click.option("--why", metavar="TEXT", required=True, help="The reason, for the audit.")
@json_option
def grant(config: str, as_json: bool, **given: str | None) -> None:
    """Raise a limit for a while.

    A grant counts at once, in every gateway, and ends by itself. The bucket of a rate grows by the same amount. Grants
    of one limit add up.
    """
    body: JsonObject = {name: text for name, text in given.items() if text is not None}
    body["amount"] = body["amount"].replace("_", "")
    made = ask_once(config, "POST", "grants", body=body)
    if as_json:
        show_json(made)
    else:
        click.echo(table(_GRANTS_HEADINGS, [_grant_row(made)]))


@limits.command(epilog="Example: gateway limits grants --team search")
@config_option
@click.option("--team", metavar="TEAM", help="Only grants to this team, its keys and its users.")
@csv_option
@json_option
def grants(config: str, team: str | None, as_csv: bool, as_json: bool) -> None:
    """List the grants that have not ended."""
    refuse_both(as_csv=as_csv, as_json=as_json)
    report = ask_once(config, "GET", "grants", query={"team": team} if team else {})
    rows = [_grant_row(each) for each in report["data"]]
    show_listing(report, _GRANTS_HEADINGS, rows, as_csv=as_csv, as_json=as_json, empty="There are no grants.")


@limits.command(epilog="Example: gateway limits withdraw 3f2a9c0b71de")
@config_option
@click.argument("grant_id", metavar="ID")
@json_option
def withdraw(config: str, grant_id: str, as_json: bool) -> None:
    """End a grant now."""
    if not re.fullmatch(GRANT_ID, grant_id):
        raise click.BadParameter("must be the id of a grant, as `gateway limits grants` shows them.", param_hint="ID")
    ended = ask_once(config, "DELETE", f"grants/{grant_id}")
    if as_json:
        show_json(ended)
    else:
        click.echo(f"The grant {grant_id} has ended. {ended['limit']} has its own amount again, and what other"
                   " grants add.")  # fmt: skip


def _row(limit: dict[str, Any]) -> Row:
    name = limit["name"] + (" (shadow)" if limit["mode"] == "shadow" else "")
    figures = [limit[each] for each in ("used", "held", "left", "amount")]
    times = [time_cell(limit[each]) for each in ("resets_at", "runs_out_at")]
    whose = f"{limit['scope']} {limit['subject']}".rstrip()
    return [name, whose, *figures, limit.get("granted", ""), *times]


def _grant_row(grant: JsonObject) -> Row:
    subject = f"{grant['scope']} {grant['subject']}".rstrip()
    figures = [grant["amount"], time_cell(grant["until"])]
    return [grant["id"], grant["limit"], subject, *figures, grant["granted_by"], grant["why"]]
