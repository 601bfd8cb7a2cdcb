"""`python -m bench.consoles`: what clients notice of fifty open consoles.

A gateway with Redis and four limits is under a steady load that leaves most of its core idle. Spells with the overview
of fifty consoles, each asking for its figures every ten seconds as the page does while it can be seen, and spells
without them take turns. One core has the gateway, the other all else.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import tempfile
import time
from pathlib import Path
from statistics import median

import aiohttp
import click
import uvloop

from bench.load import Seen, Target, connect, run
from bench.measures import Latency, latency_of
from bench.peers import PEERS, Place
from bench.rounds import two_cores
from bench.servers import MODEL, Server, demo_upstream, free_port

CONSOLES = 50
POLL_S = 10.0
OVERVIEW = (
    "traffic?minutes=60",
    "usage?since=1d",
    "usage?by=day&since=month",
    "usage?by=team&since=month&sort=usd&top=6",
    "upstreams",
    "limits",
)
"""What the first page asks for."""

CONNECTIONS = 16
REST_S = 0.04
"""Between an answer and the connection's next request, at most: about 500 requests a second."""


async def spell(target: Target, seconds: float) -> Latency:
    seen, deadline = Seen(), time.monotonic() + seconds
    request = target.request(MODEL)

    def next_request() -> bytes | None:
        return request if time.monotonic() < deadline else None

    await run([await connect(target, seen, next_request, REST_S) for _ in range(CONNECTIONS)])
    return latency_of(seen.durations_ns)


async def console(session: aiohttp.ClientSession, url: str) -> None:
    await asyncio.sleep(random.uniform(0, POLL_S))
    while True:
        for page in OVERVIEW:
            async with session.get(f"{url}/admin/v1/{page}") as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
        await asyncio.sleep(POLL_S)


async def spells(target: Target, admin: str, token: str, rounds: int, seconds: float) -> list[tuple[Latency, Latency]]:
    """Of each round, without and with consoles."""
    await spell(target, 3.0)  # Until everything is warm.
    found = []
    headers = {"authorization": f"Bearer {token}"}
    for number in range(1, rounds + 1):
        click.echo(f"round {number} of {rounds}", err=True)
        alone = await spell(target, seconds)
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
            consoles = [asyncio.ensure_future(console(session, admin)) for _ in range(CONSOLES)]
            await asyncio.sleep(POLL_S)  # Until each has begun.
            beside = await spell(target, seconds)
            for each in consoles:
                each.cancel()
            ends = await asyncio.gather(*consoles, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        found.append((alone, beside))
    return found


@click.command(epilog="Example: python -m bench.consoles --rounds 5")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Of each spell.")
def main(rounds: int, seconds: float) -> None:
    """Measure what clients notice of fifty open consoles."""
    load_core, gateway_core = two_cores()
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="consoles-") as name:
        folder, redis_port, token = Path(name), free_port(), secrets.token_urlsafe(16)
        redis = ["redis-server", "--port", str(redis_port), "--save", "", "--dir", name]
        with (
            Server(redis, redis_port, {load_core}, folder / "redis.log"),
            demo_upstream(load_core, folder) as upstream,
        ):
            place = Place(folder, free_port(), upstream.port, redis_port, f"gw_{secrets.token_urlsafe(32)}")
            peer = PEERS["gateway"]
            environment = os.environ | peer.environment(place) | {"ADMIN_TOKEN": token}
            with Server(peer.command(place), place.port, {gateway_core}, folder / "log", environment=environment):
                target = Target("gateway", place.port, place.key)
                admin = f"http://127.0.0.1:{environment['ADMIN_PORT']}"
                found = uvloop.run(spells(target, admin, token, rounds, seconds))
    click.echo(f"| | without consoles | beside {CONSOLES} |\n| --- | --: | --: |")
    for percent in ("p50", "p99"):
        alone, beside = (median(getattr(pair[side], f"{percent}_ms") for pair in found) for side in (0, 1))
        click.echo(f"| {percent} | {alone:.2f} ms | {beside:.2f} ms |")


if __name__ == "__main__":
    main()
