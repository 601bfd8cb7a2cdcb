"""`gateway explain`: what happened to one request, in plain sentences."""

from __future__ import annotations

from urllib.parse import quote

import click

from gateway.cli.administration import ask_once
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option
from gateway.cli.output import figure, json_option, show_json
from gateway.core.json_object import JsonObject


@click.command(epilog="Example: gateway explain 4f0c2a9e51d37b860000002a")
@config_option
@demo_option
@click.argument("request_id", metavar="REQUEST_ID")
@json_option
def explain(config: str, demo: str | None, request_id: str, as_json: bool) -> None:
    """Explain what happened to one request.

    REQUEST_ID is the x-request-id of its answer. Why it was refused or failed comes first, then who asked, each limit
    with its figures at the decision, the upstreams that were tried, what it cost, and how long it took. The setting
    'record' says which requests are kept: those that failed, for a day. A request in flight is shown as it is now.
    """
    found = ask_once(config, "GET", f"requests/{quote(request_id, safe='')}", demo=demo)
    if as_json:
        show_json(found)
        return
    paragraphs = [_in_flight(request) for request in found["in_flight"]]
    paragraphs += [record["explanation"] for record in found["records"]]
    if len(paragraphs) > 1:
        click.echo(f"{len(paragraphs)} requests have this id, which clients may choose. The newest is first.\n")
    click.echo("\n\n".join("\n".join(map(figure, sentences)) for sentences in paragraphs))
    if found["problem"]:
        click.echo(found["problem"], err=True)


def _in_flight(request: JsonObject) -> list[str]:
    state = {"arriving": "has not been admitted yet", "waiting": "waits for the first byte of its upstream"}
    progress = state.get(request["state"], f"is being answered, about {request['output_tokens']:,} tokens so far")
    upstream = f" The upstream is {request['upstream']}." if request["upstream"] else ""
    return [
        f"The request is in flight: it began {request['age_s']:,.1f} s ago and {progress}.{upstream}",
        f"Key {request['key_name']} ({request['key']}) of team {request['team']} asks for {request['model']}.",
        f"It is served by {request['process']}. 'gateway requests cancel {request['id']}' ends it.",
    ]
