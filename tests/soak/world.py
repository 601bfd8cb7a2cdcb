"""The processes of a soak: a store that keeps what it was told, gateways of two workers each; the upstream is here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp

from bench.free_ports import free_port
from gateway.demo import DemoScript, DemoUpstream
from tests.soak.stores import SoakStore, soak_store
from tests.whole_gateway import Json, key_settings

TOKEN = "operators-token"
WORKERS = 2
STEADY, LEFT, FLAKY = "steady", "left", "flaky"
"""Models, by what happens to their requests: nothing, a client that leaves, a model server that fails. Each has a team
of its own, so that the ledger of one is compared with the truth of one."""
LIMITED = "limited"
"""A team whose rate is used up all the time."""
BOUNDED = "bounded"
"""A team that always asks for more than its limits let through, so that they can be compared with what it gets."""
BOUNDED_A_SECOND, BOUNDED_AT_ONCE = 20, 3
MODELS = (STEADY, LEFT, FLAKY, BOUNDED)
DAILY_TOKENS = 10**12
START_S = 60.0
POLL_S = 0.2
"""Between two looks at what says nothing when it has happened."""


def key_of(team: str) -> str:
    return f"gw_{team:x<43}"


def configuration(upstream_url: str, redis_url: str, folder: Path, *, generation: int = 0) -> Json:
    """`generation` changes what a reload takes up: a limit, which comes and goes, a price, a model."""
    quota = {"tokens": DAILY_TOKENS, "per": "day"}
    teams: Json = {
        team: {"limits": [quota, {"concurrent": 500}], "keys": [key_settings(f"{team}-key", key_of(team))]}
        for team in (STEADY, LEFT, FLAKY, LIMITED, BOUNDED)
    }
    teams[BOUNDED]["limits"] = [{"requests": BOUNDED_A_SECOND, "per": "second"}, {"concurrent": BOUNDED_AT_ONCE}]
    teams[LIMITED]["limits"].append({"requests": 3 + generation % 3, "per": "second"})
    if generation % 2:
        teams[STEADY]["limits"].append({"tokens": DAILY_TOKENS, "per": "minute"})
    price = {"input": 1 + generation % 4, "output": 2}
    route = {"routes": [{"upstream": "demo"}], "price": price, "max_output_tokens": 1000}
    return {
        "listen": f"127.0.0.1:{free_port()}",
        "admin": {"listen": f"127.0.0.1:{free_port()}", "token": TOKEN},
        "workers": WORKERS,
        "drain": {"delay": "0s", "timeout": "5s"},
        "max_body": "1MiB",
        "store": {"url": redis_url, "journal": str(folder / "journal")},
        "upstreams": {"demo": {"base_url": upstream_url, "max_connections": 512}},
        "models": {**dict.fromkeys(MODELS, route), f"spare-{generation % 3}": route},
        "limits": [{"requests": 10**9, "per": "minute"}],
        "teams": teams,
    }


class GatewayUnderSoak:
    """`gateway serve` with its log in a file, which goes on after a restart. `kill_worker` is survived by the others,
    `kill` by none."""

    def __init__(self, config: Json, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.log = folder / "gateway.log"
        self.file = folder / "gateway.yaml"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://{self.config['listen']}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.config['admin']['listen']}"

    async def start(self) -> None:
        self.write(self.config)
        served = len(self._lines("worker serving"))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "serve", "-c", str(self.file)), stdout=log, stderr=log
            )
        await self.until_workers_serve(served + WORKERS)

    async def until_workers_serve(self, count: int) -> None:
        """So many workers have begun to serve since the first start."""
        async with asyncio.timeout(START_S):
            while len(self._lines("worker serving")) < count:
                await asyncio.sleep(POLL_S)

    @property
    def supervisor_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def worker_pids(self) -> dict[int, int]:
        """Of each worker the process that serves now."""
        return {line["worker"]: line["pid"] for line in self._lines("worker serving")}

    def defects(self) -> list[str]:
        """Lines of the log with a traceback, and failures of the gateway's own."""
        return [line for line in self.log.read_text().splitlines() if '"stack"' in line or "internal_error" in line]

    def write(self, config: Json) -> None:
        """Change the configuration's file at one stroke."""
        changed = self.folder / "changed.yaml"
        changed.write_text(json.dumps(config))
        changed.replace(self.file)

    async def kill_worker(self, worker: int) -> None:
        served = len(self._lines("worker serving"))
        os.kill(self.worker_pids[worker], signal.SIGKILL)
        await self.until_workers_serve(served + 1)

    async def kill(self) -> None:
        """All its processes at once."""
        assert self._process is not None
        for pid in (self._process.pid, *self.worker_pids.values()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        try:
            return await asyncio.wait_for(self._process.wait(), START_S)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def _lines(self, event: str) -> list[Json]:
        marked = f'"event":"{event}"'
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if marked in line]


class World(NamedTuple):
    """All that runs. `session` has no limit of connections. The first gateway, and the first worker of it, live through
    everything."""

    upstream: DemoUpstream
    redis: SoakStore
    gateways: list[GatewayUnderSoak]
    session: aiohttp.ClientSession


@asynccontextmanager
async def soak_world(folder: Path, gateways: int, *, cluster: bool) -> AsyncIterator[World]:
    """All gateways have one store, and one folder of journals."""
    script = DemoScript(chunks=12, chunk_delay_ms=5)
    connector = aiohttp.TCPConnector(limit=0)
    with soak_store(cluster=cluster) as redis:
        async with (
            DemoUpstream(script, models=MODELS) as upstream,
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session,
        ):
            upstream.truth.keep_requests = 0
            running: list[GatewayUnderSoak] = []
            try:
                for number in range(gateways):
                    own = folder / f"gateway-{number}"
                    own.mkdir()
                    running.append(GatewayUnderSoak(configuration(upstream.base_url, redis.url, folder), own))
                    await running[-1].start()
                yield World(upstream, redis, running, session)
            finally:
                for gateway in running:
                    await gateway.stop()
