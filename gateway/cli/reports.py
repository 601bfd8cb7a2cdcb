"""The reports of `gateway usage` and `gateway limits`: from the shared store, or from the running gateway if that keeps
everything in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import partial

import click

from gateway.app.snapshot_builder import snapshot
from gateway.cli.admin_client import refusals_in_one_line
from gateway.cli.administration import command_actor
from gateway.cli.store_access import SharedStore, gateway_with_store, shared_store
from gateway.core.json_object import JsonObject
from gateway.identity.directory import with_stored_keys
from gateway.settings.models import Settings
from gateway.store.operator_reports import REPORTS
from gateway.web.month_closing import ClosingNotNoted, close_and_note


def report_or_end(
    page: str, settings: Settings, query: Mapping[str, str | None], *, closes_month: bool = False
) -> JsonObject:
    """The report that the gateway of these settings has; of the month that it is of, once that is closed, where it
    `closes_month`. Ends the command where there is none."""
    given = {name: text for name, text in query.items() if text}
    with refusals_in_one_line():
        if settings.store.is_in_memory:
            return _of_running(page, settings, given, closes_month)
        return asyncio.run(_of_store(page, settings, given, closes_month))


def _of_running(page: str, settings: Settings, query: Mapping[str, str], closes_month: bool) -> JsonObject:
    """Raises FieldInvalid, AdminUnavailable."""
    client = gateway_with_store(settings)
    report = client.get(page, query)
    if closes_month:
        # Only now: a question that has no answer closes nothing.
        client.post("usage/close", {"month": query["month"]})
        report = client.get(page, query)
    return report


async def _of_store(page: str, settings: Settings, query: Mapping[str, str], closes_month: bool) -> JsonObject:
    """Raises FieldInvalid; ends the command where the store does not answer."""
    async with shared_store(settings) as shared:
        known = snapshot(settings)
        if page == "limits":
            known = await with_stored_keys(known, shared.keys, query.get("team", ""))
        ask = partial(REPORTS[page], shared.store, known, query, datetime.now(settings.timezone).date())
        report = await ask()
        if closes_month:
            await _close_month(shared, query["month"])
            report = await ask()
        return report


async def _close_month(shared: SharedStore, month: str) -> None:
    """Raises FieldInvalid, StoreUnavailable."""
    try:
        await close_and_note(shared.store, {"month": month}, command_actor(), partial(shared.keys.write, ()))
    except ClosingNotNoted as error:
        raise click.ClickException(f"{shared.trouble} {error.consequence}") from None
