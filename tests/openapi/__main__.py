"""`python -m tests.openapi SCHEMATHESIS`: runs that program against both listeners of a gateway with the demo upstream.

Model names in the public description are replaced by one that is served, since nearly every request would be a 404.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import aiohttp

from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import KEY, MODEL, whole_gateway

TOKEN = "operators-token"
SECONDS = 40
"""Of each listener."""
EXCLUDED = "positive_data_acceptance,negative_data_rejection"
"""Checks that do not fit. A body may break a rule that JSON Schema has no words for (names that differ by case, a
thinking budget); and members other than those that are read are the model server's affair, whatever their shape."""


class _Listener(NamedTuple):
    name: str
    port: int
    token: str


async def run(program: str, folder: Path) -> int:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with (
        DemoUpstream(DemoScript(chunks=2)) as upstream,
        whole_gateway(upstream.base_url, admin=admin, max_body="1MiB") as gateway,
    ):
        public = await _run(program, folder, _Listener("public", gateway.port, KEY))
        operators = await _run(program, folder, _Listener("admin", gateway.admin_port, TOKEN))
        defects = [line for line in gateway.lines if line.get("code") == "internal_error" or "stack" in line]
    for line in defects:
        sys.stdout.write(f"{json.dumps(line)}\n")
    return 1 if public or operators or defects else 0


async def _run(program: str, folder: Path, listener: _Listener) -> int:
    origin = f"http://127.0.0.1:{listener.port}"
    async with aiohttp.ClientSession() as session, session.get(f"{origin}/openapi.json") as answer:
        described = await answer.json()
    for schema in described["components"]["schemas"].values():
        if "model" in schema.get("properties", {}) and schema.get("title", "").endswith("Fields"):
            schema["properties"]["model"] = {"enum": [MODEL]}
    file = folder / f"{listener.name}.json"
    file.write_text(json.dumps(described))
    process = await asyncio.create_subprocess_exec(
        *(program, "run", str(file), "--url", origin, "-H", f"Authorization: Bearer {listener.token}"),
        *("--checks", "all", "--exclude-checks", EXCLUDED, "--phases", "coverage,fuzzing"),
        *("--max-time", str(SECONDS), "--seed", "1", "--warnings", "off", "--no-color"),
        *("--suppress-health-check", "filter_too_much"),
        cwd=folder,
    )
    return await process.wait()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="openapi-") as folder:
        return asyncio.run(run(str(Path(sys.argv[1]).absolute()), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
