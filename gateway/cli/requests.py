"""`gateway requests`: lists the requests in flight in all processes of all gateways of the store, and ends one."""

from __future__ import annotations

from urllib.parse import quote

import click

from gateway.cli.administration import ask_once
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option, refuse_options_of_group
from gateway.cli.output import Row, json_option, show_json, table, team_option
from gateway.core.json_object import JsonObject

HEADINGS = ("id", "team", "key", "model", "upstream", "state", "age", "tokens", "served by")


@click.group(epilog="Example: gateway requests --team search", invoke_without_command=True)
@config_option
@demo_option
@team_option
@json_option
@click.pass_context
def requests(context: click.Context, config: str, demo: str | None, team: str | None, as_json: bool) -> None:
    """Show the requests in flight, the oldest first.

    The command asks every process of every gateway that uses the store; with memory://, the running gateway. Tokens
    are an estimate of what the client has received; for an answer that is not streamed they are 0.
    """
    if context.invoked_subcommand is not None:
        refuse_options_of_group(context)
        return
    found = ask_once(config, "GET", "requests", {"team": team} if team else {}, demo=demo)
    if as_json:
        show_json(found)
        return
    if found["data"]:
        click.echo(table(HEADINGS, [request_row(request) for request in found["data"]]))
    else:
        click.echo(_nothing_in(found["processes"]))
    if found["total"] > len(found["data"]):
        click.echo(f"The oldest {len(found['data']):,} of {found['total']:,} are shown.", err=True)
    if found["problem"]:
        click.echo(found["problem"], err=True)


@requests.command(epilog="Example: gateway requests cancel 4f0c2a9e51d37b860000002a")
@config_option
@demo_option
@click.argument("request_id", metavar="REQUEST_ID")
@team_option
@json_option
def cancel(config: str, demo: str | None, request_id: str, team: str | None, as_json: bool) -> None:
    """End one request in flight.

    Its client gets an error, in a stream as its last event, and what was delivered is charged. Clients can choose
    their ids: every request with this id is ended, or with --team those of this team. The audit records who did it.
    """
    ended = ask_once(
        config, "DELETE", f"requests/{quote(request_id, safe='')}", {"team": team} if team else {}, demo=demo
    )
    if as_json:
        show_json(ended)
        return
    for request in ended["data"]:
        click.echo(
            f"Ended: {request['id']} of team {request['team']}, {request['age_s']:,.1f} s old,"
            f" about {request['output_tokens']:,} tokens delivered."
        )
    if ended["problem"]:
        click.echo(ended["problem"], err=True)


def request_row(request: JsonObject) -> Row:
    """One that the admin API lists, below HEADINGS."""
    return [
        request["id"],
        request["team"] or "",
        request["key_name"] or "",
        request["model"] or "",
        request["upstream"] or "",
        request["state"],
        f"{request['age_s']:,.1f} s",
        request["output_tokens"],
        request["process"],
    ]


def _nothing_in(processes: JsonObject) -> str:
    answered = processes["answered"]
    if not processes["asked"]:
        return "No gateway runs with this store, so no request is in flight."
    where = "the one process that serves" if answered == 1 else f"the {answered} processes that answered"
    return f"No request is in flight in {where}."
