"""Real programs for the tests of what is shipped: found, started, waited for, ended."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.free_ports import free_port

ROOT = Path(__file__).parents[2]
NPM = Path(__file__).parent / "npm"
TOOLS = ROOT / ".tools"
"""Where `make test-deploy` puts what Debian does not have."""

PATIENCE_S = 30.0
"""After which a test that waits for a program gives up."""

Json = dict[str, Any]


def tool(name: str) -> str:
    """Where a program is. A test that asks for one is left out, but under `make test-deploy`, which installs it."""
    if os.environ.get("DEPLOY_TOOLS") != "required":
        pytest.skip("`make test-deploy` runs this")
    folders = (TOOLS / "go" / "bin", TOOLS / "venv" / "bin", NPM / "node_modules" / ".bin", Path("/usr/sbin"))
    found = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], *map(str, folders))))
    return found or pytest.fail(f"{name} is not installed; `make test-deploy` installs it")


def gateway_command() -> str:
    """The `gateway` of the environment that runs the tests."""
    return str(Path(sys.executable).parent / "gateway")


async def run(*command: str, given: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a command printed; the test fails if the command does. `given` is its standard input."""
    code, printed = await outcome(*command, given=given, env=env, cwd=cwd)
    assert code == 0, f"{' '.join(command)} ended with {code}:\n{printed}"
    return printed


async def outcome(
    *command: str, given: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env={**os.environ, **(env or {})}, cwd=cwd
    )
    printed, _ = await process.communicate(given.encode())
    assert process.returncode is not None
    return process.returncode, printed.decode()


class Running:
    """A program that runs. `lines` are what it has printed."""

    def __init__(self, process: Process, patience_s: float = PATIENCE_S) -> None:
        self.process = process
        self.patience_s = patience_s
        self.lines: list[str] = []
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def line(self, fits: Callable[[str], bool]) -> str:
        """The first line that fits, waited for."""
        async with asyncio.timeout(self.patience_s):
            while True:
                for line in self.lines:
                    if fits(line):
                        return line
                assert not self._reading.done(), "the program ended: " + "\n".join(self.lines)
                self._more.clear()
                await self._more.wait()

    async def ended(self) -> int:
        """The exit status of a program that ends by itself, or was told to."""
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
            return await self.process.wait()

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        try:
            await self.ended()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))
            self._more.set()
        self._more.set()


@asynccontextmanager
async def running(
    *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, patience_s: float = PATIENCE_S
) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=STDOUT, env={**os.environ, **(env or {})}, cwd=cwd
    )
    program = Running(process, patience_s)
    try:
        yield program
    finally:
        await program.end()


@asynccontextmanager
async def demo_upstream(*flags: str) -> AsyncIterator[str]:
    """The scripted model server; gives its base URL."""
    async with running(gateway_command(), "demo-upstream", "--port", "0", *flags) as program:
        line = await program.line(lambda line: "listens on" in line)
        yield line.rpartition(" ")[2]


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[str]:
    """A Redis of its own; gives its URL."""
    port = free_port()
    flags = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    async with running(tool("redis-server"), *flags) as program:
        await program.line(lambda line: "Ready to accept connections" in line)
        yield f"redis://127.0.0.1:{port}/0"


@asynccontextmanager
async def gateway_at(config: Json, folder: Path) -> AsyncIterator[Running]:
    """A gateway process that serves."""
    file = folder / f"gateway-{config['listen'].rpartition(':')[2]}.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    async with running(gateway_command(), "serve", "-c", str(file)) as program:
        await program.line(_serves)
        yield program


@asynccontextmanager
async def gateway(config: Json, folder: Path) -> AsyncIterator[tuple[Running, str, str]]:
    """A gateway process on free ports; gives it, and the addresses of its data plane and its admin listener."""
    async with gateway_at(config, folder) as program:
        told = json.loads(await program.line(_serves))
        yield program, told["listen"], told["admin"]


def _serves(line: str) -> bool:
    return '"event":"serving"' in line
