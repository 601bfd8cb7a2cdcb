"""How commands reach what the store keeps: the shared store itself, or the running gateway that has it in memory."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import click

from gateway.cli.admin_client import AdminClient, AdminUnavailable
from gateway.core.errors import StoreUnavailable
from gateway.identity.in_redis import RedisKeyStore
from gateway.runtime.tasks import BackgroundTasks
from gateway.settings.models import Settings
from gateway.store.in_redis import RedisOptions, RedisStore

_TIMEOUT_S = 5.0
"""For one call: no request waits for it, and an operator's machine may be far from the store."""


class SharedStore(NamedTuple):
    store: RedisStore
    keys: RedisKeyStore

    @property
    def trouble(self) -> str:
        """A sentence that says why it does not answer."""
        why = self.store.trouble or "does not answer"
        return f"The store {why.rstrip('.')}."  # What the system says often ends in a full stop.


@asynccontextmanager
async def shared_store(settings: Settings) -> AsyncIterator[SharedStore]:
    """For one command. Ends it where the store does not answer."""
    options = RedisOptions(settings.store.url, secrets.token_hex(6), settings.store.prefix, _TIMEOUT_S)
    store = RedisStore(options, settings.timezone)
    keys = RedisKeyStore(store.client.background, settings.store.prefix, BackgroundTasks(unlogged))
    shared = SharedStore(store, keys)
    try:
        yield shared
    except StoreUnavailable as error:
        message = f"{shared.trouble} Is store.url right?" if store.trouble else error.message
        raise click.ClickException(message) from None
    finally:
        await keys.close()
        await store.close()


def gateway_with_store(settings: Settings) -> AdminClient:
    """Of the running gateway that keeps everything in memory. Raises AdminUnavailable."""
    if not settings.admin.secret:
        raise AdminUnavailable(
            "store.url is memory://, so only the running gateway has this. Set admin.token, so that it can be asked, or"
            " share the store: store.url: redis://…"
        )
    click.echo(f"The store is in the running gateway's memory: asking it at {settings.admin.listen}.", err=True)
    return AdminClient.for_settings(settings)


def unlogged(_what: str, _error: BaseException) -> None:
    """The command ends with the error that it gets."""
