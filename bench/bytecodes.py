"""`python -m bench.bytecodes`: what each stage of a request executes, in bytecodes of Python.

The count is the same on every machine that runs the same version of Python, however busy it is, and needs no tool.
It leaves out what is done in C, which follows it closely: a bytecode stands for some ninety instructions here, as
`python -m bench.instructions` counts them.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from bench import servers
from bench.admission import redis_server
from bench.instructions import LONE_EVENT, LONE_EVENTS, PLAIN, REFUSED, SETTLED_S, UNKNOWN, Load, sent, spend
from bench.load import Target
from bench.traced import Executed

REQUESTS = 80
FUNCTIONS = 40

LOADS = {"plain": PLAIN, "refused": REFUSED, "unknown-key": UNKNOWN}

STAGES = {
    "the listener: aiohttp": "aiohttp/ multidict/ yarl/",
    "the listener: ours": "gateway/web/ gateway/core/url_paths gateway/core/head_outline gateway/core/response",
    "pipeline": "gateway/pipeline gateway/runtime/ gateway/core/exchange asyncio/",
    "authenticate": "gateway/stages/authenticate gateway/identity/",
    "parse": """
        gateway/stages/parse gateway/stages/read gateway/core/json_spans gateway/core/request gateway/core/input_size
        gateway/core/text_weight gateway/core/snapshot gateway/core/end_users
    """,
    "settle": """
        gateway/stages/settle gateway/store/in_redis/settlement gateway/store/in_redis/ledger gateway/store/ledger
        gateway/core/pricing
    """,
    "admit, and the connection to Redis": """
        gateway/stages/admit gateway/store/ gateway/core/limit gateway/core/reservation gateway/core/estimate
        gateway/core/admission gateway/core/buckets
    """,
    "tally": """
        gateway/core/usage gateway/core/plain_tally gateway/core/stream gateway/core/upstream_json
        gateway/core/refusals gateway/core/body_kind
    """,
    "route, forward and relay": "gateway/stages/ gateway/upstream/ gateway/core/",
    "record: the log line and metrics": "gateway/telemetry/ structlog/",
}
"""What belongs to a stage, by the beginnings of its files' names; the first that fits counts."""


def executed(load: Load, requests: int, *, in_redis: bool) -> list[Executed]:
    """What so many requests have executed in the gateway, by function."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        core = max(os.sched_getaffinity(0))
        upstream = stack.enter_context(servers.demo_upstream(core, folder))
        key, output = f"gw_{secrets.token_urlsafe(32)}", folder / "executed.json"
        before = servers.Before(upstream.port, upstream.port, key)
        store: dict[str, object] = {}
        if in_redis:
            redis = stack.enter_context(redis_server(core))
            url = f"unix://{redis.connection_pool.connection_kwargs['path']}"
            store = {"store": {"url": url, "timeout": "10s"}}
        gateway = stack.enter_context(servers.gateway(before, core, folder, ("bench.traced", str(output)), store))
        target = Target("gateway", gateway.port, key)
        spend(target)
        asyncio.run(sent(target, load, requests))
        time.sleep(SETTLED_S)
        gateway.signal(signal.SIGUSR2)
        asyncio.run(sent(target, load, requests))
        time.sleep(SETTLED_S)
        gateway.signal(signal.SIGUSR2)
        while not output.exists() or not output.stat().st_size:
            time.sleep(0.1)
        return msgspec.json.decode(output.read_bytes(), type=list[Executed])


def executed_for_lone_events(*, in_redis: bool) -> tuple[list[Executed], int]:
    """What events that come alone have executed, without their requests, and how many they were: what long streams cost
    more than short ones."""
    short, long = LONE_EVENTS
    before = {(one.file, one.function): one.bytecodes for one in executed(short, short.requests, in_redis=in_redis)}
    more = [
        Executed(one.file, one.function, one.bytecodes - before.get((one.file, one.function), 0))
        for one in executed(long, long.requests, in_redis=in_redis)
    ]
    return more, long.requests * (long.chunks - short.chunks)


def stage_of(file: str) -> str:
    """The stage that a file belongs to."""
    for stage, beginnings in STAGES.items():
        if any(f"/{beginning}" in file or file.startswith(beginning) for beginning in beginnings.split()):
            return stage
    return "other"


@click.command(epilog="Example: python -m bench.bytecodes --functions")
@click.option(
    "--load",
    "name",
    type=click.Choice([*LOADS, "lone-event"]),
    default="plain",
    help="Which requests, or an event of a stream.",
)
@click.option("--store", type=click.Choice(["redis", "memory"]), default="redis", help="Where the limits are counted.")
@click.option("--functions", is_flag=True, help="The functions that execute most, too.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def main(name: str, store: str, functions: bool, as_json: bool) -> None:
    """Count what each stage executes: of a request with four limits, or of an event that comes alone, without its
    request."""
    stages: Counter[str] = Counter()
    in_redis, what, count = store == "redis", LONE_EVENT, REQUESTS
    if load := LOADS.get(name):
        found, what = executed(load, REQUESTS, in_redis=in_redis), load.name
    else:
        found, count = executed_for_lone_events(in_redis=in_redis)
    for one in found:
        stages[stage_of(one.file)] += one.bytecodes
    each = {name: round(bytecodes / count) for name, bytecodes in stages.most_common()}
    if as_json:
        click.echo(json.dumps({"python": sys.version.split()[0], "bytecodes": each}))
        return
    total = sum(each.values())
    click.echo("\n".join(f"{bytecodes:7,}  {bytecodes / total:5.0%}  {name}" for name, bytecodes in each.items()))
    click.echo(f"{total:7,}         for each {what}, Python {sys.version.split()[0]}")
    if functions:
        most = sorted(found, key=lambda one: -one.bytecodes)[:FUNCTIONS]
        click.echo("\n".join(f"{one.bytecodes / count:7,.0f}  {Path(one.file).name}: {one.function}" for one in most))


if __name__ == "__main__":
    main()
