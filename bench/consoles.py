"""`python -m bench.consoles`: what fifty open consoles cost the gateway, and what clients notice of them.

A gateway with Redis and four limits is under a steady load that leaves most of its core idle. Spells with the overview
of fifty consoles, each signed in and asking for its figures every ten seconds as the page does while it can be seen,
and spells without them take turns. Other spells have the consoles alone, and neither. One core has the gateway, the
other all else.

Latency differs more from round to round than fifty consoles change it, and so does the processor time of a request. So
the figure to read is the processor time that the gateway spends in each second for the consoles alone, less what it
spends for nothing; the time under load, with the consoles and without, says whether that is true beside clients, too.

With --each-part the consoles ask for every part of the overview by itself and with the token, as programs do: nothing
is shared then. With --elsewhere they ask a second gateway, on the core of all else. What clients notice of them then
comes from the load generator, which has the consoles and Redis on its core: the control of this measurement.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import click
import uvloop

from bench.free_ports import free_port
from bench.load import Seen, Target, connect, run
from bench.measures import Latency, latency_of
from bench.peers import PEERS, Place
from bench.rounds import two_cores
from bench.servers import MODEL, Server, demo_upstream

CONSOLES = 50
POLL_S = 10.0
OVERVIEW = ("overview?minutes=60",)
"""What the first page asks for."""

PARTS = (
    "traffic?minutes=60",
    "usage?since=1d",
    "usage?by=day&since=month",
    "usage?by=team&since=month&sort=usd&top=6",
    "upstreams",
    "limits",
)
"""What it is made of."""

CONNECTIONS = 16
REST_S = 0.04
"""Between an answer and the connection's next request, at most: about 500 requests a second."""


@dataclass
class Viewers:
    """The consoles, and how many pages they were shown. `parts`: they ask for each by itself, with the token."""

    url: str
    token: str
    parts: bool
    shown: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Viewers:
        self.tasks = [asyncio.ensure_future(self._look()) for _ in range(CONSOLES)]
        await asyncio.sleep(POLL_S)  # Until each has begun.
        self.shown = 0
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self.tasks:
            each.cancel()
        ends = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def _look(self) -> None:
        by_token, by_cookie = {"authorization": f"Bearer {self.token}"}, {"x-gateway-console": "1"}
        jar = aiohttp.CookieJar(unsafe=True)  # Of an address without a name, too.
        async with aiohttp.ClientSession(self.url, cookie_jar=jar, auto_decompress=False) as session:
            async with session.post("/admin/v1/session", headers=by_token | by_cookie) as answer:
                assert answer.status == 200, await answer.text()
            headers = by_token if self.parts else by_cookie
            await asyncio.sleep(random.uniform(0, POLL_S))
            while True:
                for page in PARTS if self.parts else OVERVIEW:
                    async with session.get(f"/admin/v1/{page}", headers=headers) as answer:
                        assert answer.status == 200, await answer.text()
                        await answer.read()
                self.shown += 1
                await asyncio.sleep(POLL_S)


@dataclass
class Found:
    """Of each round, under load without and with consoles; of the consoles alone the gateway's processor time for a
    page, and for all of them in each second."""

    alone: list[Spell] = field(default_factory=list)
    beside: list[Spell] = field(default_factory=list)
    page_cpu_ms: list[float] = field(default_factory=list)
    cpu_ms_each_second: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Spell:
    """What clients waited, and what a request cost the processor of the gateway that is measured."""

    latency: Latency
    request_cpu_ms: float


async def spell(target: Target, server: Server, seconds: float) -> Spell:
    seen, deadline = Seen(), time.monotonic() + seconds
    request = target.request(MODEL)

    def next_request() -> bytes | None:
        return request if time.monotonic() < deadline else None

    before = server.cpu_ns()
    await run([await connect(target, seen, next_request, REST_S) for _ in range(CONNECTIONS)])
    cpu_ns = server.cpu_ns() - before
    return Spell(latency_of(seen.durations_ns), cpu_ns / max(1, len(seen.durations_ns)) / 1e6)


async def spells(
    target: Target, asked: Server, measured: Server, viewers: Viewers, rounds: int, seconds: float
) -> Found:
    await spell(target, measured, 3.0)  # Until everything is warm.
    found = Found()
    for number in range(1, rounds + 1):
        click.echo(f"round {number} of {rounds}", err=True)
        found.alone.append(await spell(target, measured, seconds))
        idle_ns = await _cpu_ns(asked, seconds)
        async with viewers:
            found.beside.append(await spell(target, measured, seconds))
            viewers.shown = 0
            busy_ns = await _cpu_ns(asked, seconds)
            found.page_cpu_ms.append((busy_ns - idle_ns) / max(1, viewers.shown) / 1e6)
            found.cpu_ms_each_second.append((busy_ns - idle_ns) / seconds / 1e6)
    return found


async def _cpu_ns(server: Server, seconds: float) -> int:
    before = server.cpu_ns()
    await asyncio.sleep(seconds)
    return server.cpu_ns() - before


@click.command(epilog="Example: python -m bench.consoles --rounds 5")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Of each spell.")
@click.option("--elsewhere", is_flag=True, help="The consoles ask a gateway without clients: the control.")
@click.option("--each-part", is_flag=True, help="Ask for every part of the overview by itself, with the token.")
def main(rounds: int, seconds: float, each_part: bool, elsewhere: bool) -> None:
    """Measure what clients notice of fifty open consoles."""
    load_core, gateway_core = two_cores()
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="consoles-") as name, ExitStack() as servers:
        folder, redis_port, token = Path(name), free_port(), secrets.token_urlsafe(16)
        redis = ["redis-server", "--port", str(redis_port), "--save", "", "--dir", name]
        servers.enter_context(Server(redis, redis_port, {load_core}, folder / "redis.log"))
        upstream = servers.enter_context(demo_upstream(load_core, folder))

        def gateway(core: int, part: str) -> tuple[Server, Target, str]:
            """A gateway, how clients ask it, and where its admin API is."""
            of_it = folder / part
            of_it.mkdir()
            place = Place(of_it, free_port(), upstream.port, redis_port, f"gw_{secrets.token_urlsafe(32)}")
            peer = PEERS["gateway"]
            environment = os.environ | peer.environment(place) | {"ADMIN_TOKEN": token}
            server = Server(peer.command(place), place.port, {core}, of_it / "log", environment=environment)
            admin = f"http://127.0.0.1:{environment['ADMIN_PORT']}"
            return servers.enter_context(server), Target("gateway", place.port, place.key), admin

        measured, target, admin = gateway(gateway_core, "measured")
        asked = measured
        if elsewhere:
            asked, _, admin = gateway(load_core, "elsewhere")
        found = uvloop.run(spells(target, asked, measured, Viewers(admin, token, each_part), rounds, seconds))
    show(found)


def show(found: Found) -> None:
    click.echo(f"| | without consoles | beside {CONSOLES} |\n| --- | --: | --: |")
    for percent in ("p50", "p99"):
        sides = (found.alone, found.beside)
        alone, beside = (median(getattr(each.latency, f"{percent}_ms") for each in side) for side in sides)
        click.echo(f"| {percent} | {alone:.2f} ms | {beside:.2f} ms |")
    alone, beside = (median(each.request_cpu_ms for each in side) for side in (found.alone, found.beside))
    click.echo(f"| processor time of the gateway, by the requests of clients | {alone:.3f} ms | {beside:.3f} ms |")
    each_second_ms = median(found.cpu_ms_each_second)
    click.echo(f"| of the gateway that is asked, each page | | {median(found.page_cpu_ms):.2f} ms |")
    click.echo(f"| of it in each second | | {each_second_ms:.1f} ms: {each_second_ms / 10:.2f} % of a core |")


if __name__ == "__main__":
    main()
