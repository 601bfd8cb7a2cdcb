"""A gateway without a file: in front of the demo upstream, or of a server that somebody names."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gateway.app.snapshot_builder import snapshot
from gateway.core.errors import UpstreamError, UpstreamUnreachable
from gateway.demo.script import DemoScript
from gateway.demo.server import DemoUpstream
from gateway.runtime.tasks import BackgroundTasks
from gateway.settings import Settings, demo_settings
from gateway.settings.types import is_model_name
from gateway.upstream.client import HttpClient
from gateway.upstream.fetch import models_served

_TOKENS_PER_SECOND = 40
"""Of the demo upstream: fast enough to please, slow enough to be seen streaming."""


@asynccontextmanager
async def demo(key: str, listen: str) -> AsyncIterator[Settings]:
    """Settings for a gateway in front of the built-in upstream, which runs as long as the context."""
    async with DemoUpstream(DemoScript(chunk_delay_ms=1000 / _TOKENS_PER_SECOND)) as upstream:
        yield demo_settings(key, upstream.base_url, **_alone(listen))


@asynccontextmanager
async def in_front_of(url: str, environ: Mapping[str, str], key: str, listen: str) -> AsyncIterator[Settings]:
    """Settings for a gateway in front of that server, whose credential and proxy are in the environment, with every
    model that it lists; only what no request could name, an empty or endless id or one with control characters, is left
    out. Raises SettingsInvalid for a URL that cannot be one, and an UpstreamError where the server cannot be asked, or
    lists none."""
    reached: dict[str, Any] = {"api_key": environ.get("UPSTREAM_API_KEY", ""), "environ": environ, **_alone(listen)}
    unasked = demo_settings(key, url, **reached)
    models = await _models_of(unasked, url)
    yield demo_settings(key, url, models=models, **reached)


async def _models_of(settings: Settings, url: str) -> list[str]:
    client = HttpClient(BackgroundTasks(lambda _doing, error: traceback.print_exception(error)))
    try:
        listed = await models_served(client, snapshot(settings).upstreams()[0])
    except UpstreamError as error:
        # Whoever gave the URL knows the server by that, not by the name that it has in the settings.
        raise UpstreamUnreachable(f"{url} is not served: {error.message}") from None
    finally:
        await client.close()
    models = [model for model in listed if is_model_name(model)]
    if not models:
        raise UpstreamUnreachable(f"{url} is not served: it lists no models.")
    return models


def _alone(listen: str) -> dict[str, Any]:
    """Settings for a gateway that one person tries: Ctrl-C need not wait for load balancers to notice,
    and where clients get any free port, operators do, too."""
    admin = {"admin": {"listen": "127.0.0.1:0"}} if listen.endswith(":0") else {}
    return {"listen": listen, "drain": {"delay": "0s"}, **admin}
