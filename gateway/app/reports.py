"""Reports for the command line: from the shared store, or from the running gateway that keeps it in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from gateway.app.running import NotAnswered, ask_running
from gateway.app.snapshot_builder import snapshot
from gateway.core.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.in_redis import RedisOptions, RedisStore
from gateway.store.usage_report import REPORTS

_PATIENCE_S = 5.0
"""For one call: nobody's request waits for it, and an operator's machine may be far from the store."""


class NoReport(Exception):
    """There is none to be had; the text says why, and what to do."""


def lives_in_memory(settings: Settings) -> bool:
    return settings.store.url == "memory://"


async def report(page: str, settings: Settings, query: Mapping[str, str]) -> dict[str, Any]:
    """One of REPORTS. Raises FieldInvalid, NoReport."""
    if lives_in_memory(settings):
        return await _of_running(page, settings, query)
    options = RedisOptions(settings.store.url, secrets.token_hex(6), settings.store.prefix, _PATIENCE_S)
    store = RedisStore(options, settings.timezone)
    try:
        return await REPORTS[page](store, snapshot(settings), query)
    except StoreUnavailable:
        trouble = (store.trouble or "does not answer").rstrip(".")  # What the system says often ends in a full stop.
        raise NoReport(f"The store {trouble}. Is store.url right?") from None
    finally:
        await store.close()


async def _of_running(page: str, settings: Settings, query: Mapping[str, str]) -> dict[str, Any]:
    if not settings.admin.secret:
        raise NoReport(
            "store.url is memory://, so only the running gateway knows. Set admin.token, so that it can be asked, or"
            " share the counters: store.url: redis://…"
        )
    if not settings.admin.listen.port:
        raise NoReport("admin.listen has port 0, so the running gateway cannot be found. Give it a port of its own.")
    try:
        return await asyncio.to_thread(ask_running, settings.admin.listen, settings.admin.secret, page, query)
    except NotAnswered as reason:
        raise NoReport(str(reason)) from None
