"""`python -m bench.peers [PEER…]`: the gateway beside other gateways, each with what it has of limits switched on.

One core has the program that is measured. The other has the load, the model server and Redis. Plain answers come from
a model server that answers at once (nginx) and are asked for by wrk, since both cost less than any gateway. Streams
come from the demo upstream, an event each 20 ms. The peers take turns, round by round; each figure is the median of
the rounds. The versions are those of `PEERS`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import uvloop

from bench.free_ports import free_port
from bench.load import LoadFailed, Seen, Target, connect
from bench.measures import CHUNK_INTERVAL_MS, STREAMS, Latency, latency_of
from bench.report import machine, write_into
from bench.rounds import two_cores
from bench.servers import MODEL, SPENT_KEY, UNKNOWN_KEY, Server, demo_upstream

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench of peers: begin -->", "<!-- bench of peers: end -->"
CONFIGS = Path(__file__).parent / "peer_configs"
PROGRAMS = Path(__file__).parent.parent / ".tools" / "peers"
"""Where `make bench-peers` installs the others."""

CONNECTIONS = 64
CHUNKS = 250
STREAM_S = CHUNKS * CHUNK_INTERVAL_MS / 1000
WARM_S = 2.0
START_S = 120.0
"""LiteLLM imports for a minute where much else runs."""

MESSAGES = [{"role": "user", "content": "Say hello to everyone who measures gateways today."}]
ASKED = {"max_tokens": 1_000}
"""TensorZero's limits need it."""
_WRK_TIME = re.compile(r"^ +(50|99)% +([\d.]+)(us|ms|s) *$", re.MULTILINE)
_WRK_FAILURES = re.compile(r"(?:Non-2xx or 3xx responses|Socket errors):(.*)$", re.MULTILINE)
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Place(NamedTuple):
    """Where a peer runs: its folder, the ports that it has and uses, and the key that it takes."""

    folder: Path
    port: int
    upstream_port: int
    redis_port: int
    key: str

    def config(self, name: str) -> Path:
        """A file of `peer_configs` with the values of this place."""
        text = (CONFIGS / name).read_text()
        for field in self._fields:
            text = text.replace(f"@{field}@", str(getattr(self, field)))
        file = self.folder / name
        file.write_text(text)
        return file


class Peer(NamedTuple):
    """`limits` says what it counts of each request. `path` and `model` are how clients ask it."""

    name: str
    limits: str
    command: Callable[[Place], Sequence[str]]
    environment: Callable[[Place], dict[str, str]] = lambda _place: {}
    path: str = "/v1/chat/completions"
    model: str = MODEL
    can_stream: bool = True
    """At 25,000 events a second with one process."""
    chooses_port: bool = False
    """It writes its port to the file `port` of its folder."""
    refuses: bool = False
    """It knows a key whose limit is used up after one request, `SPENT_KEY`, and refuses a key that it does not know."""


class PeerFigures(NamedTuple):
    """Of one round, or the medians of all. Processor time is the peer's own."""

    plain_per_s: float
    plain_cpu_us: float
    latency: Latency
    event_cpu_us: float
    first_token: Latency
    idle_mib: float
    kib_per_stream: float
    refused_per_s: float
    unknown_keys_per_s: float
    failed: float
    """Answers that were none."""


def _gateway(_place: Place) -> Sequence[str]:
    return [sys.executable, "-m", "gateway", "serve", "-c", str(CONFIGS / "gateway.yaml")]


def _gateway_environment(place: Place) -> dict[str, str]:
    ports = {"PORT": place.port, "UPSTREAM_PORT": place.upstream_port, "REDIS_PORT": place.redis_port}
    named = {name: str(port) for name, port in ports.items()}
    named |= {"ADMIN_PORT": str(free_port()), "ADMIN_TOKEN": secrets.token_urlsafe()}
    return {**named, "JOURNAL": str(place.folder / "journal"), "KEY": place.key, "SPENT_KEY": SPENT_KEY}


def _nginx(place: Place) -> Sequence[str]:
    return ["nginx", "-p", str(place.folder), "-c", str(place.config("nginx.conf"))]


def _tensorzero(place: Place) -> Sequence[str]:
    script, config = CONFIGS / "tensorzero_gateway.py", place.config("tensorzero.toml")
    redis = f"redis://127.0.0.1:{place.redis_port}"
    return [str(PROGRAMS / "tensorzero/bin/python"), str(script), str(config), redis, str(place.folder / "port")]


def _vllm_router(place: Place) -> Sequence[str]:
    program = PROGRAMS / "vllm-router/bin/vllm-router"
    ports = ["--port", str(place.port), "--prometheus-port", str(free_port())]
    upstream = ["--worker-urls", f"http://127.0.0.1:{place.upstream_port}", "--policy", "round_robin"]
    return [str(program), "--host", "127.0.0.1", *ports, *upstream, "--max-concurrent-requests", "10000"]


def _litellm(place: Place) -> Sequence[str]:
    program = PROGRAMS / "litellm/bin/litellm"
    place.config("litellm_key.py")  # Looked for beside the configuration.
    return [
        str(program),
        "--config",
        str(place.config("litellm.yaml")),
        "--host",
        "127.0.0.1",
        "--port",
        str(place.port),
    ]


def _litellm_environment(_place: Place) -> dict[str, str]:
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_TELEMETRY": "False"}
    return {**quiet, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


PEERS = {
    "gateway": Peer("this gateway", "four limits in Redis, ledger", _gateway, _gateway_environment, refuses=True),
    "tensorzero": Peer(
        "TensorZero 2026.6.0",
        "two limits in Redis",
        _tensorzero,
        path="/openai/v1/chat/completions",
        model="tensorzero::model_name::bench",
        chooses_port=True,
    ),
    "vllm-router": Peer("vLLM router 0.1.17", "none", _vllm_router),
    "litellm": Peer("LiteLLM 1.81.10", "three limits in Redis", _litellm, _litellm_environment, can_stream=False),
    "nginx": Peer("nginx", "none", _nginx),
}


# One peer, from its start to its figures.


class Plain(NamedTuple):
    per_second: float
    latency: Latency
    failed: int


class RunningPeer(NamedTuple):
    peer: Peer
    server: Server
    key: str

    @property
    def body(self) -> bytes:
        return json.dumps({"model": self.peer.model, "messages": MESSAGES, **ASKED}).encode()

    def ask(self) -> None:
        """One plain answer. Raises OSError."""
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        url = f"http://127.0.0.1:{self.server.port}{self.peer.path}"
        with urllib.request.urlopen(urllib.request.Request(url, self.body, headers), timeout=10) as answer:
            assert b"choices" in answer.read()

    def wrk(self, connections: int, seconds: float, key: str = "") -> Plain:
        """Plain answers, as many as there can be; with another `key`, refusals, which count as failed."""
        url = f"http://127.0.0.1:{self.server.port}"
        load = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "20s", "--latency"]
        arguments = ["--", self.peer.path, key or self.key, self.body.decode()]
        done = subprocess.run(
            ["wrk", *load, "-s", str(CONFIGS / "chat.lua"), url, *arguments], capture_output=True, text=True, check=True
        )
        rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
        assert rate is not None, done.stdout
        times = {percent: float(value) * _MS[unit] for percent, value, unit in _WRK_TIME.findall(done.stdout)}
        failed = sum(int(count) for line in _WRK_FAILURES.findall(done.stdout) for count in re.findall(r"\d+", line))
        return Plain(float(rate[1]), Latency(times["50"], times["99"]), failed)


@contextmanager
def running(peer: Peer, upstream_port: int, redis_port: int, core: int) -> Iterator[RunningPeer]:
    """The peer in front of an upstream, once it has given an answer."""
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        place = Place(Path(folder), free_port(), upstream_port, redis_port, f"gw_{secrets.token_urlsafe(32)}")
        port_file = place.folder / "port" if peer.chooses_port else None
        command, environment = peer.command(place), os.environ | peer.environment(place)
        with Server(
            command, place.port, {core}, place.folder / "log", environment=environment, port_file=port_file
        ) as server:
            started = RunningPeer(peer, server, place.key)
            deadline = time.monotonic() + START_S
            while True:
                try:
                    started.ask()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            yield started


class Streams(NamedTuple):
    event_cpu_us: float
    first_token: Latency
    kib_per_stream: float
    failed: int
    """Connections whose stream failed: they ask no more."""


NO_STREAMS = Streams(math.nan, Latency(math.nan, math.nan), math.nan, 0)


async def streams(running_peer: RunningPeer, seconds: float) -> Streams:
    """500 at once, each followed by the next; their beginnings are spread over the time that one takes."""
    server, seen = running_peer.server, Seen()
    idle_bytes = server.rss_bytes()
    deadline = time.monotonic() + STREAM_S + seconds
    target = Target(running_peer.peer.name, server.port, running_peer.key, running_peer.peer.path)
    request = target.request(running_peer.peer.model, stream=True, stream_options={"include_usage": True}, **ASKED)

    def next_request() -> bytes | None:
        return request if time.monotonic() < deadline else None

    # Without a rest, streams that end together would begin together, and keep step ever after.
    callers = [await connect(target, seen, next_request, CHUNK_INTERVAL_MS / 1000) for _ in range(STREAMS)]
    for caller in callers:
        asyncio.get_running_loop().call_later(random.uniform(0, STREAM_S), caller.start)
    await asyncio.sleep(STREAM_S)
    seen.first_byte_ns.clear()
    events, cpu_ns = seen.events, server.cpu_ns()
    await asyncio.sleep(seconds)
    events, cpu_ns = seen.events - events, server.cpu_ns() - cpu_ns
    first_token, held_bytes = latency_of(seen.first_byte_ns), server.rss_bytes() - idle_bytes
    ended = await asyncio.gather(*(caller.done for caller in callers), return_exceptions=True)
    failed = sum(isinstance(end, LoadFailed) for end in ended)
    return Streams(cpu_ns / 1000 / events, first_token, held_bytes / 1024 / STREAMS, failed)


@dataclass(frozen=True)
class Bench:
    """The servers that all peers share."""

    plain_port: int
    stream_port: int
    redis_port: int
    peer_core: int
    seconds: float

    def figures(self, peer: Peer) -> PeerFigures:
        with running(peer, self.plain_port, self.redis_port, self.peer_core) as its:
            idle_mib = its.server.rss_bytes() / 2**20
            its.wrk(CONNECTIONS, WARM_S)
            cpu_ns, began = its.server.cpu_ns(), time.monotonic()
            many = its.wrk(CONNECTIONS, self.seconds)
            answers = many.per_second * (time.monotonic() - began)
            cpu_us = (its.server.cpu_ns() - cpu_ns) / 1000 / max(answers, 1)
            one = its.wrk(1, self.seconds)
            refused, unknown = (self._refused(its, key) for key in (SPENT_KEY, UNKNOWN_KEY))
        streamed = NO_STREAMS
        if peer.can_stream:
            with running(peer, self.stream_port, self.redis_port, self.peer_core) as its:
                streamed = uvloop.run(streams(its, self.seconds))
        return PeerFigures(
            plain_per_s=many.per_second,
            plain_cpu_us=cpu_us,
            latency=one.latency,
            event_cpu_us=streamed.event_cpu_us,
            first_token=streamed.first_token,
            idle_mib=idle_mib,
            kib_per_stream=streamed.kib_per_stream,
            refused_per_s=refused,
            unknown_keys_per_s=unknown,
            failed=many.failed + one.failed + streamed.failed,
        )

    def _refused(self, its: RunningPeer, key: str) -> float:
        """Refusals a second. Raises AssertionError where one is none: the first request of a key may be let through."""
        if not its.peer.refuses:
            return math.nan
        seen = its.wrk(CONNECTIONS, self.seconds, key)
        assert seen.failed >= seen.per_second * self.seconds * 0.9, f"{seen} are no refusals"
        return seen.per_second


def refuse_without_programs() -> None:
    """Ends the command where a program is missing that serves answers, counts limits or asks."""
    missing = [name for name in ("nginx", "redis-server", "wrk") if shutil.which(name) is None]
    if missing:
        raise click.ClickException(f"Not installed: {', '.join(missing)}. `make bench-programs` installs what it can.")


@contextmanager
def bench(seconds: float) -> Iterator[Bench]:
    refuse_without_programs()
    load_core, peer_core = two_cores()
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {load_core})
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        place = Place(folder, free_port(), 0, free_port(), "")
        model_server = ["nginx", "-p", str(folder), "-c", str(place.config("model_server.conf"))]
        stack.enter_context(Server(model_server, place.port, {load_core}, folder / "model-server.log"))
        redis = [
            "redis-server",
            "--port",
            str(place.redis_port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        stack.enter_context(Server(redis, place.redis_port, {load_core}, folder / "redis.log"))
        pace = ("--chunks", str(CHUNKS), "--chunk-delay-ms", str(CHUNK_INTERVAL_MS))
        upstream = stack.enter_context(demo_upstream(load_core, folder, *pace))
        yield Bench(place.port, upstream.port, place.redis_port, peer_core, seconds)


# The table.


def medians(rounds: Sequence[PeerFigures]) -> PeerFigures:
    def of(value: Callable[[PeerFigures], float]) -> float:
        return median(map(value, rounds))

    return PeerFigures(
        of(lambda each: each.plain_per_s),
        of(lambda each: each.plain_cpu_us),
        Latency(of(lambda each: each.latency.p50_ms), of(lambda each: each.latency.p99_ms)),
        of(lambda each: each.event_cpu_us),
        Latency(of(lambda each: each.first_token.p50_ms), of(lambda each: each.first_token.p99_ms)),
        of(lambda each: each.idle_mib),
        of(lambda each: each.kib_per_stream),
        of(lambda each: each.refused_per_s),
        of(lambda each: each.unknown_keys_per_s),
        sum(each.failed for each in rounds),
    )


def table(measured: dict[str, PeerFigures]) -> str:
    """In Markdown, a column for each peer."""
    seen = list(measured.values())
    rows = {
        "limits on each request": [PEERS[name].limits for name in measured],
        "plain answers/s, 64 connections": [f"{each.plain_per_s:,.0f}" for each in seen],
        "CPU for one, µs": [f"{each.plain_cpu_us:,.0f}" for each in seen],
        "latency at 1 connection, p50 / p99 ms": [_latency(each.latency) for each in seen],
        "CPU for an event, 500 streams × 20 ms, µs": [f"{each.event_cpu_us:.1f}" for each in seen],
        "first token there, p50 / p99 ms": [_latency(each.first_token) for each in seen],
        "memory idle, MiB": [f"{each.idle_mib:.0f}" for each in seen],
        "requests refused with 429/s, 64 connections": [f"{each.refused_per_s:,.0f}" for each in seen],
        "requests with an unknown key/s": [f"{each.unknown_keys_per_s:,.0f}" for each in seen],
        "answers that failed": [f"{each.failed:,.0f}" for each in seen],
        "memory for an open stream, KiB": [f"{each.kib_per_stream:.0f}" for each in seen],
    }
    rows = {name: [re.sub("nan( / nan)?", "–", cell) for cell in cells] for name, cells in rows.items()}
    head = ["", *(PEERS[name].name for name in measured)]
    lines = [head, ["---", *["--:"] * len(seen)], *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latency(seen: Latency) -> str:
    return f"{seen.p50_ms:.2f} / {seen.p99_ms:.2f}"


@click.command(epilog="Example: python -m bench.peers gateway nginx tensorzero")
@click.argument("peers", nargs=-1, type=click.Choice(list(PEERS)))
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=8.0, show_default=True, help="For each figure.")
@click.option("--write", is_flag=True, help="Write the table into docs/performance.md.")
def main(peers: Sequence[str], rounds: int, seconds: float, write: bool) -> None:
    """Measure the gateway beside other gateways; without a name, beside all."""
    names = peers or list(PEERS)
    measured: dict[str, list[PeerFigures]] = {name: [] for name in names}
    with bench(seconds) as servers:
        for number in range(1, rounds + 1):
            for name in names:
                click.echo(f"round {number} of {rounds}: {PEERS[name].name}", err=True)
                measured[name].append(servers.figures(PEERS[name]))
    shown = table({name: medians(each) for name, each in measured.items()})
    click.echo(shown)
    if write:
        facts = (
            f"Made by `make bench-peers` (rounds: {rounds}, medians, {seconds:g} s for each figure) on: {machine()}."
        )
        write_into(PAGE, f"{BEGIN}\n{shown}\n\n{facts}\n{END}", BEGIN, END)


if __name__ == "__main__":
    main()
