"""`python -m bench.stream_memory`: what an open stream takes of the gateway's memory, and which objects it is.

Two gateways have the same streams open: of one the resident memory is read, which is what counts. The other one counts
the objects, which takes memory itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import click
import msgspec

from bench import servers
from bench.admission import redis_server
from bench.load import Caller, Seen, Target, connect
from bench.weighed import Held, Weights

STREAMS = 500
WARM_UP = 4
"""Streams that end before: what is made once is there then. Few, since others take the memory that they leave."""

DELAY_MS = 1_000
"""Between two events."""

EVENTS = 2
"""Of each stream, before anything is weighed: it is past its beginning then."""

OPEN_TIMEOUT_S = 120.0
SETTLED_S = 2.0
SHOWN = 40
ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def opened(target: Target, streams: int) -> AsyncIterator[None]:
    """So many streams are open and past their beginning, for as long as the context lasts."""
    seen = Seen()
    request = target.request(
        servers.MODEL, stream=True, demo={"chunks": 100_000, "chunk_delay_ms": DELAY_MS}, max_tokens=200_000
    )
    callers: list[Caller] = []
    for _ in range(streams):
        callers.append(await connect(target, seen, lambda: request))
        callers[-1].start()
        await asyncio.sleep(0)
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while seen.events < EVENTS * streams or len(seen.first_byte_ns) < streams:
        if time.monotonic() > deadline:
            raise click.ClickException(f"{len(seen.first_byte_ns)} of {streams} streams have begun.")
        await asyncio.sleep(0.1)
    yield
    for caller in callers:
        caller.leave()


def _weights(gateway: servers.Server, output: Path) -> Weights:
    output.unlink(missing_ok=True)
    gateway.signal(signal.SIGUSR2)
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while not output.exists():
        if time.monotonic() > deadline:
            raise click.ClickException("The gateway has not weighed its objects.")
        time.sleep(0.1)
    return msgspec.json.decode(output.read_bytes(), type=Weights)


async def resident(gateway: servers.Server, target: Target, streams: int) -> float:
    """Bytes of resident memory for each stream."""
    async with opened(target, WARM_UP):
        pass
    await asyncio.sleep(SETTLED_S)
    before = gateway.rss_bytes()
    async with opened(target, streams):
        return (gateway.rss_bytes() - before) / streams


async def weighed(gateway: servers.Server, target: Target, streams: int, output: Path) -> tuple[Weights, Weights]:
    """What there is without streams, and with them."""
    async with opened(target, WARM_UP):
        pass
    await asyncio.sleep(SETTLED_S)
    before = _weights(gateway, output)
    async with opened(target, streams):
        return before, _weights(gateway, output)


def measured(streams: int, *, with_redis: bool) -> tuple[float, Weights, Weights]:
    """Bytes of resident memory for each stream, then what there is without streams and with them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        core, output = max(os.sched_getaffinity(0)), folder / "weights.json"
        upstream = stack.enter_context(servers.demo_upstream(core, folder))
        key = f"gw_{secrets.token_urlsafe(32)}"
        before = servers.Before(upstream.port, upstream.port, key)
        more: dict[str, object] = {}
        if with_redis:
            redis = stack.enter_context(redis_server(core))
            more = {"store": {"url": f"unix://{redis.connection_pool.connection_kwargs['path']}", "timeout": "10s"}}
        with servers.gateway(before, core, folder, more=more) as gateway:
            size = asyncio.run(resident(gateway, Target("gateway", gateway.port, key), streams))
        with servers.gateway(before, core, folder, ("bench.weighed", str(output)), more) as gateway:
            found = asyncio.run(weighed(gateway, Target("gateway", gateway.port, key), streams, output))
        return size, *found


def added(before: Mapping[str, Held], after: Mapping[str, Held], streams: int) -> list[tuple[float, float, str]]:
    """Of each stream: bytes, how many, and what; the most bytes first."""
    nothing = Held(0, 0)
    added = [
        (
            (held.size - before.get(name, nothing).size) / streams,
            (held.count - before.get(name, nothing).count) / streams,
            name,
        )
        for name, held in after.items()
    ]
    return sorted(added, reverse=True)


def _table(rows: list[tuple[float, float, str]], shown: int) -> str:
    lines = [f"{size:8,.0f} {count:6.1f}  {name.removeprefix(f'{ROOT}/')}" for size, count, name in rows[:shown]]
    return "\n".join([*lines, f"{sum(row[0] for row in rows):8,.0f} {sum(row[1] for row in rows):6.1f}  in all"])


@click.command(epilog="Example: python -m bench.stream_memory --streams 2000")
@click.option("--streams", default=STREAMS, help="How many are open at once.", show_default=True)
@click.option("--redis", "with_redis", is_flag=True, help="With the store in Redis, else in memory.")
@click.option("--rows", default=SHOWN, help="How many types and lines are shown.", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The bytes of a stream as JSON.")
def main(streams: int, with_redis: bool, rows: int, as_json: bool) -> None:
    """Measure what an open stream takes of the gateway's memory."""
    size, before, after = measured(streams, with_redis=with_redis)
    by_type, by_place = added(before.types, after.types, streams), added(before.places, after.places, streams)
    if as_json:
        click.echo(json.dumps({"resident": size, "allocated": sum(row[0] for row in by_place)}))
        return
    click.echo(
        f"Resident memory of an open stream: {size / 1024:.1f} KiB\n\n   bytes  count  by the line that allocated"
    )
    click.echo(_table(by_place, rows))
    click.echo("\n   bytes  count  by type, of what the collector of garbage sees")
    click.echo(_table(by_type, rows))


if __name__ == "__main__":
    main()
