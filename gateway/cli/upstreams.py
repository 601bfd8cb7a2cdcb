"""`gateway upstreams`: shows the health of each model server in the running gateway, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from gateway.cli.admin_client import AdminClient, refusals_in_one_line
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option, settings_or_end
from gateway.cli.output import Row, json_option, show_json, table, time_cell

_HEADINGS = ("upstream", "is", "in flight", "model", "circuit", "share", "next try at", "opened at", "because of")


@click.command(epilog="Example: gateway upstreams")
@config_option
@demo_option
@json_option
def upstreams(config: str, demo: str | None, as_json: bool) -> None:
    """Show each model server's health, and the reasons for it.

    The command asks the running gateway at its admin listener. A row is one model of one upstream; models that no
    request has asked for are not listed. Each worker decides for itself: a row names the workers whose state it shows.
    """
    settings = settings_or_end(config, demo)
    with refusals_in_one_line():
        report = AdminClient.for_settings(settings).get("upstreams", {})
    if as_json:
        show_json(report)
    elif report["data"]:
        click.echo(table(_HEADINGS, [row for upstream in report["data"] for row in rows_of(upstream)]))
    else:
        click.echo("There are no upstreams.")


def rows_of(upstream: dict[str, Any]) -> Iterator[Row]:
    """A row for each circuit; one without them where no request has gone there yet."""
    begin = (upstream["name"], "up" if upstream["up"] else "down", upstream["in_flight"])
    failed = [f"failed checks: {_counted(upstream['failed_checks'])}"] if upstream["failed_checks"] else []
    if not upstream["circuits"]:
        yield (*begin, "", "", "", "", "", *(failed or [""]))
    for circuit in upstream["circuits"]:
        state = circuit["state"] + (f" for key {circuit['key']}" if circuit["key"] else "")
        if workers := circuit.get("workers"):
            state += f" in worker {', '.join(map(str, workers))}"
        times = [time_cell(circuit["next_try_at"]), time_cell(circuit["opened_at"])]
        why = [*failed, *([_counted(circuit["why"])] if circuit["why"] else [])]
        why += [f"team {each['team']} waits until {time_cell(each['until'])}" for each in circuit["cooling"]]
        yield (*begin, circuit["model"], state, f"{circuit['share']:.0%}", *times, "; ".join(why))


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} ({number})" for reason, number in reasons.items())
