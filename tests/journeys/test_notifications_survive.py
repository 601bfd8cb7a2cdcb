"""Four gateways on one Redis, and a receiver that fails half of the time: each threshold is told of, and none twice,
though gateways and Redis are killed."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.gateway_process import GatewayProcess, gateway_process
from tests.redis_servers import RedisServer, redis_server, wait_for
from tests.webhook_receiver import WebhookReceiver, webhook_receiver
from tests.whole_gateway import KEY, Json, chat_body, configuration

REQUESTS = 2_000
GATEWAYS = 4
AT = ["50%", "80%", "95%", "100%"]
TEN_TOKENS = DemoScript(prompt_tokens=6, completion_tokens=4, chunks=4)
LIMITS = [
    {"requests": REQUESTS, "per": "total", "name": "requests"},
    {"tokens": 10 * REQUESTS + 1_000, "per": "total", "name": "tokens"},
]
OF_REQUESTS = {("requests", 50), ("requests", 80), ("requests", 95), ("requests", 100)}
EXPECTED = OF_REQUESTS | {("tokens", 50), ("tokens", 80), ("tokens", 95)}
AT_A_TIME = 16
AGAIN_S = 0.05
"""Until a gateway that is dead, or whose store is, is asked again."""


class Fleet:
    """Gateways that are killed and started again; `served` counts the requests that were answered."""

    def __init__(self, config: Json, folder: Path, stack: AsyncExitStack) -> None:
        self.served = 0
        self._config = config
        self._folder = folder
        self._stack = stack
        self._gateways: list[GatewayProcess] = []

    async def start(self) -> None:
        for place in range(GATEWAYS):
            self._gateways.append(await self._one(place))

    async def kill(self, place: int) -> None:
        """As a crash does it, and start another one in its place."""
        self._gateways[place].signal(signal.SIGKILL)
        self._gateways[place] = await self._one(place)

    async def serve(self, until: int, session: aiohttp.ClientSession) -> None:
        """Ask, in turn, until so many requests were answered. A gateway that is dead, or whose store is, is asked
        again."""
        asking = self.served

        async def ask(number: int) -> None:
            while True:
                gateway = self._gateways[number % GATEWAYS]
                url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
                try:
                    async with session.post(url, json=chat_body(max_tokens=4)) as answer:
                        await answer.read()
                        # What was under way in a gateway that was killed has counted: the quota may be used up early.
                        if answer.status in {200, 429}:
                            self.served += 1
                            return
                        assert answer.status == 503, await answer.text()
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(AGAIN_S)

        while asking < until:
            batch = range(asking, min(asking + AT_A_TIME, until))
            await asyncio.gather(*map(ask, batch))
            asking += len(batch)

    async def _one(self, place: int) -> GatewayProcess:
        folder = self._folder / f"{place}-{secrets.token_hex(2)}"
        folder.mkdir()
        config = {**self._config, "store": {**self._config["store"], "journal": str(self._folder / f"journal-{place}")}}
        return await self._stack.enter_async_context(gateway_process(config=config, folder=folder))


@asynccontextmanager
async def fleet(redis: RedisServer, receiver: WebhookReceiver, folder: Path) -> AsyncIterator[Fleet]:
    async with DemoUpstream(TEN_TOKENS) as upstream, AsyncExitStack() as stack:
        store = {"url": redis.url, "prefix": f"t{secrets.token_hex(4)}"}
        notify = [receiver.channel(at=AT, events=["quota"])]
        config = configuration(upstream.base_url, team={"limits": LIMITS}, notify=notify, store=store)
        running = Fleet(config, folder, stack)
        await running.start()
        yield running


def told(receiver: WebhookReceiver) -> Counter[tuple[str, int]]:
    """How often each threshold was taken."""
    found = [each.json["data"] for each in receiver.taken]
    return Counter((data["name"], data["percent"]) for data in found)


def ids(receiver: WebhookReceiver) -> dict[tuple[str, int], set[str]]:
    found: dict[tuple[str, int], set[str]] = {}
    for each in receiver.attempts:
        data = each.json["data"]
        found.setdefault((data["name"], data["percent"]), set()).add(each.id)
    return found


def waiting(redis: RedisServer) -> int:
    """How many notifications the store has."""
    with redis.client() as client:
        return sum(client.zcard(key) for key in client.keys("*:n"))


def fails_half_of_the_time() -> Callable[[int], int]:
    """Every other attempt is answered with an error, as if it had not been taken."""
    return lambda attempt: 204 if attempt % 2 else 503


@pytest.mark.slow
async def test_each_threshold_is_taken_exactly_once_over_all_gateways(tmp_path: Path) -> None:
    with redis_server() as redis:
        async with webhook_receiver(fails_half_of_the_time()) as receiver:
            headers = {"authorization": f"Bearer {KEY}"}
            async with fleet(redis, receiver, tmp_path) as running, aiohttp.ClientSession(headers=headers) as session:
                await running.serve(REQUESTS, session)
                await receiver.until(lambda: set(told(receiver)) == EXPECTED, 60)
                await asyncio.to_thread(wait_for, lambda: not waiting(redis), "nothing waits to be delivered")
            assert told(receiver) == dict.fromkeys(EXPECTED, 1)
            assert all(len(names) == 1 for names in ids(receiver).values())
            assert any(each.status == 503 for each in receiver.attempts)


@pytest.mark.slow
async def test_none_is_lost_though_gateways_and_redis_are_killed(tmp_path: Path) -> None:
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server(*durable) as redis:
        over, fails = asyncio.Event(), fails_half_of_the_time()
        async with webhook_receiver(lambda attempt: 204 if over.is_set() else fails(attempt)) as receiver:
            headers = {"authorization": f"Bearer {KEY}"}
            async with fleet(redis, receiver, tmp_path) as running, aiohttp.ClientSession(headers=headers) as session:
                for place, at in enumerate((1_000, 1_600, 1_900)):
                    # In the middle of the requests around each threshold.
                    await running.serve(at - 8, session)
                    serving = asyncio.ensure_future(running.serve(at + 8, session))
                    while running.served < at:
                        await asyncio.sleep(0)
                    await running.kill(place)
                    await serving
                redis.kill()
                redis.start()
                await running.serve(REQUESTS - 1, session)
                serving = asyncio.ensure_future(running.serve(REQUESTS, session))
                redis.kill()
                redis.start()
                await serving
                await running.kill(3)
                # A request whose gateway was killed counts as a request, and of its tokens nobody knows.
                # What a killed gateway had claimed is free after half a minute; another failure would double that.
                over.set()
                await receiver.until(lambda: told(receiver).keys() >= OF_REQUESTS, 180)
            assert all(len(names) == 1 for names in ids(receiver).values())
