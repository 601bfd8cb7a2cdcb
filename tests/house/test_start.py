"""A gateway that has started holds no more than its configuration asks for.

What is imported stays in memory for as long as the process lives, and is paid by every worker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.house.tree import ROOT

UNNEEDED = {
    "cryptography": "signatures of tokens: only where `jwt` is configured",
    "gateway.cli.administration": "commands that ask a running gateway",
    "gateway.cli.output": "tables of commands",
    "gateway.demo": "the demo upstream: only with --demo",
    "gateway.finance": "prices and bills: only their commands",
    "gateway.identity.in_redis": "keys in Redis: only where store.url names one",
    "gateway.identity.jwks": "key sets: only where `jwt` is configured",
    "gateway.identity.jwt": "tokens: only where `jwt` is configured",
    "gateway.settings.models": "the settings: the process that reads the configuration, and commands",
    "gateway.settings.types": "the settings: the process that reads the configuration, and commands",
    "gateway.store.in_redis": "counters in Redis: only where store.url names one",
    "gateway.telemetry.otlp": "traces: only where an exporter is configured",
    "genai_prices": "the catalogue of prices: only commands",
    "hiredis": "replies of Redis: only where store.url names one",
    "http.server": "a blocking HTTP server: nothing",
    "joserfc": "signatures of tokens: only where `jwt` is configured",
    "multiprocessing": "the runtime starts its processes itself",
    "opentelemetry": "traces: only where an exporter is configured",
    "prometheus_client": "a tool of the tests: 1.3 MiB with the HTTP server that it imports",
    "pydantic": "checks the configuration: 3.4 MiB, and 7.5 MiB with the settings",
    "redis": "a tool of the tests",
    "rich": "what structlog imports if it is installed",
    "sqlite3": "nothing",
    "structlog": "lines at a terminal: only there",
    "timeit": "nothing",
    "unittest": "a tool of tests",
    "wsgiref": "nothing",
    "xml": "nothing",
    "yaml": "the text of the configuration: the process that reads it, and commands",
}
"""Each module with who needs it, as far as anyone does."""

CHILD = """
import asyncio, json, os, sys
import gateway.__main__
import gateway.cli.serve, gateway.cli.worker
from gateway.app.first_load import FirstLoad

reading = FirstLoad(sys.argv[1])
from gateway.app.serve import Gateway, Log, Reloader
from gateway.web.admin_routes import PREFIX, AdminRequest

async def asked(gateway, method, page, body=b""):
    headers = {"authorization": "Bearer " + sys.argv[2]}
    answer = await gateway.admin.admin_api(AdminRequest(method, PREFIX + page, headers=headers, body=body))
    assert answer.status < 300, answer.body

async def started(loaded):
    log = Log(lambda line: None)
    gateway = Gateway(loaded, log, environ={})
    await gateway.start()
    assert await Reloader(sys.argv[1], gateway, log, loaded.settings).reload("a test") == []
    limits = [{"requests": 5, "per": "day"}]
    await asked(gateway, "POST", "keys", json.dumps({"team": "t", "name": "n", "limits": limits}).encode())
    await asked(gateway, "GET", "config")
    modules = sorted(sys.modules)
    await gateway.close()
    return modules

loaded = reading.loaded()
try:
    is_alone = os.waitpid(-1, os.WNOHANG) is None
except ChildProcessError:
    is_alone = True
print(json.dumps({"is_alone": is_alone, "modules": asyncio.run(started(loaded))}))
"""

TOKEN = "a-token-of-operators-0123456789abcdef"

CONFIGURATION = {
    "listen": "127.0.0.1:0",
    "admin": {"listen": "127.0.0.1:0", "token": TOKEN},
    "store": {"url": "memory://"},
    "upstreams": {"one": {"base_url": "http://127.0.0.1:9/v1"}},
    "models": {"m": {"routes": [{"upstream": "one"}]}},
    "limits": [{"requests": 1000, "per": "minute"}],
    "teams": {"t": {"keys": [{"name": "k", "sha256": "0" * 64}]}},
}


@cache
def child() -> subprocess.CompletedProcess[str]:
    """A process of its own: a gateway with this configuration starts, reloads it and is changed by an operator."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "gateway.yaml"
        file.write_text(json.dumps(CONFIGURATION))
        command = [sys.executable, "-c", CHILD, str(file), TOKEN]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def started() -> dict[str, Any]:
    """What it holds then."""
    assert child().returncode == 0, child().stderr
    held: dict[str, Any] = json.loads(child().stdout)
    return held


@pytest.mark.parametrize("module", UNNEEDED)
def test_a_gateway_starts_without(module: str) -> None:
    loaded = [name for name in started()["modules"] if name == module or name.startswith(f"{module}.")]
    assert loaded == [], UNNEEDED[module]


def test_the_process_that_reads_the_configuration_has_ended() -> None:
    assert started()["is_alone"]
