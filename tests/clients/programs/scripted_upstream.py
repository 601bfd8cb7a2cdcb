"""A model server that plays one agent's conversation, in whichever API it is asked, and notes what it saw.

A request with tools is answered with a call of one of them; one that brings a tool's result with the final words; one
without tools (agents ask for titles and summaries) with a few words. `faults` come first, each for one request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

from tests.clients.programs.scripted_answers import (
    APIS,
    COUNTS,
    EMBEDDED,
    Answer,
    Api,
    Counts,
    Json,
    Tool,
    ToolCall,
    embedding,
)

FINAL_WORDS = "The errand is finished, as asked: marigold-77."
MARK = "marigold-77"
COMMAND = "echo written-by-the-tool > errand.txt"
SHELLS = ("exec_command", "shell_command", "shell", "bash", "run_shell_command", "run_commands", "execute_command")
"""Names of the tools of agents that run a command, in lower case."""

BIGGEST_BODY = 2**26
READ_S = 0.5
"""How long a connection stays open behind what was written, before it is lost. A client that notices the loss before it
has read what came earlier may take it for a request without an answer, and send that again: a race of its own."""


class Seen(NamedTuple):
    """One request. `connection` is the peer's port, which tells connections apart."""

    connection: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Fault(NamedTuple):
    """What one request gets in place of an answer: a refusal, or with `cut` half of a stream and a lost connection. One
    `of_turns` waits for a request with tools: which of an agent's requests comes first, a turn or one for a title, is a
    race."""

    status: int = 200
    kind: str = ""
    message: str = ""
    headers: Mapping[str, str] = {}
    cut: bool = False
    of_turns: bool = False


class ScriptedUpstream:
    """`delivered` is the sum of what its whole answers said that they used."""

    def __init__(self, *, tool_calls: int = 1, faults: tuple[Fault, ...] = ()) -> None:
        self.port = 0
        self.seen: list[Seen] = []
        self.delivered = Counts()
        self.faults = list(faults)
        self._tool_calls = tool_calls

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        assert request.transport is not None
        headers = tuple((name.decode().lower(), value.decode()) for name, value in request.raw_headers)
        connection = request.transport.get_extra_info("peername")[1]
        self.seen.append(Seen(connection, request.method, request.path_qs, headers, body))
        if request.method != "POST" or "event_logging" in request.path:
            return self._page(request)
        if "ountTokens" in request.path or request.path.endswith(("count_tokens", "input_tokens")):
            return web.json_response({"input_tokens": 10, "totalTokens": 10, "object": "response.input_tokens"})
        if request.path.endswith("/embeddings"):
            self.delivered += EMBEDDED
            return web.json_response(embedding(json.loads(body)["model"]))
        api = next((api for api in APIS if api.path in request.path), None)
        return await self._play(request, api, json.loads(body)) if api else web.json_response({}, status=404)

    def _page(self, request: web.Request) -> web.Response:
        if request.path.endswith("/models"):
            return web.json_response({"object": "list", "data": []})
        return web.json_response({}, status=404)

    async def _play(self, request: web.Request, api: Api, body: Json) -> web.StreamResponse:
        fault = Fault()
        if self.faults and (api.tools(body) or not self.faults[0].of_turns):
            fault = self.faults.pop(0)
        if fault.status != 200:
            refusal = api.refusal(fault.status, fault.kind, fault.message)
            return web.json_response(refusal, status=fault.status, headers=fault.headers)
        answer = self._chosen(api, body, body.get("model") or request.path.rpartition("/")[2].partition(":")[0])
        if not api.streams(body, request.path):
            if fault.cut:
                return await self._half_of(request, json.dumps(api.plain(answer)).encode())
            self.delivered += COUNTS
            return web.json_response(api.plain(answer))
        return await self._stream(request, api, answer, cut=fault.cut)

    def _chosen(self, api: Api, body: Json, model: str) -> Answer:
        results, tools = api.tool_results(body), api.tools(body)
        if tools and results < self._tool_calls and (call := _call_of(tools)):
            return Answer(model, call=call)
        return Answer(model, text=FINAL_WORDS)

    async def _stream(self, request: web.Request, api: Api, answer: Answer, *, cut: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        events = list(api.events(answer))
        for event in events[: len(events) // 2] if cut else events:
            await response.write(event)
        if cut:
            return await _lose(request, response)
        self.delivered += COUNTS
        await response.write_eof()
        return response

    async def _half_of(self, request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        return await _lose(request, response)


async def _lose(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection behind what was written: the end of the framing never comes."""
    await asyncio.sleep(READ_S)
    assert request.transport is not None
    request.transport.close()
    return response


def _call_of(tools: list[Tool]) -> ToolCall | None:
    """A call of the tool that runs a command, or of the only tool there is."""
    by_name = {tool.name.lower(): tool for tool in reversed(tools)}
    named = [by_name[name] for name in SHELLS if name in by_name]
    chosen = named or (tools if len(tools) == 1 else [])
    if not chosen:
        return None
    properties = chosen[0].schema.get("properties", {})
    wanted = {*chosen[0].schema.get("required", ()), *({"command", "cmd"} & set(properties))} or set(properties)
    return ToolCall(chosen[0].name, {name: _argument(name, properties.get(name, {})) for name in sorted(wanted)})


def _argument(name: str, schema: Json) -> object:
    kind = str(schema.get("type", "string")).lower()
    if kind == "array":
        return ["bash", "-c", COMMAND] if name == "command" else [COMMAND]
    if kind in {"boolean", "number", "integer"}:
        return False if kind == "boolean" else 1
    return {"command": COMMAND, "cmd": COMMAND, "city": "Zürich"}.get(name, "Writes a file.")


@asynccontextmanager
async def scripted_upstream(*, tool_calls: int = 1, faults: tuple[Fault, ...] = ()) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(tool_calls=tool_calls, faults=faults)
    application = web.Application(client_max_size=BIGGEST_BODY)
    application.router.add_route("*", "/{path:.*}", upstream.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.port = runner.addresses[0][1]
    try:
        yield upstream
    finally:
        async with asyncio.timeout(10):
            await runner.cleanup()
