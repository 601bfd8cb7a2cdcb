"""Two gateways behind nginx with the shipped settings, one Redis for both: what clients notice, which is nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bench.free_ports import free_port
from tests.deploy.load import KEYS, MODEL, configuration
from tests.deploy.processes import (
    PATIENCE_S,
    ROOT,
    Json,
    Running,
    demo_upstream,
    gateway_at,
    redis,
    run,
    running,
    tool,
)
from tests.deploy.prometheus import prometheus

pytestmark = pytest.mark.slow

SHIPPED = ROOT / "deploy" / "nginx" / "gateway.conf"
AROUND = """
daemon off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    include {shipped};
}}
"""


class Site:
    """The whole of it, as clients and operators reach it."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, config: Json) -> None:
        self.folder = folder
        self.session = session
        self.config = config
        self.port = free_port()
        self.data = [free_port(), free_port()]
        self.admin = [free_port(), free_port()]

    def gateway(self, number: int) -> Any:
        addresses = {
            "listen": f"127.0.0.1:{self.data[number]}",
            "admin": {"listen": f"127.0.0.1:{self.admin[number]}"},
        }
        return gateway_at({**self.config, **addresses}, self.folder)

    def post(self, team: str = "search", **fields: Any) -> Any:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], **fields}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        return self.session.post(url, json=body, headers={"authorization": f"Bearer {KEYS[team]}"})

    def nginx_config(self) -> Path:
        shipped = SHIPPED.read_text(encoding="utf-8")
        moves = {
            "127.0.0.1:8081": f"127.0.0.1:{self.data[0]}",
            "127.0.0.1:8082": f"127.0.0.1:{self.data[1]}",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
        }
        for there, here in moves.items():
            assert shipped.count(there) == 1
            shipped = shipped.replace(there, here)
        (self.folder / "gateway.conf").write_text(shipped, encoding="utf-8")
        file = self.folder / "nginx.conf"
        file.write_text(AROUND.format(shipped=self.folder / "gateway.conf"), encoding="utf-8")
        return file


@asynccontextmanager
async def site(folder: Path, **changes: Any) -> AsyncIterator[Site]:
    """nginx, Redis and the model server; the gateways are started by the test."""
    async with redis(folder) as store, demo_upstream() as upstream, aiohttp.ClientSession() as session:
        here = Site(folder, session, {**configuration(upstream, upstream, store), **changes})
        command = (tool("nginx"), "-p", str(folder), "-c", str(here.nginx_config()))
        await run(*command, "-t")
        async with running(*command):
            await accepted(here.port)
            yield here


async def accepted(port: int) -> None:
    """Wait until something listens there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0)
                continue
            writer.close()
            return


async def test_a_stream_passes_unbuffered(tmp_path: Path) -> None:
    """The model server falls silent after three events: the client has them while the answer is still open."""
    silent = {"halt": "hang", "halt_after": 3}
    async with (
        site(tmp_path) as here,
        here.gateway(0),
        here.gateway(1),
        here.post(stream=True, demo=silent) as answer,
    ):
        seen = [await asyncio.wait_for(answer.content.readuntil(b"\n\n"), PATIENCE_S) for _ in range(3)]
        assert all(event.startswith(b"data: ") for event in seen)
        assert not answer.content.at_eof()


async def test_limits_are_shared(tmp_path: Path) -> None:
    """Twelve requests a day, asked of both gateways at once by far more clients: twelve are answered."""
    limit = {"requests": 12, "per": "day", "name": "twelve"}
    async with site(tmp_path, limits=[limit]) as here, here.gateway(0) as first, here.gateway(1) as second:
        statuses = await asyncio.gather(*(status_of(here) for _ in range(60)))
        for each in (first, second):
            await each.line(lambda line: '"event":"request"' in line)
    assert sorted(statuses) == [200] * 12 + [429] * 48


async def status_of(here: Site) -> int:
    async with here.post() as answer:
        await answer.read()
        return int(answer.status)


async def test_a_rolling_replacement_cuts_nothing(tmp_path: Path) -> None:
    """While clients ask without a pause, each gateway is told to go, ends by itself and is started anew."""
    drain = {"delay": "1s", "timeout": "20s"}
    async with site(tmp_path, drain=drain) as here, here.gateway(1) as other:
        over = asyncio.Event()
        async with here.gateway(0) as one, asyncio.TaskGroup() as clients:
            asking = [clients.create_task(ask_until(over, here)) for _ in range(16)]
            await one_of_each(here)
            await replaced(one)
            async with here.gateway(0):
                await one_of_each(here)
                await replaced(other)
                async with here.gateway(1):
                    await one_of_each(here)
                    over.set()
                    told = [each for task in asking for each in await task]
    assert len(told) > 100
    assert [each for each in told if each != "whole"] == []


async def replaced(program: Running) -> None:
    program.process.terminate()
    assert await program.ended() == 0


async def one_of_each(here: Site) -> None:
    assert await outcome_of(here, stream=True) == "whole"
    assert await outcome_of(here, stream=False) == "whole"


async def ask_until(over: asyncio.Event, here: Site) -> list[str]:
    """How each of one client's requests went, streams and plain ones in turn."""
    told: list[str] = []
    while not over.is_set():
        told.append(await outcome_of(here, stream=len(told) % 2 == 0))
    return told


async def outcome_of(here: Site, *, stream: bool) -> str:
    try:
        async with here.post(stream=stream, demo={"chunks": 20, "chunk_delay_ms": 20}) as answer:
            body = await answer.read()
    except aiohttp.ClientError as error:
        return repr(error)
    if answer.status != 200:
        return f"{answer.status} {body.decode()}"
    if stream:
        return "whole" if body.endswith(b"data: [DONE]\n\n") else "cut"
    return "whole" if json.loads(body)["usage"]["completion_tokens"] == 20 else "wrong"


async def test_prometheus_sums_over_both(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.gateway(0), here.gateway(1):
        statuses = await asyncio.gather(*(status_of(here) for _ in range(20)))
        assert set(statuses) == {200}
        admins = [f"127.0.0.1:{port}" for port in here.admin]
        async with prometheus(tmp_path, *admins) as watcher:
            while len(counted := await watcher.ask("gateway_requests_total")) < len(admins):
                await status_of(here)
            total = await watcher.ask("sum(gateway_requests_total)")
    assert {each["metric"]["instance"] for each in counted} == set(admins)
    assert float(total[0]["value"][1]) >= 20
