"""A gateway of several workers on a shared Redis, as operators run it, and what they look at."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gateway.web.admin_api import PAGES
from gateway.web.admin_routes import PREFIX
from tests.gateway_process import GatewayProcess, gateway_process
from tests.redis_servers import RedisServer
from tests.whole_gateway import KEY, PATIENCE_S, Json, Reply, chat_body, configuration

TOKEN = "operators-token"


def shared(upstream_url: str, redis: RedisServer, folder: Path, **changes: object) -> Json:
    """A configuration of two workers, whose counters nobody else has."""
    store = {"url": redis.url, "journal": str(folder / "journal"), "prefix": f"t{secrets.token_hex(4)}"}
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    return configuration(upstream_url, **{"store": store, "admin": admin, "workers": 2, **changes})


@asynccontextmanager
async def workers_process(config: Json, folder: Path, *arguments: str) -> AsyncIterator[GatewayProcess]:
    """`gateway serve` with this configuration; nothing of it is left behind."""
    async with gateway_process(*arguments, config=config, folder=folder) as gateway:
        try:
            # Each process writes its own lines: the supervisor's "serving" can come before a worker's.
            workers = int(arguments[arguments.index("--workers") + 1]) if arguments else config["workers"]
            await gateway.times("worker serving", workers if workers > 1 else 0)
            yield gateway
            await _look_everywhere(gateway)
        finally:
            for pid in pids(gateway).values():
                if alive(pid):
                    os.kill(pid, signal.SIGCONT)
            await _ended(gateway)


async def _look_everywhere(gateway: GatewayProcess) -> None:
    """Ask for every page of operators, while there is one: no secret may be in it."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            for path in ("/metrics", "/readyz", *(f"{PREFIX}{page}" for page in PAGES)):
                await look(gateway, path)


async def _ended(gateway: GatewayProcess) -> None:
    """End it without patience, unless it has ended."""
    with suppress(ProcessLookupError):
        gateway.signal(signal.SIGTERM)
        gateway.signal(signal.SIGINT)
    await gateway.exit_status()


def pids(gateway: GatewayProcess) -> dict[int, int]:
    """The process of each worker, as the log has told up to now."""
    return {line["worker"]: line["pid"] for line in gateway.lines if line["event"] == "worker serving"}


async def chats(gateway: GatewayProcess, count: int) -> Counter[int]:
    """So many requests at once, each on a connection of its own: how many got which status."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers={"authorization": f"Bearer {KEY}"}) as session:

        async def chat() -> int:
            url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
            async with session.post(url, json=chat_body()) as answer:
                gateway.answers += [repr(dict(answer.headers)).encode(), await answer.read()]
                return answer.status

        return Counter(await asyncio.gather(*[chat() for _ in range(count)]))


async def look(gateway: GatewayProcess, path: str, method: str = "GET", token: str = TOKEN) -> Reply:
    """One request to the operators' listener."""
    url = f"http://127.0.0.1:{gateway.admin_port}{path}"
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session,
        session.request(method, url) as answer,
    ):
        reply = Reply(answer.status, answer.headers, await answer.read())
    gateway.answers += [repr(dict(reply.headers)).encode(), reply.body]
    return reply


async def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    """The sum of the series of this name that have these labels."""
    text = (await look(gateway, "/metrics")).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


async def until(gateway: GatewayProcess, path: str, so: Callable[[Reply], bool]) -> Reply:
    """Look again and again, until the answer is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not so(reply := await look(gateway, path)):
            continue
        return reply


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")


async def write(folder: Path, config: Json) -> None:
    """Change the file that a gateway was started with, at one stroke."""
    changed = folder / "changed.yaml"
    changed.write_text(json.dumps(config))
    changed.replace(folder / "gateway.yaml")
