"""A gateway without a file: in front of the demo upstream, or of a server of your own."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gateway.app.loaded_snapshot import LoadedSnapshot
from gateway.app.snapshot_builder import loaded_snapshot, snapshot
from gateway.core.errors import UpstreamError, UpstreamUnreachable
from gateway.demo.script import DemoScript
from gateway.demo.server import DemoUpstream
from gateway.identity.administration import new_key
from gateway.runtime.system_clock import SystemClock
from gateway.runtime.tasks import BackgroundTasks
from gateway.runtime.turn import Turn
from gateway.settings.demo_credentials import DEMO_ADMIN_TOKEN, DEMO_KEY, listens_on_loopback
from gateway.settings.loading import demo_settings
from gateway.settings.models import Settings
from gateway.settings.value_readers import is_model_name
from gateway.upstream.client import HttpClient
from gateway.upstream.fetch import models_served

_TOKENS_PER_SECOND = 40
"""The pace of the demo upstream: fast enough to please, slow enough to be seen streaming."""

PLAYED_MODELS = (
    *("claude-sonnet-5-5", "claude-haiku-5-5", "gemini-3.8-flash"),
    *("gemini-3-flash-preview", "gemini-3.1-flash-lite", "gemini-3.5-flash", "gemini-3.5-flash-lite"),
)
"""Further names of the demo's model: those in docs/clients/, and what these clients ask for in addition."""

_ADMIN_PORT_OFFSET = 1010
"""The distance from the port of clients to that of operators: 8080 to 9090."""

_LAST_PORT = 65_535


class Access(NamedTuple):
    """Where a gateway without a file listens, with its key and its admin token."""

    listen: str
    admin_listen: str
    key: str
    admin_token: str


def access(listen: str, admin_listen: str | None, environ: Mapping[str, str], *, in_front_of_demo: bool) -> Access:
    """The demo's own key and admin token if only this machine can reach the listeners, random ones otherwise. A real
    upstream costs money, so its key is random on this machine, too. The environment overrides both."""
    admin_listen = admin_listen or f"127.0.0.1:{_admin_port(listen.rpartition(':')[2])}"
    key = environ.get("INDUCTA_API_KEY") or (DEMO_KEY if in_front_of_demo and _is_local(listen) else new_key())
    token = environ.get("GATEWAY_ADMIN_TOKEN") or (DEMO_ADMIN_TOKEN if _is_local(admin_listen) else new_key())
    return Access(listen, admin_listen, key, token)


def _admin_port(port: str) -> int:
    """If clients get any free port, operators do, too."""
    number = int(port) if port.isdecimal() else 0
    return number + _ADMIN_PORT_OFFSET if 0 < number <= _LAST_PORT - _ADMIN_PORT_OFFSET else 0


def _is_local(listen: str) -> bool:
    return listens_on_loopback(listen.rpartition(":")[0].strip("[]"))


@asynccontextmanager
async def demo(access: Access) -> AsyncIterator[LoadedSnapshot]:
    """What a gateway serves in front of the built-in upstream, which runs as long as the context."""
    # An agent's own tools are left alone: with arguments that mean nothing to them, they would fail.
    async with DemoUpstream(DemoScript(chunk_delay_ms=1000 / _TOKENS_PER_SECOND, no_tools=True)) as upstream:
        yield _loaded(demo_settings(access.key, upstream.base_url, aliases=PLAYED_MODELS, **_alone(access)))


@asynccontextmanager
async def in_front_of(url: str, environ: Mapping[str, str], access: Access) -> AsyncIterator[LoadedSnapshot]:
    """What a gateway serves in front of that server, whose credential and proxy are in the environment, with every
    model that it lists; only what no request could name, an empty or endless id or one with control characters, is left
    out. Raises SettingsInvalid for a URL that cannot be one, and an UpstreamError where the server cannot be asked, or
    lists none."""
    reached: dict[str, Any] = {"api_key": environ.get("UPSTREAM_API_KEY", ""), "environ": environ, **_alone(access)}
    unasked = demo_settings(access.key, url, **reached)
    models = await _models_of(unasked, url)
    yield _loaded(demo_settings(access.key, url, models=models, **reached))


def _loaded(settings: Settings) -> LoadedSnapshot:
    return loaded_snapshot(settings, SystemClock().now_ms() // 1000)


async def _models_of(settings: Settings, url: str) -> list[str]:
    client = HttpClient(BackgroundTasks(lambda _doing, error: traceback.print_exception(error)), Turn())
    try:
        listed = await models_served(client, snapshot(settings).upstreams()[0])
    except UpstreamError as error:
        # The user who gave the URL knows the server by that, not by the name that it has in the settings.
        hint = "" if urlsplit(url).path.strip("/") else f" Most servers have their API at {url.rstrip('/')}/v1."
        raise UpstreamUnreachable(f"{url} is not served: {error.message}{hint}") from None
    finally:
        await client.close()
    models = [model for model in listed if is_model_name(model)]
    if not models:
        raise UpstreamUnreachable(f"{url} is not served: it lists no models.")
    return models


def _alone(access: Access) -> dict[str, Any]:
    """Settings of a gateway that one person tries: Ctrl-C need not wait for load balancers to notice."""
    admin = {"listen": access.admin_listen, "token": access.admin_token}
    return {"listen": access.listen, "admin": admin, "drain": {"delay": "0s"}}
