"""Small requests of the gateway's own to an upstream, and a reader of their answers."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import UpstreamAuthFailed, UpstreamBroke, UpstreamUnreachable
from gateway.core.header_rules import HeaderLines
from gateway.core.snapshot import Upstream
from gateway.upstream.contract import UpstreamClient, UpstreamRequest

MAX_BYTES = 4 * 1024 * 1024
"""OpenRouter's list of models, among the longest there are, is about a tenth of this."""


async def fetch(client: UpstreamClient, upstream: Upstream, path: str) -> tuple[int, bytes]:
    """GET `path` under the upstream's base URL: status and body. Raises UpstreamUnreachable for more than
    MAX_BYTES, and what `send` and `finished` raise."""
    response = await client.send(upstream, UpstreamRequest(path=path, headers=HeaderLines(), body=b"", method="GET"))
    body = bytearray()

    def take(piece: bytes) -> None:
        body.extend(piece)
        if len(body) > MAX_BYTES:
            response.abandon()

    try:
        response.deliver_to(take)
        await response.finished()
    except UpstreamBroke:
        if len(body) > MAX_BYTES:
            asked = _asked(upstream, path)
            raise UpstreamUnreachable(f"{asked} was answered with more than {MAX_BYTES} bytes.") from None
        raise
    finally:
        response.abandon()
    return response.status, bytes(body)


async def fetch_json(client: UpstreamClient, upstream: Upstream, path: str) -> Any:
    """As `fetch`, decoded. Raises UpstreamAuthFailed for 401 and 403, too, and UpstreamUnreachable for
    another status than 200 or what is not JSON."""
    status, body = await fetch(client, upstream, path)
    asked = _asked(upstream, path)
    if status in {401, 403}:
        raise UpstreamAuthFailed(f"{asked} was answered with {status}: check its api_key.")
    if status != 200:
        raise UpstreamUnreachable(f"{asked} was answered with {status}.")
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise UpstreamUnreachable(f"{asked} was answered with something that is not JSON.") from None


async def models_served(client: UpstreamClient, upstream: Upstream) -> list[str]:
    """The ids of the models that the upstream lists, in its order, without entries that have none. Raises as
    `fetch_json` does."""
    listing = await fetch_json(client, upstream, "/models")
    entries = listing.get("data") if isinstance(listing, dict) else None
    named = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    ids = [name for name in named if isinstance(name, str)]
    if not ids and entries != []:
        raise UpstreamUnreachable(f"Upstream {upstream.name!r} lists its models in a shape unknown here.")
    return ids


def _asked(upstream: Upstream, path: str) -> str:
    return f"GET {path} of upstream {upstream.name!r}"
