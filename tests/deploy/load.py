"""A little of everything that can happen to a request, so that every metric has something to tell."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

Json = dict[str, Any]

MODEL = "openai/gpt-oss-120b"
SPREAD = "openai/gpt-oss-20b"
KEYS = {"search": "gw_search-key-of-the-observed-gateway", "ads": "gw_ads-key-of-the-observed-gateway"}
PRICE = {"input": 0.15, "output": 0.60, "cached_input": 0.07}


def configuration(upstream: str, dead: str, store: str = "memory://") -> Json:
    """Two models: one on a server that works, one that is tried on a dead server first."""
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "drain": {"delay": "0s", "timeout": "5s"},
        "store": {"url": store},
        "notify": [{"url": dead, "format": "slack"}],
        "upstreams": {
            "inducta": {"base_url": upstream, "timeouts": {"idle": "500ms", "first_byte": "1s"}},
            "spare": {"base_url": dead},
        },
        "models": {
            MODEL: {"routes": [{"upstream": "inducta"}], "price": PRICE},
            SPREAD: {"routes": [{"upstream": "spare"}, {"upstream": "inducta", "priority": 2}], "price": PRICE},
        },
        "limits": [{"usd": 100, "per": "month"}],
        "teams": {
            "search": _team("search", [{"tokens": 1_000_000, "per": "month"}, {"usd": 1, "per": "day"}, *_SHADOW]),
            "ads": _team("ads", [{"requests": 1, "per": "minute"}, {"tokens": 50_000, "per": "day"}]),
        },
    }


_SHADOW: list[Json] = [
    {"requests": 1, "per": "hour", "mode": "shadow"},
    {"requests": 5, "per": "day", "mode": "shadow"},  # Its parts are crossed at once, which is told to nobody.
]


def _team(name: str, limits: list[Json]) -> Json:
    return {"limits": limits, "keys": [{"name": name, "sha256": hashlib.sha256(KEYS[name].encode()).hexdigest()}]}


class Clients:
    """Requests of each kind, one method a kind."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._url = f"http://{address}/v1/chat/completions"

    async def everything(self) -> None:
        """One of each kind, at the same time."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            self.plain, self.streamed, self.cached, self.unreported, self.elsewhere, self.another_team,
            self.leaving, self.broken_off, self.fallen_silent, self.failed, self.not_understood, self.unknown,
        ]  # fmt: skip
        await asyncio.gather(*(kind() for kind in kinds))

    async def plain(self) -> None:
        await self.ask()

    async def streamed(self) -> None:
        await self.ask(stream=True, demo={"chunk_delay_ms": 2})

    async def cached(self) -> None:
        await self.ask(demo={"prompt_tokens": 200, "cached_tokens": 150, "reasoning_tokens": 20})

    async def unreported(self) -> None:
        await self.ask(stream=True, demo={"usage": "never"})

    async def elsewhere(self) -> None:
        await self.ask(model=SPREAD, stream=True)

    async def another_team(self) -> None:
        await self.ask(team="ads")

    async def leaving(self) -> None:
        async with self._post(stream=True, demo={"chunk_delay_ms": 100}) as answer:
            await answer.content.readline()
            answer.close()

    async def broken_off(self) -> None:
        await self.ask(stream=True, demo={"halt": "reset"})

    async def fallen_silent(self) -> None:
        await self.ask(stream=True, demo={"halt": "hang"})

    async def failed(self) -> None:
        await self.ask(demo={"status": 500})

    async def not_understood(self) -> None:
        await self.ask(messages="none")

    async def unknown(self) -> None:
        await self.ask(model="no-such-model")

    async def ask(self, team: str = "search", **fields: Any) -> None:
        async with self._post(team, **fields) as answer:
            try:
                await answer.read()
            except aiohttp.ClientPayloadError:
                # A stream that was cut is among what is to be counted.
                return

    def _post(self, team: str = "search", **fields: Any) -> Any:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], **fields}
        return self._session.post(self._url, json=body, headers={"authorization": f"Bearer {KEYS[team]}"})
