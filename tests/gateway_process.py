"""A gateway as operators run it: a process with a configuration file, signals and a log on standard output."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.kept_secrets import leaks, secrets_in, stored
from tests.whole_gateway import KEY, PATIENCE_S, Json

_LINE_S = 60.0
"""For a line of the log: a process that starts on a busy machine takes long until its first."""


class GatewayProcess:
    """`lines` are what it logged so far, `said` what it told people, `answers` what operators and clients got of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.output: list[bytes] = []
        self.answers: list[bytes] = []
        self.lines: list[Json] = []
        self.said: list[str] = []
        self.port = self.admin_port = 0
        self._process = process
        self._reading = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self, event: str) -> Json:
        """The next line of the log with this event."""
        while not self.lines or self.lines[-1]["event"] != event:
            await self._next()
        return self.lines[-1]

    async def times(self, event: str, count: int) -> list[Json]:
        """The lines of the log with this event, once there are so many."""
        while len(found := [line for line in self.lines if line["event"] == event]) < count:
            await self._next()
        return found

    async def saying(self, words: str) -> str:
        """The first line for people with these words in it."""
        while not (found := [line for line in self.said if words in line]):
            await self._next()
        return found[0]

    async def _next(self) -> None:
        assert self._process.stdout is not None
        async with self._reading:
            text = await asyncio.wait_for(self._process.stdout.readline(), _LINE_S)
        assert text, f"it ended early, after {self.lines}"
        self._take(text)

    def _take(self, text: bytes) -> None:
        self.output.append(text)
        if text.startswith(b"{"):
            self.lines.append(json.loads(text))
        else:
            self.said.append(text.decode())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def exit_status(self) -> int:
        """Its exit status, once it has ended; what it logged meanwhile is in `lines`."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for text in self._process.stdout:
                self._take(text)
            return await self._process.wait()

    async def read_on(self) -> None:
        """To its end, so that it never waits for somebody to read it."""
        assert self._process.stdout is not None
        async with self._reading:
            async for text in self._process.stdout:
                self.output.append(text)

    async def rest(self) -> bytes:
        """What it wrote that no test has looked at, once it has ended."""
        assert self._process.stdout is not None
        async with self._reading:  # A test may still wait for a line.
            return await self._process.stdout.read()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def gateway_process(
    *arguments: str, config: Json | None = None, folder: Path, environment: dict[str, str] | None = None
) -> AsyncIterator[GatewayProcess]:
    """`gateway serve` with these arguments, or with this configuration; it listens already."""
    if config is not None:
        file = folder / "gateway.yaml"
        file.write_text(json.dumps(config))
        arguments = ("-c", str(file), *arguments)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "serve", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | (environment or {}),
    )
    running = GatewayProcess(process)
    try:
        serving = await running.line("serving")
        running.port = int(serving["listen"].rpartition(":")[2])
        running.admin_port = int(serving["admin"].rpartition(":")[2])
        yield running
    finally:
        running.kill()
        # Before its end is waited for, which is seen only once everything that it wrote was read.
        rest = await running.rest()
        await process.wait()
    if config is not None:
        secrets = secrets_in(config) | secrets_in(environment or {}) | {KEY}
        written = {
            "its output": b"".join([*running.output, rest]),
            "answers": b"\n".join(running.answers),
        }
        assert leaks(secrets, {**written, **await stored(config.get("store", {}))}) == []
