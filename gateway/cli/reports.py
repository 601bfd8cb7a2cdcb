"""Reports for `gateway usage` and `gateway limits`: from the shared store, or from the running gateway that keeps it
in memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from gateway.app.snapshot_builder import snapshot
from gateway.cli.admin_client import AdminClient, AdminUnavailable
from gateway.cli.configuration import load_or_end
from gateway.core.errors import FieldInvalid, StoreUnavailable
from gateway.settings import Settings
from gateway.store.in_redis import RedisOptions, RedisStore
from gateway.store.usage_report import REPORTS, close_month

_TIMEOUT_S = 5.0
"""For one call: no request waits for it, and an operator's machine may be far from the store."""


def report_or_end(page: str, config: str, query: Mapping[str, str | None]) -> dict[str, Any]:
    """The report that this configuration's gateway has. Ends the command where there is none."""
    settings = load_or_end(config).settings
    given = {name: text for name, text in query.items() if text}
    with _ended_in_words():
        if settings.store.url == "memory://":
            return _running_gateway(settings).get(page, given)
        today = datetime.now(settings.timezone).date()
        return asyncio.run(_in_store(settings, lambda store: REPORTS[page](store, snapshot(settings), given, today)))


def close_or_end(config: str, month: str) -> None:
    """Close a month in the ledger that this configuration's gateway has. Ends the command where that fails."""
    settings = load_or_end(config).settings
    with _ended_in_words():
        if settings.store.url == "memory://":
            _running_gateway(settings).post("usage/close", {"month": month})
        else:
            asyncio.run(_in_store(settings, lambda store: close_month(store, {"month": month})))


@contextmanager
def _ended_in_words() -> Iterator[None]:
    try:
        yield
    except FieldInvalid as invalid:
        raise click.UsageError(invalid.message) from None
    except AdminUnavailable as reason:
        raise click.ClickException(str(reason)) from None


def _running_gateway(settings: Settings) -> AdminClient:
    """Raises AdminUnavailable."""
    if not settings.admin.secret:
        raise AdminUnavailable(
            "store.url is memory://, so only the running gateway knows. Set admin.token, so that it can be asked, or"
            " share the counters: store.url: redis://…"
        )
    click.echo(f"memory:// is in the running gateway: asking it at {settings.admin.listen}.", err=True)
    return AdminClient.for_settings(settings)


async def _in_store(settings: Settings, ask: Callable[[RedisStore], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Raises FieldInvalid; ends the command where the store does not answer."""
    options = RedisOptions(settings.store.url, secrets.token_hex(6), settings.store.prefix, _TIMEOUT_S)
    store = RedisStore(options, settings.timezone)
    try:
        return await ask(store)
    except StoreUnavailable:
        trouble = (store.trouble or "does not answer").rstrip(".")  # What the system says often ends in a full stop.
        raise click.ClickException(f"The store {trouble}. Is store.url right?") from None
    finally:
        await store.close()
