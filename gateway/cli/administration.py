"""Sends the requests of commands about keys, grants and single requests: to the shared store, or to the running gateway
if that keeps everything in memory.
"""

from __future__ import annotations

import asyncio
import getpass
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import msgspec

from gateway.app.snapshot_builder import snapshot
from gateway.cli.admin_client import refusals_in_one_line
from gateway.cli.configuration import settings_or_end
from gateway.cli.store_access import gateway_with_store, shared_store
from gateway.core.json_object import JsonObject
from gateway.identity.administration import KeyAdministration
from gateway.identity.contract import AuditEntry
from gateway.identity.grants import GrantAdministration
from gateway.identity.key_listing import PAGE_MAX
from gateway.identity.requests import AdministrationRequest
from gateway.notifications.history import LIST as NOTIFICATIONS
from gateway.notifications.history import NotificationList
from gateway.runtime.system_clock import SystemClock
from gateway.settings.models import Settings
from gateway.store.operator_reports import keys_used_since
from gateway.web.admin_losses import LIST as LOSSES
from gateway.web.admin_losses import LossAdministration
from gateway.web.admin_requests import LIST, RequestAdministration

Ask = Callable[..., Awaitable[JsonObject]]
"""`ask(method, path, query=…, body=…)`, as over HTTP."""

Result = TypeVar("Result")


def administer(config: str, work: Callable[[Ask], Awaitable[Result]], demo: str | None = None) -> Result:
    """What `work` gives, once it has asked what it needs. Ends the command where that cannot be done."""
    settings = settings_or_end(config, demo)
    with refusals_in_one_line():
        return asyncio.run(_run(settings, work))


def ask_once(
    config: str,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: JsonObject | None = None,
    demo: str | None = None,
) -> JsonObject:
    async def work(ask: Ask) -> JsonObject:
        return await ask(method, path, query=query, body=body)

    return administer(config, work, demo)


def all_pages(config: str, path: str, query: Mapping[str, str], most: int | None = None) -> list[JsonObject]:
    """What a list has on all of its pages, or the first so many."""

    async def work(ask: Ask) -> list[JsonObject]:
        found: list[JsonObject] = []
        cursor = ""
        while most is None or len(found) < most:
            wanted = PAGE_MAX if most is None else min(PAGE_MAX, most - len(found))
            more = {"cursor": cursor} if cursor else {}
            page = await ask("GET", path, query={**query, **more, "limit": str(wanted)})
            found += page["data"]
            cursor = page["next"] or ""
            if not cursor:
                break
        return found

    return administer(config, work)


async def _run(settings: Settings, work: Callable[[Ask], Awaitable[Result]]) -> Result:
    reach = _of_running if settings.store.is_in_memory else _of_store
    async with reach(settings) as answer:

        async def ask(
            method: str, path: str, query: Mapping[str, str] | None = None, body: JsonObject | None = None
        ) -> JsonObject:
            packed = b"" if body is None else msgspec.json.encode(body)
            return await answer(AdministrationRequest(method, path, query or {}, packed, command_actor()))

        return await work(ask)


Answer = Callable[[AdministrationRequest], Awaitable[JsonObject]]


@asynccontextmanager
async def _of_running(settings: Settings) -> AsyncIterator[Answer]:
    client = gateway_with_store(settings)

    async def answer(request: AdministrationRequest) -> JsonObject:
        return client.administer(request)

    yield answer


@asynccontextmanager
async def _of_store(settings: Settings) -> AsyncIterator[Answer]:
    """Ends the command where the store does not answer."""
    async with shared_store(settings) as (store, keys):
        built = snapshot(settings)
        used_since = partial(keys_used_since, store)
        about_keys = KeyAdministration(keys, lambda: built, settings.timezone, _unlogged_change, used_since)
        about_grants = GrantAdministration(keys, store, lambda: built, settings.timezone, _unlogged_change)
        about_requests = RequestAdministration(store, lambda: built.teams, about_keys.note)
        store.notifications.follow(built.teams, {model.name for model in built.models.values()})
        parts: dict[str, Answer] = {
            NOTIFICATIONS: NotificationList(store.notifications).answer,
            "keys": about_keys.answer,
            "audit": about_keys.answer,
            "grants": about_grants.answer,
            LIST: about_requests.answer,
            LOSSES: LossAdministration(store.losses, store, SystemClock()).answer,
        }

        async def answer(request: AdministrationRequest) -> JsonObject:
            return await parts[request.path.partition("/")[0]](request)

        yield answer


def command_actor() -> str:
    """Who uses the command line, for the audit."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "an unknown user"
    return f"the command line, {user}@{socket.gethostname()}"


def _unlogged_change(_entry: AuditEntry) -> None:
    """The audit in the store has it."""
