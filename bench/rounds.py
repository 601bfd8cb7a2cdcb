"""One benchmark: the servers start, direct and gateway runs take turns, round by round.

The upstream and this process, which is the load generator, share one core; the gateway has the other.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import uvloop

from bench import measures, servers
from bench.load import Target
from bench.measures import Latency, Rate, Streaming

TURNS = 10

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Plan:
    rounds: int
    plain_s: float
    latency_requests: int
    streaming_s: float


FULL = Plan(rounds=3, plain_s=4.0, latency_requests=2_000, streaming_s=10.0)
QUICK = Plan(rounds=1, plain_s=2.0, latency_requests=500, streaming_s=3.0)


@dataclass
class Pair(Generic[Measured]):
    """The same thing measured against both targets, one right after the other."""

    direct: Measured
    gateway: Measured


@dataclass
class Results:
    """`beside_silence` is latency while many other requests wait for an upstream that never answers; `disturbed` the
    largest share of the gateway's core that other programs took during a run."""

    idle_mib: float = 0.0
    disturbed: float = 0.0
    plain: list[Pair[Rate]] = field(default_factory=list)
    latency: list[Pair[Latency]] = field(default_factory=list)
    beside_silence: list[Latency] = field(default_factory=list)
    streaming: list[Pair[Streaming]] = field(default_factory=list)
    many_streams: list[Pair[Streaming]] = field(default_factory=list)


class Bench:
    """Both servers and their targets, for as long as the `with` lasts."""

    def __init__(self, profile: Path | None = None) -> None:
        self._profile = profile
        self._stack = ExitStack()
        self.results = Results()

    def __enter__(self) -> Bench:
        load_core, self._gateway_core = two_cores()
        with self._stack as stack:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, {load_core})
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            key = f"gw_{secrets.token_urlsafe(32)}"
            self.upstream = stack.enter_context(servers.demo_upstream(load_core, folder))
            silent = stack.enter_context(servers.silent_upstream(load_core, folder))
            before = servers.Before(self.upstream.port, silent.port, key)
            module = ("gateway",) if self._profile is None else ("bench.sampled", str(self._profile))
            self.gateway = stack.enter_context(servers.gateway(before, self._gateway_core, folder, module))
            self._stack = stack.pop_all()
        self.direct = Target("direct", self.upstream.port, key)
        self.through = Target("gateway", self.gateway.port, key)
        self.results.idle_mib = self.gateway.rss_bytes() / 2**20
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def streaming(self, seconds: float) -> None:
        self.results.streaming.append(
            Pair(
                await measures.streaming(self.direct, self.upstream, seconds),
                await self._watched(measures.streaming(self.through, self.gateway, seconds)),
            )
        )

    async def many_streams(self, seconds: float) -> None:
        self.results.many_streams.append(
            Pair(
                await measures.streaming(self.direct, self.upstream, seconds, measures.MANY_STREAMS),
                await self._watched(
                    measures.streaming(self.through, self.gateway, seconds, measures.MANY_STREAMS),
                ),
            )
        )

    async def plain(self, seconds: float) -> None:
        self.results.plain.append(
            Pair(
                await measures.plain_rate(self.direct, self.upstream, seconds),
                await self._watched(measures.plain_rate(self.through, self.gateway, seconds)),
            )
        )

    async def latency(self, requests: int) -> None:
        both = await self._watched(measures.latencies((self.direct, self.through), requests, TURNS))
        self.results.latency.append(Pair(*both))
        async with measures.hanging(self.through):
            (beside,) = await self._watched(measures.latencies((self.through,), requests, TURNS))
        self.results.beside_silence.append(beside)

    async def _watched(self, running: Awaitable[Measured]) -> Measured:
        """Note how much of the gateway's core went to others meanwhile."""
        began_s, cpu_ns, busy_ns = time.monotonic(), self.gateway.cpu_ns(), servers.busy_ns(self._gateway_core)
        measured = await running
        took_s = time.monotonic() - began_s
        others_ns = servers.busy_ns(self._gateway_core) - busy_ns - (self.gateway.cpu_ns() - cpu_ns)
        self.results.disturbed = max(self.results.disturbed, others_ns / 1e9 / took_s)
        return measured


def measured(plan: Plan, say: Callable[[str], None]) -> Results:
    """Streams come first, so that their memory is that of a gateway without a past."""
    with Bench() as bench:
        uvloop.run(_run(bench, plan, say))
        return bench.results


async def _run(bench: Bench, plan: Plan, say: Callable[[str], None]) -> None:
    for number in range(1, plan.rounds + 1):
        say(f"round {number} of {plan.rounds}: streams")
        await bench.streaming(plan.streaming_s)
        say(f"round {number} of {plan.rounds}: plain answers")
        await bench.plain(plan.plain_s)
        await bench.latency(plan.latency_requests)
    say("many streams")
    await bench.many_streams(plan.streaming_s)


def two_cores() -> tuple[int, int]:
    """One for the load and its upstream, one for what is measured."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("The benchmark needs two cores: one for the gateway, one for the load and the upstream.")
    return cores[0], cores[1]
