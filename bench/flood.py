"""`python -m bench.flood`: what a caller waits while another one's answers or requests come as fast as they can.

Four processes: the gateway, a demo upstream for the caller, this one with the caller, and the flood's (this module
again): an upstream that floods (`--upstream`), an answer of which is one of `ANSWERS` by the model's name, or a client
that floods (`--client`) with one of `REQUESTS`. This process reads the flood of answers.

The machine may do other work meanwhile. So what is shown of each request of the caller is, beside its time, how much
processor time the gateway used from its beginning to its end: what stood before it in the event loop.

`--tree` measures the gateway of another checkout, which has its own `.venv`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import click
import msgspec

from bench.free_ports import free_port
from bench.servers import MODEL, PRICE, Server, demo_upstream

KEY = "gw_" + "f" * 40
FLOOD_BYTES = 100_000_000
BOMB_BYTES = 500_000_000
PAUSE_S = 0.01
HEAD = """\
| flood | requests | failed | p99 | p99 of the gateway's processor time | most |
| --- | --- | --- | --- | --- | --- |"""


def _chunk(text: str, finish: str | None = None) -> bytes:
    delta = {"content": text} if text else {}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # fmt: skip
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


class AnswerFlood(NamedTuple):
    piece: bytes
    streams: int = 1
    first: bytes = b""
    is_packed: bool = False


ANSWERS = {
    "comments": AnswerFlood(b": c\n\n"),
    "odd-events": AnswerFlood(b"data: {}\n\n"),
    "behind-the-end": AnswerFlood(_chunk("x"), first=_chunk("", "stop")),
    "usage-again": AnswerFlood(_chunk("x")[:-3] + b',"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'),
    "bomb": AnswerFlood(_chunk("x" * 4000), is_packed=True),
    "bomb-of-comments": AnswerFlood(b": c\n\n", is_packed=True),
    "many": AnswerFlood(_chunk("x" * 4000), streams=200),
    "many-comments": AnswerFlood(b": c\n\n", streams=50),
    "many-bombs": AnswerFlood(b": c\n\n", streams=50, is_packed=True),
}


class RequestFlood(NamedTuple):
    """So many requests at once, again and again. `size` is of the body as it is unpacked."""

    size: int
    at_once: int
    key: str = KEY
    is_packed: bool = False

    def request(self) -> bytes:
        text = b"x" * (self.size - 100)
        body = b'{"model": "%b", "messages": [{"role": "user", "content": "%b"}]}' % (b"nothing", text)
        coding = "content-encoding: gzip\r\n" if self.is_packed else ""
        body = gzip.compress(body) if self.is_packed else body
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {self.key}\r\n{coding}"
        return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


REQUESTS = {
    "bombs-without-a-key": RequestFlood(BOMB_BYTES, 4, key="gw_" + "0" * 40, is_packed=True),
    "bombs-with-a-key": RequestFlood(BOMB_BYTES, 4, is_packed=True),
    "large-bodies": RequestFlood(10 * 2**20, 100),
}
FLOODS = (*ANSWERS, *REQUESTS)


class Waits(NamedTuple):
    milliseconds: list[float]
    processor_ms: list[float]
    failures: list[int]
    """The statuses of what was not answered."""


# The upstream.


def _pieces(flood: AnswerFlood) -> Iterator[bytes]:
    piece = flood.piece * (65_536 // len(flood.piece) + 1)
    if flood.is_packed:
        packed = gzip.compress(piece * 16)
        most = BOMB_BYTES // flood.streams
        yield gzip.compress(flood.first) + packed
        yield from (packed for _ in range(most // (16 * len(piece))))
    else:
        yield flood.first + piece
        yield from (piece for _ in range(FLOOD_BYTES // len(piece)))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        flood = ANSWERS[json.loads(await reader.readexactly(size))["model"]]
        coding = b"content-encoding: gzip\r\n" if flood.is_packed else b""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n%b\r\n" % coding)
        for piece in _pieces(flood):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


async def _flood(port: int) -> None:
    await (await asyncio.start_server(_serve, "127.0.0.1", port)).serve_forever()


# The client.


async def _flood_with(name: str, port: int) -> None:
    flood = REQUESTS[name]
    request = flood.request()

    async def again() -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                while await reader.read(65_536):
                    pass
                writer.transport.abort()

    print(flush=True)
    await asyncio.gather(*(again() for _ in range(flood.at_once)))


# The callers.


async def _read_flood(port: int, model: str) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        while await reader.read(262_144):
            pass
    finally:
        writer.transport.abort()


async def _wait(gateway: Server, seconds: float) -> Waits:
    waits = Waits([], [], [])
    url, end = f"http://127.0.0.1:{gateway.port}/v1/chat/completions", time.monotonic() + seconds
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        while time.monotonic() < end:
            began, used = time.perf_counter(), gateway.cpu_ns()
            async with session.post(url, json=body) as answer:
                await answer.read()
                if answer.status != 200:
                    waits.failures.append(answer.status)
            waits.milliseconds.append((time.perf_counter() - began) * 1e3)
            waits.processor_ms.append((gateway.cpu_ns() - used) / 1e6)
            await asyncio.sleep(PAUSE_S)
    return waits


async def measured(gateway: Server, name: str, seconds: float) -> Waits:
    """What the caller waits beside this flood, or alone."""

    async def again() -> None:
        while True:
            await _read_flood(gateway.port, name)

    streams = ANSWERS[name].streams if name in ANSWERS else 0
    async with asyncio.TaskGroup() as readers:
        with _client(name, gateway.port) if name in REQUESTS else contextlib.nullcontext():
            tasks = [readers.create_task(again()) for _ in range(streams)]
            await asyncio.sleep(0.5 if name in FLOODS else 0)
            waits = await _wait(gateway, seconds)
        for task in tasks:
            task.cancel()
    return waits


@contextlib.contextmanager
def _client(name: str, port: int) -> Iterator[None]:
    """A process that floods the gateway with these requests. It has begun when it has printed a line."""
    command = [sys.executable, "-m", "bench.flood", name, "--client", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        try:
            yield
        finally:
            client.kill()


def settings(port: int, upstream: int, flooding: int) -> dict[str, object]:
    return {
        "listen": f"127.0.0.1:{port}",
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "drain": {"delay": "0s", "timeout": "1s"},
        "store": {"url": "memory://"},
        "upstreams": {
            "quiet": {"base_url": f"http://127.0.0.1:{upstream}/v1"},
            "flooding": {"base_url": f"http://127.0.0.1:{flooding}/v1"},
        },
        "models": {
            MODEL: {"routes": [{"upstream": "quiet"}], "price": PRICE},
            **{name: {"routes": [{"upstream": "flooding"}], "price": PRICE} for name in ANSWERS},
        },
        "teams": {"bench": {"keys": [{"name": "bench", "key": KEY}]}},
    }


def run(name: str, seconds: float, tree: Path, folder: Path) -> Waits:
    cores = sorted(os.sched_getaffinity(0))
    port, flooding = free_port(), free_port()
    command = [sys.executable, "-m", "bench.flood", "--upstream", str(flooding)]
    with (
        demo_upstream(cores[-1], folder) as upstream,
        Server(command, flooding, {cores[-1]}, folder / "flooding.log"),
    ):
        config = folder / "gateway.yaml"
        config.write_bytes(msgspec.json.encode(settings(port, upstream.port, flooding)))
        serve = ["env", "-C", str(tree), str(tree / ".venv/bin/python"), "-m", "gateway", "serve", "-c", str(config)]
        with Server(serve, port, {cores[0]}, folder / "gateway.log") as gateway:
            return asyncio.run(measured(gateway, name, seconds))


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def row(name: str, waits: Waits) -> str:
    p99, used = _p99(waits.milliseconds), _p99(waits.processor_ms)
    count, most = len(waits.milliseconds), max(waits.processor_ms)
    return f"| {name} | {count} | {len(waits.failures)} | {p99:.1f} ms | {used:.1f} ms | {most:.1f} ms |"


@click.command(epilog="Example: python -m bench.flood comments many --seconds 5")
@click.argument("names", nargs=-1, type=click.Choice(["none", *FLOODS]))
@click.option("--seconds", type=float, default=8.0, help="How long the caller asks beside each flood.")
@click.option("--tree", type=click.Path(path_type=Path), default=Path.cwd(), help="Whose gateway.")
@click.option("--upstream", type=int, default=0, hidden=True, help="Be the upstream that floods, on this port.")
@click.option("--client", type=int, default=0, hidden=True, help="Be the client that floods the gateway on this port.")
def main(names: tuple[str, ...], seconds: float, tree: Path, upstream: int, client: int) -> None:
    """Measure what a caller waits while answers and requests of others come at full speed."""
    if upstream or client:
        asyncio.run(_flood(upstream) if upstream else _flood_with(names[0], client))
        return
    click.echo(HEAD)
    for name in names or ("none", *FLOODS):
        with tempfile.TemporaryDirectory(prefix="flood-") as folder:
            click.echo(row(name, run(name, seconds, tree, Path(folder))))


if __name__ == "__main__":
    main()
