"""What is measured, against one target at a time, so that direct and gateway runs can take turns."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.load import Seen, Target, connect, run
from bench.servers import MODEL, SILENT_MODEL, Server

PLAIN_CONNECTIONS = 64
HANGING = 200
STREAMS = 500
CHUNK_INTERVAL_MS = 20
CHUNKS_PER_STREAM = 250
SETTLE_S = 1.0
"""Between the ramp and the measurement, so that the rush of beginnings is over."""
TAIL_S = 0.5
"""After the measurement all streams end at once: that rush is not measured either."""


@dataclass(frozen=True)
class Rate:
    """`cpu_us` is the server's processor time for one request."""

    per_second: float
    cpu_us: float


@dataclass(frozen=True)
class Latency:
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class StreamLoad:
    """So many streams at once, which begin within `ramp_s`; each has `chunks` events of content, one each
    `interval_ms`."""

    streams: int
    interval_ms: int
    chunks: int
    ramp_s: float


FAST_STREAMS = StreamLoad(STREAMS, CHUNK_INTERVAL_MS, CHUNKS_PER_STREAM, ramp_s=2.0)
MANY_STREAMS = StreamLoad(2_000, 100, CHUNKS_PER_STREAM, ramp_s=5.0)
"""As models write for people: fewer events than the other load has, for four times as many clients."""


@dataclass(frozen=True)
class Streaming:
    """`first_token` is the time to it, `stall_ms` by how much an event came late at most. Of the server: `cpu_us` of
    processor time for one event, `kib_per_stream` of memory."""

    first_token: Latency
    events_per_second: float
    cpu_us: float
    kib_per_stream: float
    stall_ms: float = 0.0


def latency_of(times_ns: Sequence[int]) -> Latency:
    ordered = sorted(times_ns)
    p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6 for share in (0.50, 0.99))
    return Latency(p50, p99)


async def plain_rate(target: Target, server: Server, seconds: float) -> Rate:
    """Plain answers at 64 connections, each asking again as soon as it is answered."""
    seen = Seen()
    request = target.request(MODEL)
    deadline = time.monotonic() + seconds
    callers = [await connect(target, seen, _until(deadline, request)) for _ in range(PLAIN_CONNECTIONS)]
    began, cpu_ns = time.monotonic(), server.cpu_ns()
    await run(callers)
    took_s, cpu_ns = time.monotonic() - began, server.cpu_ns() - cpu_ns
    answers = len(seen.durations_ns)
    return Rate(answers / took_s, cpu_ns / 1000 / answers)


async def latencies(targets: Sequence[Target], requests: int, turns: int) -> list[Latency]:
    """Of plain answers over one connection; the targets take turns, so that they see the same machine."""
    seen = [Seen() for _ in targets]
    for _ in range(turns):
        for target, its in zip(targets, seen, strict=True):
            await run([await connect(target, its, _times(requests // turns, target.request(MODEL)))])
    return [latency_of(its.durations_ns) for its in seen]


@asynccontextmanager
async def hanging(target: Target) -> AsyncIterator[None]:
    """200 requests wait for an upstream that never answers, as long as the context lasts."""
    writers = []
    for _ in range(HANGING):
        _, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(target.request(SILENT_MODEL))
        writers.append(writer)
    await asyncio.sleep(SETTLE_S)
    yield
    for writer in writers:
        writer.close()
        await writer.wait_closed()


async def streaming(target: Target, server: Server, seconds: float, load: StreamLoad = FAST_STREAMS) -> Streaming:
    """Streams at once; as one ends the next begins, so that first tokens are asked for all the time."""
    seen, idle_bytes = Seen(), server.rss_bytes()
    deadline = time.monotonic() + load.ramp_s + SETTLE_S + seconds + TAIL_S
    # Without a rest, streams that end together would begin together, and keep step ever after.
    rest_s = load.interval_ms / 1000
    callers = [
        await connect(target, seen, _streams(target, load, index, deadline), rest_s) for index in range(load.streams)
    ]
    for caller in callers:
        asyncio.get_running_loop().call_later(random.uniform(0, load.ramp_s), caller.start)
    await asyncio.sleep(load.ramp_s + SETTLE_S)
    seen.first_byte_ns.clear()
    seen.longest_gap_ns = 0
    began, events, cpu_ns = time.monotonic(), seen.events, server.cpu_ns()
    await asyncio.sleep(seconds)
    took_s, events, cpu_ns = time.monotonic() - began, seen.events - events, server.cpu_ns() - cpu_ns
    first_token, held_bytes = latency_of(seen.first_byte_ns), server.rss_bytes() - idle_bytes
    stall_ms = max(0.0, seen.longest_gap_ns / 1e6 - load.interval_ms)
    await asyncio.gather(*(caller.done for caller in callers))
    return Streaming(first_token, events / took_s, cpu_ns / 1000 / events, held_bytes / 1024 / load.streams, stall_ms)


def _until(deadline: float, request: bytes) -> Callable[[], bytes | None]:
    return lambda: request if time.monotonic() < deadline else None


def _times(count: int, request: bytes) -> Callable[[], bytes | None]:
    left = iter([request] * count)
    return lambda: next(left, None)


def _streams(target: Target, load: StreamLoad, index: int, deadline: float) -> Callable[[], bytes | None]:
    """The first stream of each connection is shorter, by another length each, so that their ends spread out."""
    lengths = iter([max(1, load.chunks * (index + 1) // load.streams)])

    def next_request() -> bytes | None:
        left_ms = 1000 * (deadline - time.monotonic())
        if left_ms <= load.interval_ms:
            return None
        chunks = min(next(lengths, load.chunks), int(left_ms / load.interval_ms))
        return target.request(MODEL, stream=True, demo={"chunks": chunks, "chunk_delay_ms": load.interval_ms})

    return next_request
