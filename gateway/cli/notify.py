"""`gateway notify`: tests the receivers of notifications, and lists what waits and what failed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from gateway.app.snapshot_builder import snapshot
from gateway.cli.administration import ask_once
from gateway.cli.config_option import config_option
from gateway.cli.configuration import demo_option, load_or_end
from gateway.cli.output import Row, json_option, show_json, table, time_cell
from gateway.cli.store_access import unlogged
from gateway.core.json_object import JsonObject
from gateway.core.notifications import EventType, NotificationChannel
from gateway.notifications.messages import notification
from gateway.notifications.sending import NotificationSender, Sent
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.turn import Turn
from gateway.upstream.client import HttpClient

_HEADINGS = ("channel", "format", "result")
_LIST_HEADINGS = ("state", "channel", "type", "happened", "next try", "last try", "problem", "message")


@click.group(epilog="Example: gateway notify test")
def notify() -> None:
    """Test the receivers of notifications, and see what fails."""


@notify.command(epilog="Example: gateway notify test --channel slack-1")
@config_option
@click.option("--channel", metavar="NAME", help="Only this receiver.")
@json_option
def test(config: str, channel: str | None, as_json: bool) -> None:
    """Send a test to each receiver of `notify`, once. Exit status 1 if one does not accept it.

    No gateway needs to run.
    """
    known = snapshot(load_or_end(config).settings).channels
    asked = [each for each in known if channel in (None, each.name)]
    if not asked:
        names = ", ".join(each.name for each in known)
        if not names:
            raise click.UsageError(
                "No receiver is configured. Add one to `notify`: docs/notifications.md has an example."
            )
        raise click.UsageError(f"There is no receiver {channel!r}; there are {names}.")
    results = asyncio.run(_send(asked))
    if as_json:
        show_json({"data": [_object(each, sent) for each, sent in zip(asked, results, strict=True)], "next": None})
    else:
        rows = [(each.name, each.format, sent.problem or "sent") for each, sent in zip(asked, results, strict=True)]
        click.echo(table(_HEADINGS, rows))
    if any(sent.problem for sent in results):
        sys.exit(1)


@notify.command("list", epilog="Example: gateway notify list")
@config_option
@demo_option
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 100), default=20, show_default=True, help="The most of each kind."
)
@json_option
def list_notifications(config: str, demo: str | None, limit: int, as_json: bool) -> None:
    """Show the notifications that wait, and the last attempts.

    First what waits, the next to be tried first: "failing" was tried, and "problem" says why it failed. Then what was
    delivered ("sent"), given up after three days, or parked because it cannot be delivered.
    Times are in UTC.
    """
    found = ask_once(config, "GET", "notifications", {"limit": str(limit)}, demo=demo)
    if as_json:
        show_json(found)
        return
    if found["data"]:
        click.echo(table(_LIST_HEADINGS, [_listed(each) for each in found["data"]]))
    else:
        click.echo("Nothing waits, and nothing was delivered lately.")
    hidden = found["waiting"] - sum(each["due_at"] is not None for each in found["data"])
    if hidden > 0:
        click.echo(f"{hidden:,} more wait.", err=True)


def _listed(each: JsonObject) -> Row:
    times = [time_cell(each[name])[:19] for name in ("at", "due_at", "tried_at")]
    message = each["message"].replace("\n", " ")
    return [each["state"], each["channel"] or "", each["type"] or "", *times, each["problem"] or "", message]


def _object(channel: NotificationChannel, sent: Sent) -> dict[str, Any]:
    return {"channel": channel.name, "format": channel.format, "problem": sent.problem or None}


async def _send(channels: Sequence[NotificationChannel]) -> list[Sent]:
    client = HttpClient(BackgroundTasks(unlogged), Turn())
    now_ms = time.time_ns() // 1_000_000
    sender = NotificationSender(client)
    try:
        messages = [
            notification(each, EventType.TEST, {"channel": each.name}, str(now_ms), now_ms) for each in channels
        ]
        sending = [sender.send(each, to, now_ms // 1000) for each, to in zip(messages, channels, strict=True)]
        return list(await asyncio.gather(*sending))
    finally:
        await client.close()
