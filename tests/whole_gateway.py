"""A whole gateway on loopback ports, in the event loop of a test, as clients and operators see it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from gateway.app.gateway import Gateway
from gateway.app.snapshot_builder import loaded_snapshot
from gateway.core.clock import Clock
from gateway.core.exchange import Exchange
from gateway.runtime.system_clock import SystemClock
from gateway.settings.loading import parse
from gateway.settings.models import Settings
from gateway.store.contract import UsageQuery, UsageRow
from gateway.telemetry.log import Log
from gateway.web.admin_api import PAGES
from gateway.web.admin_openapi import PREFIX
from gateway.web.admin_routes import AdminRequest
from tests.kept_secrets import SHORTEST, leaks, library_log, secrets_in, stored

UPSTREAM_KEY = "sk-of-the-upstream-7Qm2Vx9Tz4Lw8Rn3"
KEY = "gw_kNcL5Yz0Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKc"
MODEL = "openai/gpt-oss-120b"
PATIENCE_S = 10.0
"""After which a test that waits for something gives up."""

Json = dict[str, Any]


class Reply(NamedTuple):
    """An answer as a client has it. `broken` says that it ended before its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: bool = False

    @property
    def json(self) -> Json:
        parsed: Json = json.loads(self.body)
        return parsed

    @property
    def error(self) -> Json:
        told: Json = self.json["error"]
        return told

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        lines = [line for line in self.body.decode().split("\n") if not line.startswith(":")]
        blocks = "\n".join(lines).split("\n\n")
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def chunks(self) -> list[Json]:
        return [json.loads(data) for data in self.events if data != "[DONE]"]


class LiveStream:
    """A streamed answer that is still coming."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer

    async def event(self) -> bytes:
        """The next event, with the blank line that ends it. Raises ClientPayloadError where the stream breaks."""
        return await asyncio.wait_for(self._answer.content.readuntil(b"\n\n"), PATIENCE_S)

    async def comment(self) -> bytes:
        """The next line, which is a comment's."""
        return await asyncio.wait_for(self._answer.content.readuntil(b"\n"), PATIENCE_S)

    async def rest(self) -> Reply:
        try:
            return await asyncio.wait_for(_reply(self._answer), PATIENCE_S)
        finally:
            self._answer.close()  # One that broke is not given back by itself.

    def leave(self) -> None:
        """Close the connection in the middle of the answer."""
        self._answer.close()


class WholeGateway:
    """`lines` are what it logged, as parsed JSON; `ended` gives finished exchanges in order. `secrets` are what none of
    its outputs may have: those of its configuration, and the keys that it was asked with."""

    def __init__(self, gateway: Gateway, lines: list[bytes], session: aiohttp.ClientSession, config: Json) -> None:
        self.gateway = gateway
        self.session = session
        self.port = 0
        self.admin_port = 0
        self.secrets = secrets_in(config) | {KEY}
        self._config = config
        self._lines = lines
        self._answers: list[bytes] = []
        self._ended: asyncio.Queue[Exchange] = asyncio.Queue()
        gateway.services.recorders = (*gateway.services.recorders, self._ended.put_nowait)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def lines(self) -> list[Json]:
        return [json.loads(line) for line in self._lines]

    def let_the_kernel_hold_little(self) -> None:
        """What clients do not read then stays in the gateway's own buffers."""
        server, *_ = self.gateway._open[0].servers
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)

    async def ended(self) -> Exchange:
        """The next exchange that is settled and recorded."""
        return await asyncio.wait_for(self._ended.get(), PATIENCE_S)

    async def chat(self, *, key: str = KEY, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        """POST a chat completion; `fields` change the body."""
        return await self.post(json.dumps(chat_body(**fields)).encode(), key=key, headers=headers)

    async def open_stream(self, *, key: str = KEY, **fields: Any) -> LiveStream:
        """A streamed chat completion, to be read event by event; returns with its head."""
        body = chat_body(stream=True, **fields)
        headers = {"authorization": f"Bearer {key}"}
        return LiveStream(await self.session.post(f"{self.url}/chat/completions", json=body, headers=headers))

    async def ledger(self) -> UsageRow:
        """The sum of all that was billed."""
        rows = await self.gateway.store.usage(UsageQuery())
        return rows[0] if rows else UsageRow()

    async def post(
        self,
        body: bytes,
        *,
        path: str = "/v1/chat/completions",
        key: str = KEY,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        self.secrets |= {key} if len(key) >= SHORTEST else set()
        given = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
        return await self.request("POST", path, data=body, headers=given)

    async def request(self, method: str, path: str, *, admin: bool = False, **options: Any) -> Reply:
        port = self.admin_port if admin else self.port
        async with self.session.request(method, f"http://127.0.0.1:{port}{path}", **options) as answer:
            reply = await _reply(answer)
        self._answers += [repr(dict(reply.headers)).encode(), reply.body]
        return reply

    async def written(self) -> dict[str, bytes]:
        """All that operators can see of it, and what clients were answered."""
        token = self._config.get("admin", {}).get("token", "")
        headers = {"authorization": f"Bearer {token}"}
        pages = {}
        for page in PAGES if token else ():
            answer = await self.gateway.admin.admin_api(AdminRequest("GET", f"{PREFIX}{page}", headers=headers))
            pages[f"the admin API's {page}"] = answer.body
        exposition, _ = await self.gateway.admin.metrics()
        return {"metrics": exposition, "answers": b"\n".join(self._answers), **pages}

    async def metrics(self) -> str:
        return (await self.request("GET", "/metrics", admin=True)).body.decode()


async def _reply(answer: aiohttp.ClientResponse) -> Reply:
    pieces: list[bytes] = []
    try:
        async for piece in answer.content.iter_any():
            pieces.append(piece)
    except aiohttp.ClientPayloadError:
        return Reply(answer.status, answer.headers, b"".join(pieces), broken=True)
    return Reply(answer.status, answer.headers, b"".join(pieces))


def chat_body(**fields: Any) -> Json:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], **fields}


def configuration(*upstream_urls: str, team: Json | None = None, model: Json | None = None, **changes: Any) -> Json:
    """A configuration with one model, one team `search` and one key, and a route to each upstream in turn."""
    upstreams = {f"up{n}": {"base_url": url, "api_key": UPSTREAM_KEY} for n, url in enumerate(upstream_urls, 1)}
    routes = [{"upstream": name, "priority": number} for number, name in enumerate(upstreams, 1)]
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "drain": {"delay": "0s", "timeout": "5s"},
        "upstreams": upstreams,
        "models": {MODEL: {"routes": routes, **(model or {})}},
        "teams": {"search": {"keys": [key_settings()], **(team or {})}},
        **changes,
    }


def key_settings(name: str = "search-test", secret: str = KEY, **changes: Any) -> Json:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **changes}


def settings_of(told: Json) -> Settings:
    return parse(json.dumps(told), "test.yaml", {}).settings


@asynccontextmanager
async def whole_gateway(
    *upstream_urls: str, clock: Clock | None = None, environ: Mapping[str, str] | None = None, **changes: Any
) -> AsyncIterator[WholeGateway]:
    """A running gateway before these upstreams; `changes` are those of `configuration`. At the end all that it wrote is
    searched for its secrets."""
    lines: list[bytes] = []
    config = configuration(*upstream_urls, **changes)
    clock = clock or SystemClock()
    loaded = loaded_snapshot(settings_of(config), clock.now_ms() // 1000)
    gateway = Gateway(loaded, Log(lines.append), clock, environ or {})
    written: dict[str, bytes] = {}
    with library_log() as library_lines:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            whole = WholeGateway(gateway, lines, session, config)
            (data, *_), admin = await gateway.start()
            whole.port, whole.admin_port = data.port, admin.port
            try:
                yield whole
                written |= await whole.written()
            finally:
                await gateway.close()
        written |= {"the log": b"".join(lines), "the libraries' log": "\n".join(library_lines).encode()}
        written |= await stored(config.get("store", {}))
    assert leaks(whole.secrets, written) == []
