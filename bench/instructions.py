"""`python -m bench.instructions`: how many instructions a request costs the gateway, and whether that is too many.

Time says little on a machine that others share; instructions, as valgrind's callgrind counts them, are the same to
half a percent however busy it is. What is counted is the gateway's process alone, with four limits in Redis and the
ledger on; the kernel's part is not in it. Since the interpreter and the machine's libraries differ, too, a budget is
in units of a loop of Python code that is counted in the same run (`CALIBRATION`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from bench import servers
from bench.admission import redis_server
from bench.free_ports import free_port
from bench.load import Seen, Target, connect, run

BUDGET = Path(__file__).with_name("instructions.json")
"""The most that each load may cost, in loops of the calibration."""
MOST_TOKENS = 200
START_TIMEOUT_S = 180.0
"""Under callgrind a start takes fifty times as long."""

SETTLED_S = 2.0
"""What follows an answer, settlement and the log line, is over then: so it is counted with its own request."""

CALIBRATION = """
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def moved(self, by):
        return Point(self.x + by, self.y - by)

def work(count):
    seen = {}
    for number in range(count):
        point = Point(number, 1).moved(2)
        seen[f"{point.x & 63}"] = (point.y, [point.x])

import sys
work(int(sys.argv[1]))
"""
"""Calls, attributes, small objects, a text and a dictionary: what the way of a request is made of."""

_LOOPS = 20_000


@dataclass(frozen=True)
class Load:
    """So many requests, after some to warm up, at so many connections. Refusals are asked for with another `key`, and
    have this `status`. The events of a stream come as fast as they can, or, where there is one, after a delay each;
    then there are `chunks` with content."""

    name: str
    requests: int
    warm_up: int
    stream: bool = False
    key: str = ""
    status: int = 200
    connections: int = 8
    delay_ms: int = 0
    chunks: int = 0


PLAIN = Load("plain answer", 400, 160)
STREAMED = Load("streamed event", 40, 16, stream=True)
UNKNOWN = Load("unknown key", 400, 160, key=servers.UNKNOWN_KEY, status=401)
REFUSED = Load("refusal by a limit", 400, 160, key=servers.SPENT_KEY, status=429)
"""All but the first repeat it, without Redis."""
LOADS = (PLAIN, STREAMED, REFUSED, UNKNOWN)
LONE_EVENT = "lone event"

LONE_DELAY_MS = 10
"""Between two events of a stream that come alone: much longer than one takes under callgrind."""

LONE_EVENTS = (
    Load("short streams", 8, 4, stream=True, connections=4, delay_ms=LONE_DELAY_MS, chunks=20),
    Load("long streams", 8, 4, stream=True, connections=4, delay_ms=LONE_DELAY_MS, chunks=MOST_TOKENS),
)
"""What the long ones cost more than the short ones is that of events that come alone."""


@contextmanager
def counted_gateway(folder: Path, upstream_port: int, store_url: str, key: str) -> Iterator[tuple[Target, int]]:
    """A gateway under callgrind, which counts nothing yet; and its process id."""
    port = free_port()
    before = servers.Before(upstream_port, upstream_port, key)
    settings = servers.settings(port, before) | {"store": {"url": store_url, "timeout": "10s"}}
    (folder / "gateway.yaml").write_bytes(msgspec.json.encode(settings))
    command = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counted"),
        *(sys.executable, "-m", "bench.counted", "serve", "-c", str(folder / "gateway.yaml")),
    ]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PYTHONHASHSEED": "0"})
    try:
        target = Target("gateway", port, key)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not servers.listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException(
                    f"The gateway does not listen:\n{(folder / 'gateway.log').read_text()[-2000:]}"
                )
            time.sleep(0.2)
        yield target, process.pid
    finally:
        process.terminate()
        try:
            process.wait(servers.STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Cost(NamedTuple):
    """What a load cost in all, and how many events came of it."""

    instructions: int
    events: int


def cost_of(load: Load, target: Target, pid: int, folder: Path) -> Cost:
    asyncio.run(sent(target, load, load.warm_up))
    time.sleep(SETTLED_S)
    _control(pid, "--zero")
    events = asyncio.run(sent(target, load, load.requests))
    time.sleep(SETTLED_S)
    _control(pid, "--dump")
    newest = max(folder.glob("counted.*"), key=lambda path: path.stat().st_mtime_ns)
    return Cost(_total(newest), events)


def instructions_of(load: Load, target: Target, pid: int, folder: Path) -> float:
    """Instructions for each request of a load, or for each event of its streams."""
    cost = cost_of(load, target, pid, folder)
    return cost.instructions / (cost.events if load.stream else load.requests)


def instructions_of_a_lone_event(target: Target, pid: int, folder: Path) -> float:
    """Instructions for an event that comes alone, without a share of its request's."""
    short, long = (cost_of(load, target, pid, folder) for load in LONE_EVENTS)
    return (long.instructions - short.instructions) / (long.events - short.events)


async def sent(target: Target, load: Load, requests: int) -> int:
    """Send so many; give the number of events that came."""
    target = replace(target, key=load.key or target.key, status=load.status)
    seen, left = Seen(), iter(range(requests))
    fields: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if load.stream else {}
    if load.delay_ms:
        fields["demo"] = {"chunks": load.chunks, "chunk_delay_ms": load.delay_ms}
    request = target.request(servers.MODEL, max_tokens=MOST_TOKENS, **fields)
    await run(
        [
            await connect(target, seen, lambda: request if next(left, None) is not None else None)
            for _ in range(load.connections)
        ]
    )
    return seen.events


def spend(target: Target) -> None:
    """Use up the limit of the key of the `REFUSED`."""
    asyncio.run(sent(target, replace(PLAIN, key=servers.SPENT_KEY), 1))


def instructions_of_a_loop(folder: Path) -> float:
    """Instructions for one turn of the calibration's loop."""
    totals = []
    for loops in (_LOOPS, 2 * _LOOPS):
        output = folder / f"calibration-{loops}"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
        subprocess.run(
            [*command, sys.executable, "-I", "-c", CALIBRATION, str(loops)],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )
        totals.append(_total(output))
    return (totals[1] - totals[0]) / _LOOPS


def _control(pid: int, order: str) -> None:
    subprocess.run(["callgrind_control", "--instr=on", str(pid)], check=True, capture_output=True, timeout=120)
    subprocess.run(["callgrind_control", order, str(pid)], check=True, capture_output=True, timeout=120)


def _total(output: Path) -> int:
    found = re.findall(r"^(?:summary|totals): (\d+)", output.read_text(errors="replace"), re.MULTILINE)
    return int(found[-1])


def counted() -> dict[str, float]:
    """The instructions of each load, of a lone event, and of a loop of the calibration."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cores = sorted(os.sched_getaffinity(0))
        upstream = stack.enter_context(servers.demo_upstream(cores[-1], folder))
        redis = stack.enter_context(redis_server(cores[-1]))
        url = f"unix://{redis.connection_pool.connection_kwargs['path']}"
        key = f"gw_{secrets.token_urlsafe(32)}"
        target, pid = stack.enter_context(counted_gateway(folder, upstream.port, url, key))
        spend(target)
        figures = {load.name: instructions_of(load, target, pid, folder) for load in LOADS}
        figures[LONE_EVENT] = instructions_of_a_lone_event(target, pid, folder)
        return figures | {"loop": instructions_of_a_loop(folder)}


@click.command(epilog="Example: python -m bench.instructions --check")
@click.option("--check", is_flag=True, help="Fail where a figure is above its budget in bench/instructions.json.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def main(check: bool, as_json: bool) -> None:
    """Count the gateway's instructions for a plain answer, for a request that a limit refuses or whose key is unknown,
    and for an event of a stream: one of a few that come at once, with its share of the request, and one that comes
    alone, without."""
    figures = counted()
    if as_json:
        click.echo(json.dumps(figures))
        return
    budgets = msgspec.json.decode(BUDGET.read_bytes(), type=dict[str, float])
    over, loop = [], figures.pop("loop")
    for name, instructions in figures.items():
        loops, most = instructions / loop, budgets[name]
        click.echo(f"{name}: {instructions:,.0f} instructions, {loops:.1f} loops of the calibration (budget: {most})")
        over += [name] if loops > most else []
    if check and over:
        raise click.ClickException(f"over budget: {', '.join(over)}. Look with `make bench BENCH_ARGS=--profile`.")


if __name__ == "__main__":
    main()
