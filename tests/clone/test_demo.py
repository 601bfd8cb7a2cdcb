"""`make demo` as a newcomer runs it: from a fresh clone, with every Python of this machine that is new enough, in a
path with a space, as another user; then a second time without a package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.free_ports import free_port
from tests.deploy.processes import Running, outcome, run, running
from tests.house.tree import ROOT

CURL = re.compile(r"^curl -sN .*?\]\}'$", re.MULTILINE | re.DOTALL)
REPORT = re.compile(r"^\S.*(?:usage|limits) --demo.*$", re.MULTILINE)
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
INSTALLATION_S = 600.0
NOBODY = 65534


def pythons() -> Iterator[tuple[str, str]]:
    """The version and the path of each, of PATH and of pyenv."""
    for version in VERSIONS:
        kept = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"))
        found = str(kept[-1]) if kept else shutil.which(f"python{version}")
        if found:
            yield version, found


PYTHONS = dict(pythons())


@pytest.fixture
def clone() -> Iterator[Path]:
    """The repository as it is now, in a folder that every user may enter, with a space in its path."""
    with TemporaryDirectory(prefix="first hour ") as folder:
        Path(folder).chmod(0o755)
        for name in _tracked():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        yield Path(folder)


def _tracked() -> list[str]:
    needed = ("gateway", "requirements", "Makefile", "*.mk", "pyproject.toml", "LICENSE")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *needed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name]


@asynccontextmanager
async def demo(clone: Path, python: str, user: int | None = None, **env: str) -> AsyncIterator[tuple[Running, str]]:
    """Runs it on free ports; gives the process and everything that it printed before it was ready."""
    home = _prepared(clone, user)
    port, admin = free_port(), free_port()
    command = ["make", "-s", "demo", f"PYTHON={python}", f"PORT={port}", f"ADMIN_PORT={admin}"]
    env = {"HOME": str(home), "MAKEFLAGS": "", **env}
    async with running(*_as(user), *command, env=env, cwd=clone, patience_s=INSTALLATION_S) as program:
        await program.line(lambda line: line.startswith("Metrics:"))
        yield program, "\n".join(line for line in program.lines if not line.startswith("{"))


def _prepared(clone: Path, user: int | None) -> Path:
    """Everything is the user's; gives the home folder."""
    home = clone / "home of the user"
    home.mkdir(exist_ok=True)
    if user is not None:
        for path in (clone, *clone.rglob("*")):
            os.chown(path, user, user)
    return home


def _as(user: int | None) -> list[str]:
    return [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


async def tried(printed: str, clone: Path) -> None:
    """Each printed line fits a terminal, and each printed command works as it stands."""
    assert [line for line in printed.splitlines() if len(line) > 80] == []
    plain, streamed = [await run("bash", "-ec", command, cwd=clone) for command in CURL.findall(printed)]
    assert '"finish_reason":"stop"' in plain
    assert streamed.rstrip().endswith("data: [DONE]")
    usage, limits = [await run("bash", "-ec", command, cwd=clone) for command in REPORT.findall(printed)]
    assert re.search(r"demo +openai/gpt-oss-120b +2 ", usage)
    assert "requests-per-minute" in limits


@pytest.mark.parametrize("version", PYTHONS)
async def test_the_demo_runs_on_each_python_and_offline_after_the_first_time(version: str, clone: Path) -> None:
    async with demo(clone, PYTHONS[version]) as (_, printed):
        await tried(printed, clone)
    async with demo(clone, PYTHONS[version], None, **NO_INDEX) as (_, printed):
        await tried(printed, clone)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user")
async def test_the_demo_runs_as_a_user_without_rights(clone: Path) -> None:
    async with demo(clone, "/usr/bin/python3", user=NOBODY) as (_, printed):
        await tried(printed, clone)


async def test_without_an_index_the_first_time_says_what_is_missing(clone: Path) -> None:
    env = NO_INDEX | {"MAKEFLAGS": ""}
    code, printed = await outcome("make", "demo", f"PYTHON={sys.executable}", env=env, cwd=clone)
    assert code != 0
    assert "The first time it needs a package index: pypi.org, or yours in PIP_INDEX_URL." in printed
