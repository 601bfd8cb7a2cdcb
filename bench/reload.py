"""What a reload of a large configuration adds to requests: `python -m bench.reload`.

A gateway with thousands of keys is under a steady load that leaves its core half idle. Spells without a reload and
spells in which the configuration is reloaded again and again take turns. In each spell every request is timed. With
`--one-core` the gateway and the process that reads its configuration share a core, as in a small container.

Other programs of the machine are in those times. What a reload itself does to the event loop is measured apart: the
longest turn of a loop in which nothing else happens, in processor time.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import uvloop

from bench import servers
from bench.free_ports import free_port
from bench.load import Seen, Target, connect, run
from bench.servers import MODEL, Server
from gateway.app.gateway import Gateway
from gateway.app.reload import Reloader
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.settings.loading import load
from gateway.telemetry.log import Log

CONNECTIONS = 16
REST_S = 0.04
"""Between an answer and the connection's next request, at most: about 500 requests a second."""

TOKEN = "operators-token"  # noqa: S105 # For a gateway that lives as long as the benchmark.
AIM_MS = 20.0
TURNS_AFTER = 1_000
"""Of the loop after a reload: enough to let go of the old snapshot."""

LIMITS = [
    {"requests": 1_000_000, "per": "minute"},
    {"tokens": 1_000_000_000, "per": "minute"},
    {"tokens": 1_000_000_000, "per": "month"},
    {"usd": 1_000_000, "per": "month"},
    {"concurrent": 1_000},
]


@dataclass(frozen=True)
class Spell:
    """Milliseconds of the requests of one spell, and how often the configuration was reloaded in it."""

    requests: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    reloads: int = 0


def spell(durations_ns: Sequence[int], reloads: int) -> Spell:
    ordered = [duration / 1e6 for duration in sorted(durations_ns)]
    p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    return Spell(len(ordered), p50, p99, ordered[-1], reloads)


def configuration(keys: int, key: str, port: int, admin_port: int, upstream_port: int) -> dict[str, object]:
    made = [
        {"name": f"k{number}", "sha256": hashlib.sha256(b"%d" % number).hexdigest(), "limits": LIMITS}
        for number in range(keys - 1)
    ]
    return {
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{admin_port}", "token": TOKEN},
        "drain": {"delay": "0s", "timeout": "5s"},
        "upstreams": {"demo": {"base_url": f"http://127.0.0.1:{upstream_port}/v1"}},
        "models": {MODEL: {"routes": [{"upstream": "demo"}], "price": servers.PRICE, "max_output_tokens": 1000}},
        "teams": {"bench": {"keys": [{"name": "bench", "key": key, "limits": LIMITS}, *made]}},
    }


class Measurement:
    """A gateway under load, and what reloads it."""

    def __init__(self, target: Target, admin_port: int) -> None:
        self._request = target.request(MODEL)
        self._door = target
        self._admin = f"http://127.0.0.1:{admin_port}/admin/v1/reload"

    async def spell(self, seconds: float, *, reloading: bool) -> Spell:
        """At least so long; with reloads, until the last one that began has ended."""
        seen, ended = Seen(), asyncio.Event()
        callers = [
            await connect(self._door, seen, lambda: None if ended.is_set() else self._request, REST_S)
            for _ in range(CONNECTIONS)
        ]
        load = asyncio.ensure_future(run(callers))
        began, reloads = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            if reloading:
                await asyncio.to_thread(self._reload)
                reloads += 1
            else:
                await asyncio.sleep(0.1)
        ended.set()
        await load
        return spell(seen.durations_ns, reloads)

    def _reload(self) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(self._admin, method="POST", headers=headers)  # noqa: S310 # Of loopback.
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            assert answer.status == 200, "the configuration is valid"


async def _measure(measurement: Measurement, rounds: int, seconds: float) -> tuple[list[Spell], list[Spell]]:
    await measurement.spell(2.0, reloading=False)
    quiet, reloading = [], []
    for number in range(1, rounds + 1):
        click.echo(f"round {number} of {rounds}", err=True)
        quiet.append(await measurement.spell(seconds, reloading=False))
        reloading.append(await measurement.spell(seconds, reloading=True))
    return quiet, reloading


async def longest_turn_ms(config: Path) -> float:
    """Of the event loop while a gateway swaps its snapshot and lets go of the old one, in processor time."""
    loaded = loaded_snapshot(load(config, {}).settings)
    gateway = Gateway(loaded, Log(lambda line: None))
    reloader = Reloader(str(config), gateway, Log(lambda line: None), loaded.settings)
    gc.collect()
    gc.freeze()
    reloading = asyncio.ensure_future(reloader.reload("bench"))
    longest, before, turns_after = 0.0, time.thread_time(), 0
    while turns_after < TURNS_AFTER:
        await asyncio.sleep(0 if reloading.done() else 0.0001)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
        turns_after += reloading.done()
    assert await reloading == [], "the configuration is valid"
    await gateway.close()
    return longest * 1000


def table(quiet: Sequence[Spell], reloading: Sequence[Spell], turn_ms: float) -> str:
    rows = ["| | without a reload | while reloading | added |", "| --- | --- | --- | --- |"]
    for name, field in (("slowest request", "slowest_ms"), ("p99", "p99_ms"), ("p50", "p50_ms")):
        before, during = (statistics.median([getattr(one, field) for one in spells]) for spells in (quiet, reloading))
        aim = f" (aim: {AIM_MS:.0f})" if field == "slowest_ms" else ""
        rows.append(f"| {name} | {before:.1f} ms | {during:.1f} ms | {during - before:.1f} ms{aim} |")
    requests, reloads = sum(one.requests for one in reloading), sum(one.reloads for one in reloading)
    facts = f"Medians of {len(quiet)} rounds; {reloads} reloads under {requests:,} requests."
    return "\n".join([*rows, "", facts, f"The longest turn of the event loop by a reload itself: {turn_ms:.1f} ms."])


@click.command(epilog="Example: python -m bench.reload --rounds 1")
@click.option("--keys", default=10_000, show_default=True, help="Keys of the configuration, with five limits each.")
@click.option("--rounds", default=3, show_default=True, help="Each has a spell without reloads and one with.")
@click.option("--seconds", default=10.0, show_default=True, help="Of a spell.")
@click.option("--one-core", is_flag=True, help="The reading process has no core but the gateway's.")
@click.option("--json", "as_json", is_flag=True, help="Each spell, as JSON.")
def main(keys: int, rounds: int, seconds: float, one_core: bool, as_json: bool) -> None:
    """Measure the slowest request while the configuration is reloaded, beside the same without a reload."""
    load_core, gateway_core = sorted(os.sched_getaffinity(0))[:2]
    cores = {gateway_core} if one_core else {load_core, gateway_core}
    os.sched_setaffinity(0, {load_core})
    key = f"gw_{secrets.token_urlsafe(32)}"
    port, admin_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with servers.demo_upstream(load_core, folder) as upstream:
            config = folder / "gateway.yaml"
            config.write_text(json.dumps(configuration(keys, key, port, admin_port, upstream.port), indent=1))
            command = [sys.executable, "-m", "gateway", "serve", "-c", str(config)]
            with Server(command, port, cores, folder / "gateway.log"):
                measurement = Measurement(Target("gateway", port, key), admin_port)
                quiet, reloading = uvloop.run(_measure(measurement, rounds, seconds))
            turn_ms = uvloop.run(longest_turn_ms(config))
    if as_json:
        spells = {"quiet": [asdict(one) for one in quiet], "reloading": [asdict(one) for one in reloading]}
        click.echo(json.dumps({**spells, "longest_turn_ms": turn_ms}, indent=2))
    else:
        click.echo(table(quiet, reloading, turn_ms))


if __name__ == "__main__":
    main()
