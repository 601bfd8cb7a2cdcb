"""`gateway notify`: whether notifications reach their receivers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from gateway.app.snapshot_builder import snapshot
from gateway.cli.administration import unlogged
from gateway.cli.configuration import config_option, load_or_end
from gateway.cli.output import json_option, show_json, table
from gateway.core.notifications import EventType, NotificationChannel
from gateway.notifications.messages import notification
from gateway.notifications.sending import NotificationSender, Sent
from gateway.runtime.tasks import BackgroundTasks
from gateway.upstream.client import HttpClient

_HEADINGS = ("channel", "format", "result")


@click.group(epilog="Example: gateway notify test")
def notify() -> None:
    """Try the receivers of notifications."""


@notify.command(epilog="Example: gateway notify test --channel slack-1")
@config_option
@click.option("--channel", metavar="NAME", help="Only this receiver.")
@json_option
def test(config: str, channel: str | None, as_json: bool) -> None:
    """Send a test to each receiver of `notify`, once. Exit status 1 where one does not take it.

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


def _object(channel: NotificationChannel, sent: Sent) -> dict[str, Any]:
    return {"channel": channel.name, "format": channel.format, "problem": sent.problem or None}


async def _send(channels: Sequence[NotificationChannel]) -> list[Sent]:
    client = HttpClient(BackgroundTasks(unlogged))
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
