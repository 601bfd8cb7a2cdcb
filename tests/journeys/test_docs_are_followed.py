"""Whoever follows the documentation gets what it says: every shell block that this machine can run is run, page by page
and in order, against a gateway in front of the scripted upstream. A block that needs more names a program of `NEEDED`;
tests/house/test_commands.py looks at those."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from itertools import groupby
from pathlib import Path

import pytest

from bench.free_ports import free_port
from gateway.demo.server import DemoUpstream
from tests.deploy.processes import running
from tests.house.shell_blocks import Block, blocks
from tests.house.tree import ROOT, place

NEEDED = {
    "make": "installs, or serves without end",
    "bench": "minutes on a quiet machine",
    "docker": "a Docker daemon",
    "helm": "a cluster",
    "kubectl": "a cluster",
    "systemctl": "systemd and root",
    "etc/inducta-gateway": "an installed service",
    "redis-cli": "a Redis of the reader's own",
    "pip": "a package index",
    "pipx": "a package index",
    "cline": "a program of others; make test-clients runs it",
    "reconcile": "a provider's export",
    "token.txt": "a token of the reader's own",
    "notify": "a receiver of the reader's own",
    "THE-ID": "a request of the reader's own",
}
CONFIG = """
listen: 127.0.0.1:{port}
admin: {{listen: "127.0.0.1:{admin}", token: "${{GATEWAY_ADMIN_TOKEN}}"}}
drain: {{delay: 0s}}
upstreams: {{demo: {{base_url: "{upstream}"}}}}
models:
  openai/gpt-oss-120b: {{routes: [{{upstream: demo}}], price: {{input: 0.15, output: 0.60}}}}
  openai/whisper-large-v3: {{routes: [{{upstream: demo}}]}}
teams:
  search: {{limits: [{{tokens: 2_000_000, per: day}}], keys: [{{name: search, key: "${{INDUCTA_API_KEY}}"}}]}}
"""
PAGES = {page: list(those) for page, those in groupby(blocks(), key=lambda block: block.page)}


def needs(block: Block) -> set[str]:
    return {name for name in NEEDED if re.search(rf"\b{re.escape(name)}\b", block.text)}


RUN = {page: "\n".join(block.text for block in those if not needs(block)) for page, those in PAGES.items()}
FOLLOWED = {page: text for page, text in RUN.items() if text}


@pytest.mark.parametrize("page", FOLLOWED, ids=place)
async def test_a_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "speech.wav").write_bytes(b"RIFF")
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "INDUCTA_API_KEY": "gw_" + "k" * 43,
        "GATEWAY_ADMIN_TOKEN": "gw_" + "a" * 43,
        "GATEWAY_CONFIG": str(tmp_path / "running.yaml"),
    }
    async with DemoUpstream(models=("openai/gpt-oss-120b", "openai/whisper-large-v3")) as upstream:
        text = CONFIG.format(port=port, admin=admin, upstream=upstream.base_url)
        (tmp_path / "running.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "gateway.yaml").write_text(text, encoding="utf-8")
        async with running(sys.executable, "-m", "gateway", "serve", env=env, cwd=tmp_path) as gateway:
            await gateway.line(lambda line: '"serving"' in line)
            commands = FOLLOWED[page].replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace(":9090", f":{admin}")
            commands = re.sub(r"gw_(\.{3}|demo)", env["INDUCTA_API_KEY"], commands)
            code, printed = await _bash(commands.replace("curl ", "curl --fail-with-body "), env, tmp_path)
    assert code == 0, printed


async def _bash(commands: str, env: dict[str, str], folder: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", commands),
        env={**os.environ, **env},
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


def test_what_is_not_followed_says_what_it_needs() -> None:
    assert {name for block in blocks() for name in needs(block)} == set(NEEDED)
    assert {"admin-api", "api", "backup", "configuration", "upgrade"} <= {page.stem for page in FOLLOWED}
