"""Real programs between the gateway and the model: a LiteLLM proxy, a forward proxy, mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from bench.free_ports import free_port
from tests.clients.programs.programs import AGENTS, CLAUDE, ENVIRONMENTS, GPT, QUIET, required, run
from tests.clients.programs.request_tap import request_tap
from tests.clients.programs.scripted_upstream import scripted_upstream
from tests.clients.programs.side_by_side import Scene, assert_charged, outcome
from tests.clients.programs.test_errands import PATIENCE_S
from tests.whole_gateway import whole_gateway

CERTIFICATES = Path(__file__).parents[2] / "contract" / "upstream" / "certificates"
BY_NAME = {program.name: program for program in AGENTS}
MASTER_KEY = "sk-" + 32 * "5e"
STARTING_S = 400.0
"""LiteLLM imports for seconds, and for more where much runs at once."""

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
LogLevel Info
PidFile "{folder}/tinyproxy.pid"
"""
NGINX = """
daemon off;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_buffer_size 1m;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name localhost;
        ssl_certificate {server};
        ssl_certificate_key {server};
        ssl_client_certificate {client};
        ssl_verify_client on;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_buffering off;
        }}
    }}
}}
"""


@asynccontextmanager
async def serving(ready: str, *command: str, folder: Path) -> AsyncIterator[list[str]]:
    """A program of ours, from the line on that says it is ready; gives what it prints. It ends with the block."""
    environment = {"PATH": f"{ENVIRONMENTS}/proxy/bin:/usr/sbin:/usr/bin:/bin", "HOME": str(folder), **QUIET}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder, env=environment
    )
    printed: list[str] = []
    is_ready = asyncio.Event()
    reading = asyncio.create_task(_read(process, printed, ready, is_ready))
    try:
        async with asyncio.timeout(STARTING_S):
            await is_ready.wait()
        assert any(ready in line for line in printed), printed
        yield printed
    finally:
        if process.returncode is None:
            process.terminate()
        await reading
        await process.wait()


async def _read(process: asyncio.subprocess.Process, printed: list[str], ready: str, is_ready: asyncio.Event) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        printed.append(line.decode())
        if ready in printed[-1]:
            is_ready.set()
    is_ready.set()


@asynccontextmanager
async def litellm(port: int, folder: Path) -> AsyncIterator[int]:
    """LiteLLM's proxy in front of a model server on this port; gives its own."""
    openai = {"api_base": f"http://127.0.0.1:{port}/v1", "api_key": "sk-1"}
    claude = {"model": f"anthropic/{CLAUDE}", "api_base": f"http://127.0.0.1:{port}", "api_key": "sk-1"}
    config = {
        "model_list": [
            {"model_name": GPT, "litellm_params": {"model": f"openai/{GPT}", **openai}},
            {"model_name": CLAUDE, "litellm_params": claude},
        ],
        "general_settings": {"master_key": MASTER_KEY},
    }
    (folder / "litellm.yaml").write_text(yaml.safe_dump(config))
    own = free_port()
    flags = ("--config", "litellm.yaml", "--port", str(own), "--host", "127.0.0.1")
    async with serving("Application startup complete", "litellm", *flags, folder=folder):
        yield own


async def test_agents_work_and_are_charged_with_litellm_between(tmp_path: Path) -> None:
    names = ("codex", "pi", "claude-code")
    for name in names:
        required(BY_NAME[name])
    async with scripted_upstream() as upstream, litellm(upstream.port, tmp_path) as port:
        url = f"http://127.0.0.1:{port}/v1"
        models = {name: {"routes": [{"upstream": "up1"}]} for name in (GPT, CLAUDE)}
        async with (
            whole_gateway(url, models=models, upstreams={"up1": {"base_url": url, "api_key": MASTER_KEY}}) as gateway,
            request_tap(gateway.port) as tap,
        ):
            for name in names:
                ran = await run(BY_NAME[name], tap.port, tmp_path / name, patience_s=PATIENCE_S)
                assert outcome(ran, Scene(upstream, tap, gateway)).finished, ran.printed
            reply = await gateway.chat(model=CLAUDE, max_tokens=100)
            assert reply.status == 200
            await assert_charged(Scene(upstream, tap, gateway))


async def test_an_agent_works_through_a_forward_proxy_and_mutual_tls(tmp_path: Path) -> None:
    required(BY_NAME["codex"])
    cert, key = await _client_certificate(tmp_path)
    proxy, secure = free_port(), free_port()
    (tmp_path / "tinyproxy.conf").write_text(TINYPROXY.format(port=proxy, folder=tmp_path))
    async with scripted_upstream() as upstream:
        server = CERTIFICATES / "localhost.pem"
        (tmp_path / "nginx.conf").write_text(
            NGINX.format(port=secure, upstream=upstream.port, server=server, client=cert)
        )
        tls = {"ca": str(CERTIFICATES / "authority.pem"), "cert": str(cert), "key": str(key)}
        reached = {
            "base_url": f"https://localhost:{secure}/v1",
            "proxy": f"http://127.0.0.1:{proxy}",
            "tls": tls,
        }
        async with (
            serving("start worker process", "nginx", "-p", str(tmp_path), "-c", "nginx.conf", folder=tmp_path),
            serving("Accepting connections", "tinyproxy", "-d", "-c", "tinyproxy.conf", folder=tmp_path) as connects,
            whole_gateway(upstream.origin, upstreams={"up1": reached}) as gateway,
            request_tap(gateway.port) as tap,
        ):
            ran = await run(BY_NAME["codex"], tap.port, tmp_path / "codex", patience_s=PATIENCE_S)
            assert outcome(ran, Scene(upstream, tap, gateway)).finished, ran.printed
            await assert_charged(Scene(upstream, tap, gateway))
        assert any(f"CONNECT localhost:{secure}" in line for line in connects)


async def test_an_upstream_without_tls_is_reached_through_a_forward_proxy(tmp_path: Path) -> None:
    required(BY_NAME["pi"])
    proxy = free_port()
    (tmp_path / "tinyproxy.conf").write_text(TINYPROXY.format(port=proxy, folder=tmp_path))
    async with scripted_upstream() as upstream:
        reached = {"base_url": f"{upstream.origin}/v1", "proxy": f"http://127.0.0.1:{proxy}"}
        async with (
            serving("Accepting connections", "tinyproxy", "-d", "-c", "tinyproxy.conf", folder=tmp_path),
            whole_gateway(upstream.origin, upstreams={"up1": reached}) as gateway,
            request_tap(gateway.port) as tap,
        ):
            ran = await run(BY_NAME["pi"], tap.port, tmp_path / "pi", patience_s=PATIENCE_S)
            assert outcome(ran, Scene(upstream, tap, gateway)).finished, ran.printed
            await assert_charged(Scene(upstream, tap, gateway))


async def _client_certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "client.pem", folder / "client.key"
    request = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-days", "2", "-subj", "/CN=gateway", "-out", str(cert), "-keyout", str(key))
    process = await asyncio.create_subprocess_exec(*request, *files, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    return cert, key
