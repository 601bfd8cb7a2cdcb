"""The reports of `gateway usage` and `gateway limits`: from the shared store, or from the running gateway if that keeps
everything in memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import click

from gateway.app.snapshot_builder import snapshot
from gateway.cli.admin_client import AdminClient, AdminUnavailable
from gateway.cli.administration import command_actor, unlogged
from gateway.core.errors import FieldInvalid, StoreUnavailable
from gateway.identity.directory import with_stored_keys
from gateway.identity.in_redis import RedisKeyStore
from gateway.runtime.tasks import BackgroundTasks
from gateway.settings.models import Settings
from gateway.store.in_redis import RedisOptions, RedisStore
from gateway.store.operator_reports import REPORTS
from gateway.web.month_closing import close_and_note, not_noted

_TIMEOUT_S = 5.0
"""For one call: no request waits for it, and an operator's machine may be far from the store."""


def report_or_end(
    page: str, settings: Settings, query: Mapping[str, str | None], *, closes_month: bool = False
) -> dict[str, Any]:
    """The report that the gateway of these settings has; of the month that it is of, once that is closed, where it
    `closes_month`. Ends the command where there is none."""
    given = {name: text for name, text in query.items() if text}
    try:
        if settings.store.url == "memory://":
            return _of_running(page, settings, given, closes_month)
        return asyncio.run(_of_store(page, settings, given, closes_month))
    except FieldInvalid as invalid:
        raise click.UsageError(invalid.message) from None
    except AdminUnavailable as reason:
        raise click.ClickException(str(reason)) from None


def _of_running(page: str, settings: Settings, query: Mapping[str, str], closes_month: bool) -> dict[str, Any]:
    """Raises FieldInvalid, AdminUnavailable."""
    if not settings.admin.secret:
        raise AdminUnavailable(
            "store.url is memory://, so only the running gateway has these figures. Set admin.token, so that it"
            " can be asked, or share them: store.url: redis://…"
        )
    click.echo(f"The store is in the running gateway's memory: asking it at {settings.admin.listen}.", err=True)
    client = AdminClient.for_settings(settings)
    report = client.get(page, query)
    if closes_month:
        # Only now: a question that has no answer closes nothing.
        client.post("usage/close", {"month": query["month"]})
        report = client.get(page, query)
    return report


async def _of_store(page: str, settings: Settings, query: Mapping[str, str], closes_month: bool) -> dict[str, Any]:
    """Raises FieldInvalid; ends the command where the store does not answer."""
    options = RedisOptions(settings.store.url, secrets.token_hex(6), settings.store.prefix, _TIMEOUT_S)
    store = RedisStore(options, settings.timezone)
    keys = RedisKeyStore(store.client.background, settings.store.prefix, BackgroundTasks(unlogged))
    try:
        known = snapshot(settings)
        if page == "limits":
            known = await with_stored_keys(known, keys, query.get("team", ""))
        ask = partial(REPORTS[page], store, known, query, datetime.now(settings.timezone).date())
        report = await ask()
        if closes_month:
            note = partial(keys.write, ())
            await close_and_note(store, {"month": query["month"]}, command_actor(), note)
            report = await ask()
    except StoreUnavailable as error:
        trouble = (store.trouble or "does not answer").rstrip(".")  # What the system says often ends in a full stop.
        closed = not_noted(query.get("month", ""))
        end = closed if error.message.endswith(closed) else "Is store.url right?"
        raise click.ClickException(f"The store {trouble}. {end}") from None
    finally:
        await keys.close()
        await store.close()
    return report
