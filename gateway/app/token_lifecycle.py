"""The verifier of tokens of a running gateway: built when the configuration first names an identity provider, updated
with the configuration in force, closed with the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.core.clock import Clock
from gateway.core.errors import UpstreamUnreachable
from gateway.core.snapshot import Timeouts, Upstream
from gateway.core.tokens import TokenVerifier
from gateway.pipeline import Services
from gateway.runtime.tasks import BackgroundTasks
from gateway.telemetry.log import Log
from gateway.upstream.contract import UpstreamClient
from gateway.upstream.fetch import fetch

if TYPE_CHECKING:
    from gateway.identity.jwks import FetchResult, KeysPlace, SigningKeys
    from gateway.identity.jwt import JwtVerifier

FILE_EVERY_S = 10.0
"""How often a file of keys is read; a URL is asked less often."""

START_WAIT_S = 5.0
"""How long the start waits for an issuer that does not answer."""

_TIMEOUTS = Timeouts(connect=5.0, first_byte=5.0, idle=5.0, total=10.0)


class TokenLifecycle:
    """Gives `services` their verifier of tokens."""

    def __init__(
        self,
        services: Services,
        client: UpstreamClient,
        clock: Clock,
        log: Log,
        new_tasks: Callable[[], BackgroundTasks],
    ) -> None:
        self._services = services
        self._client = client
        self._clock = clock
        self._log = log
        self._new_tasks = new_tasks
        self._verifier: JwtVerifier | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Accept tokens. Waits a moment for the keys of every issuer, so that the first requests need not."""
        await self.follow()
        if self._verifier is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_WAIT_S):
                    await self._verifier.wait_fetched()

    async def follow(self) -> None:
        """Accept tokens by the snapshot in force."""
        async with self._one_at_a_time:
            snapshot = self._services.snapshot
            if self._verifier is None:
                if not snapshot.issuers:
                    return
                # A gateway without identity providers does without these 18 megabytes. The import takes 100 ms, in
                # which requests go on.
                jwt = await asyncio.to_thread(import_module, "gateway.identity.jwt")
                self._verifier = jwt.JwtVerifier(self._open_keys, self._clock)
            await self._verifier.keep(snapshot)
            in_use: TokenVerifier | None = self._verifier if snapshot.issuers else None
            self._services.tokens = in_use

    async def close(self) -> None:
        if self._verifier is not None:
            await self._verifier.close()

    def _open_keys(self, place: KeysPlace, on_removed: Callable[[], None]) -> SigningKeys:
        # The caller has imported it already.
        from gateway.identity.jwks import FetchPace, SigningKeys

        is_file = place.jwks.startswith("/")
        pace = FetchPace(every_s=FILE_EVERY_S) if is_file else FetchPace()
        return SigningKeys(place.jwks, self._fetch_of(place), self._new_tasks(), self._note_fetch, on_removed, pace)

    def _fetch_of(self, place: KeysPlace) -> Callable[[], Awaitable[bytes]]:
        if place.jwks.startswith("/"):
            return partial(asyncio.to_thread, Path(place.jwks).read_bytes)
        return partial(self._fetch_discovered if place.issuer else self._fetch, place)

    async def _fetch_discovered(self, place: KeysPlace) -> bytes:
        """Raises UpstreamError, ValueError."""
        from gateway.identity.jwks import place_in  # As above.

        return await self._fetch(place_in(await self._fetch(place), place))

    async def _fetch(self, place: KeysPlace) -> bytes:
        """Raises UpstreamError."""
        url = urlsplit(place.jwks)
        base = f"{url.scheme}://{url.netloc}{f'?{url.query}' if url.query else ''}"
        provider = Upstream(
            name=url.hostname or "", base_url=base, timeouts=_TIMEOUTS, max_connections=1, proxy=place.proxy
        )
        path = url.path or "/"
        status, body = await fetch(self._client, provider, path)
        if status != 200:
            raise UpstreamUnreachable(f"GET {path} of {provider.name} was answered with {status}")
        return body

    def _note_fetch(self, result: FetchResult) -> None:
        if result.problem:
            kept = "the keys that were fetched before stay valid" if result.kids else "no token can be verified"
            self._log.warning("signing keys not fetched", jwks=result.jwks, problem=result.problem, effect=kept)
        else:
            self._log.info("signing keys fetched", jwks=result.jwks, kids=list(result.kids))
