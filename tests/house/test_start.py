"""A gateway that has started holds no more than its configuration asks for.

What is imported stays in memory for as long as the process lives, and is paid by every worker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

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
    "gateway.store.in_redis": "counters in Redis: only where store.url names one",
    "gateway.telemetry.otlp": "traces: only where an exporter is configured",
    "genai_prices": "the catalogue of prices: only commands",
    "hiredis": "replies of Redis: only where store.url names one",
    "http.server": "a blocking HTTP server: nothing",
    "joserfc": "signatures of tokens: only where `jwt` is configured",
    "multiprocessing": "the runtime starts its processes itself",
    "opentelemetry": "traces: only where an exporter is configured",
    "prometheus_client": "a tool of the tests: 1.3 MiB with the HTTP server that it imports",
    "redis": "a tool of the tests",
    "rich": "what structlog imports if it is installed",
    "sqlite3": "nothing",
    "structlog": "lines at a terminal: only there",
    "timeit": "nothing",
    "unittest": "a tool of tests",
    "wsgiref": "nothing",
    "xml": "nothing",
}
"""Each module with who needs it, as far as anyone does."""

CHILD = """
import asyncio, json, sys
import gateway.__main__
import gateway.cli.serve
from gateway.app.serve import Gateway, Log
from gateway.settings.loading import parse

async def started(settings):
    gateway = Gateway(settings, Log(lambda line: None), environ={})
    await gateway.start()
    modules = sorted(sys.modules)
    await gateway.close()
    return modules

print(json.dumps(asyncio.run(started(parse(sys.argv[1], "test.yaml", {}).settings))))
"""

CONFIGURATION = {
    "listen": "127.0.0.1:0",
    "admin": {"listen": "127.0.0.1:0", "token": "a-token-of-operators-0123456789abcdef"},
    "store": {"url": "memory://"},
    "upstreams": {"one": {"base_url": "http://127.0.0.1:9/v1"}},
    "models": {"m": {"routes": [{"upstream": "one"}]}},
    "limits": [{"requests": 1000, "per": "minute"}],
    "teams": {"t": {"keys": [{"name": "k", "sha256": "0" * 64}]}},
}


@cache
def started() -> list[str]:
    """The modules that a gateway with this configuration holds after its start, in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(CONFIGURATION)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    held: list[str] = json.loads(child.stdout)
    return held


@pytest.mark.parametrize("module", UNNEEDED)
def test_a_gateway_starts_without(module: str) -> None:
    loaded = [name for name in started() if name == module or name.startswith(f"{module}.")]
    assert loaded == [], UNNEEDED[module]
