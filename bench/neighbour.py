"""`python -m bench.neighbour`: what a team notices of another one that does its worst.

Five processes: two demo upstreams, the gateway, the neighbour (this module again, with `--noise`), and here a team that
asks for plain answers and streams at its own pace, first alone, then beside the neighbour. The neighbour has limits, as
a team has, and does everything at once: malformed and refused requests, huge bodies, uploads of a byte at a time,
streams that it does not read, bombs in gzip, end users that it makes up, and leaving early.

The gateway has a core of its own. On the other one the neighbour and its model server give way to the team and to
the team's model server, so that what the team waits for is the gateway.

The figures are shown and never judged. The ledger is: the team pays exactly what it got.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import NamedTuple

import aiohttp
import click
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bench.free_ports import free_port
from bench.servers import LOWEST_PRIORITY, MODEL, PRICE, Server, demo_upstream

TOKEN = secrets.token_urlsafe()
QUIET_LOOPS = 8
QUIET_PAUSE_S = 0.15
SETTLED_S = 5.0
MAX_BODY = 4 * 1024 * 1024
CALM_SHARE = 0.25
"""Of the time, before the noise begins."""


class Ports(NamedTuple):
    gateway: int
    admin: int
    upstream: int
    noisy_upstream: int
    """The neighbour's requests go to a model server of its own: it is the gateway that is measured."""


class Heard(NamedTuple):
    """What the quiet team got in one phase."""

    answers: int
    failures: int
    latencies_ms: list[float]

    @property
    def success(self) -> float:
        return self.answers / max(1, self.answers + self.failures)

    def percentile_ms(self, percent: int) -> float:
        return quantiles(self.latencies_ms, n=100)[percent - 1]


class Measured(NamedTuple):
    calm: Heard
    noisy: Heard
    charged: tuple[int, int, int]
    truth: tuple[int, int, int]
    """Requests, input tokens and output tokens of the quiet team: by the ledger, and by the model server."""
    noise: int
    """Requests of the neighbour that were answered or given up."""
    loop_lag_s: float
    """By how much the gateway's event loop was late, in 99 of 100 looks, at most: what of the delay is its own."""


def settings(ports: Ports, keys: dict[str, str]) -> dict[str, object]:
    noisy_limits = [{"requests": 6_000, "per": "minute"}, {"tokens": 10**12, "per": "day"}, {"concurrent": 64}]
    return {
        "listen": f"127.0.0.1:{ports.gateway}",
        "admin": {"listen": f"127.0.0.1:{ports.admin}", "token": TOKEN},
        "drain": {"delay": "0s", "timeout": "1s"},
        "store": {"url": "memory://"},
        "max_body": "4MiB",
        "max_body_memory": "64MiB",
        "upstreams": {
            "quiet": {"base_url": f"http://127.0.0.1:{ports.upstream}/v1"},
            "noisy": {"base_url": f"http://127.0.0.1:{ports.noisy_upstream}/v1"},
        },
        "models": {
            MODEL: {"routes": [{"upstream": "quiet"}], "price": PRICE},
            "noise": {"routes": [{"upstream": "noisy"}], "price": PRICE},
        },
        "teams": {
            "quiet": {"limits": [{"tokens": 10**12, "per": "day"}], "keys": [{"name": "quiet", "key": keys["quiet"]}]},
            "noisy": {
                "limits": noisy_limits,
                "user_limits": [{"requests": 10**6, "per": "day"}],
                "keys": [{"name": "noisy", "key": keys["noisy"]}],
            },
        },
    }


# The quiet team.


async def hear(ports: Ports, key: str, seconds: float) -> Heard:
    latencies: list[float] = []
    failures = 0
    url, end = f"http://127.0.0.1:{ports.gateway}/v1/chat/completions", time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"authorization": f"Bearer {key}"}) as session:

        async def ask(dice: Random) -> None:
            nonlocal failures
            while time.monotonic() < end:
                streams = dice.random() < 0.5
                body = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "stream": streams}
                began = time.perf_counter()
                try:
                    async with session.post(url, json=body) as answer:
                        received = await answer.read()
                    whole = received.endswith(b"data: [DONE]\n\n") if streams else received.endswith(b"}")
                    failures += answer.status != 200 or not whole
                except aiohttp.ClientError:
                    failures += 1
                else:
                    latencies.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(dice.random() * QUIET_PAUSE_S)

        await asyncio.gather(*[ask(Random(seed)) for seed in range(QUIET_LOOPS)])
    return Heard(len(latencies) - failures, failures, latencies)


# The neighbour.


class Neighbour:
    """Every habit runs in loops of its own."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._dice = Random(7)
        self._bomb = gzip.compress(b'{"pad":"' + b"x" * 20_000_000)
        self._huge = json.dumps(self._chat(pad="x" * (MAX_BODY - 1000))).encode()

    async def misbehave(self, seconds: float) -> None:
        click.echo("begins")
        habits: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (8, self._send_nonsense),
            (4, self._send_huge),
            (40, self._upload_slowly),
            (24, self._never_read),
            (2, self._send_bomb),
            (8, self._make_users_up),
            (8, self._leave),
        ]
        loops = [self._again(habit, time.monotonic() + seconds) for count, habit in habits for _ in range(count)]
        await asyncio.gather(*loops)

    async def _again(self, habit: Callable[[], Awaitable[None]], end: float) -> None:
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(left):
                    await habit()
            await asyncio.sleep(self._dice.random() * 0.05)

    async def _send_nonsense(self) -> None:
        sent = self._dice.choice(
            (
                b"hello\r\n\r\n",
                self._head(2) + b"{",
                self._head(2) + b"{}",
                self._head(9, "content-encoding: x"),
                self._head(5).replace(self._key.encode(), b"gw_unknown") + b"xxxxx",
                b"GET /" + b"x" * 30_000 + b" HTTP/1.1\r\nhost: g\r\n\r\n",
            )
        )
        await self._exchange(sent)

    async def _send_huge(self) -> None:
        await self._exchange(self._head(len(self._huge)) + self._huge)

    async def _send_bomb(self) -> None:
        await self._exchange(self._head(len(self._bomb), "content-encoding: gzip") + self._bomb)

    async def _make_users_up(self) -> None:
        body = json.dumps(self._chat(user=secrets.token_hex(8))).encode()
        await self._exchange(self._head(len(body)) + body)

    async def _upload_slowly(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._head(100_000))
            for _ in range(200):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(self._dice.random())
        finally:
            writer.transport.abort()

    async def _never_read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        try:
            body = json.dumps(self._chat(stream=True, demo={"chunks": 2000, "chunk_bytes": 4000})).encode()
            writer.write(self._head(len(body)) + body)
            await reader.readexactly(64)
            await asyncio.sleep(10 * self._dice.random())
        finally:
            writer.transport.abort()

    async def _leave(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        body = json.dumps(self._chat(stream=self._dice.random() < 0.5, demo={"chunk_delay_ms": 20})).encode()
        writer.write(self._head(len(body)) + body)
        await asyncio.sleep(self._dice.random() * 0.2)
        writer.transport.abort()

    async def _exchange(self, sent: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(sent)
            await writer.drain()
            await reader.read(2**16)
        finally:
            writer.transport.abort()

    def _chat(self, **fields: object) -> dict[str, object]:
        return {"model": "noise", "messages": [{"role": "user", "content": "x"}], **fields}

    def _head(self, length: int, *headers: str) -> bytes:
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: g", f"authorization: Bearer {self._key}"]
        return "\r\n".join([*lines, f"content-length: {length}", *headers, "", ""]).encode()


# Both.


async def measured(seconds: float, ports: Ports, keys: dict[str, str]) -> Measured:
    await hear(ports, keys["quiet"], 2.0)  # Until everything is warm.
    calm = await hear(ports, keys["quiet"], seconds * CALM_SHARE)
    command = [sys.executable, "-m", "bench.neighbour", "--noise", str(ports.gateway), "--seconds", str(seconds)]
    noise = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"NOISY_KEY": keys["noisy"]}, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert noise.stdout is not None
        await noise.stdout.readline()  # It begins.
        noisy = await hear(ports, keys["quiet"], seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            noise.terminate()
        await noise.wait()
    deadline = time.monotonic() + SETTLED_S
    while True:
        charged, truth = await _ledger(ports), await _truth(ports)
        if charged == truth or time.monotonic() > deadline:
            return Measured(calm, noisy, charged, truth, *await _seen_by_gateway(ports))
        await asyncio.sleep(0.1)


async def _ledger(ports: Ports) -> tuple[int, int, int]:
    url = f"http://127.0.0.1:{ports.admin}/admin/v1/usage?team=quiet"
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {TOKEN}"}) as session,
        session.get(url) as answer,
    ):
        total = (await answer.json())["total"]
    return total["requests"], total["input_tokens"], total["output_tokens"]


async def _seen_by_gateway(ports: Ports) -> tuple[int, float]:
    """Requests of others than the quiet team, and the loop's lag."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{ports.admin}/metrics") as answer:
        families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    samples = families["gateway_requests"].samples
    noise = sum(sample.value for sample in samples if sample.labels.get("team") != "quiet")
    lags = [sample for sample in families["gateway_loop_lag_seconds"].samples if "le" in sample.labels]
    most = max(sample.value for sample in lags)
    return round(noise), min(float(sample.labels["le"]) for sample in lags if sample.value >= 0.99 * most)


async def _truth(ports: Ports) -> tuple[int, int, int]:
    url = f"http://127.0.0.1:{ports.upstream}/__truth"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        tallies = (await answer.json())["tallies"]
    [own] = [tally for tally in tallies if tally["model"] == MODEL]
    return own["completed"], own["reported"]["prompt"], own["reported"]["completion"]


def run(seconds: float, folder: Path) -> Measured:
    keys = {team: f"gw_{secrets.token_urlsafe(32)}" for team in ("quiet", "noisy")}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    with demo_upstream(cores[-1], folder) as upstream, demo_upstream(cores[-1], folder) as noisy_upstream:
        noisy_upstream.give_way()
        ports = Ports(free_port(), free_port(), upstream.port, noisy_upstream.port)
        config = folder / "gateway.yaml"
        config.write_bytes(msgspec.json.encode(settings(ports, keys)))
        command = [sys.executable, "-m", "gateway", "serve", "-c", str(config)]
        with Server(command, ports.gateway, {cores[0]}, folder / "gateway.log"):
            return asyncio.run(measured(seconds, ports, keys))


def table(result: Measured) -> str:
    calm, noisy = result.calm, result.noisy
    rows = [
        f"| answers | {calm.answers:,} | {noisy.answers:,} |",
        f"| in full | {calm.success:.3%} | {noisy.success:.3%} |",
        f"| p50 | {calm.percentile_ms(50):.1f} ms | {noisy.percentile_ms(50):.1f} ms |",
        f"| p99 | {calm.percentile_ms(99):.1f} ms | {noisy.percentile_ms(99):.1f} ms |",
    ]
    ratio = noisy.percentile_ms(99) / calm.percentile_ms(99)
    head = "| of the quiet team | alone | beside the neighbour |\n| --- | --- | --- |\n"
    said = f"p99 is {ratio:.1f} times what it was alone; the neighbour made {result.noise:,} requests."
    said += f" The gateway's event loop was late by at most {result.loop_lag_s * 1000:g} ms (99 of 100 looks)."
    return f"{head}{chr(10).join(rows)}\n\n{said}"


@click.command(epilog="Example: python -m bench.neighbour --seconds 300")
@click.option("--seconds", type=float, default=300.0, help="How long the neighbour does its worst.")
@click.option("--noise", type=int, default=0, hidden=True, help="The gateway's port: be the neighbour.")
def main(seconds: float, noise: int) -> None:
    """Measure what a team notices of another one that does its worst."""
    if noise:
        os.setpriority(os.PRIO_PROCESS, 0, LOWEST_PRIORITY)
        asyncio.run(Neighbour(noise, os.environ["NOISY_KEY"]).misbehave(seconds))
        return
    with tempfile.TemporaryDirectory(prefix="neighbour-") as folder:
        result = run(seconds, Path(folder))
    click.echo(table(result))
    if result.charged != result.truth:
        raise click.ClickException(f"The ledger has {result.charged}, the model server served {result.truth}.")
    click.echo("The team's ledger is what its model server served.")


if __name__ == "__main__":
    main()
