"""Draws each dashboard with what a real Prometheus saw of a real gateway under changing load: `make pictures`."""

from __future__ import annotations

import asyncio
import json
import math
import re
import tempfile
import time
from pathlib import Path

import aiohttp

from bench.free_ports import free_port
from deploy.dashboards.__main__ import DASHBOARDS, SHIPPED
from tests.deploy.load import SPREAD, Clients, configuration
from tests.deploy.processes import ROOT, Json, demo_upstream, gateway, redis, run, tool
from tests.deploy.prometheus import Prometheus, prometheus

DOCS = ROOT / "docs" / "pictures"
SECONDS = 120


async def main() -> None:
    folder = Path(tempfile.mkdtemp())
    async with (
        redis(folder) as store,
        demo_upstream("--chunk-delay-ms", "4", "--first-delay-ms", "40") as upstream,
        gateway(configuration(upstream, f"http://127.0.0.1:{free_port()}/v1", store), folder) as (_, data, admin),
        prometheus(folder, admin) as watcher,
        aiohttp.ClientSession() as session,
    ):
        began = time.time()
        await asyncio.gather(*(client(Clients(session, data), began, number) for number in range(6)))
        DOCS.mkdir(exist_ok=True)
        for name in DASHBOARDS:
            await draw(name, watcher, began + 10, began + SECONDS)


async def client(clients: Clients, began: float, number: int) -> None:
    """Asks in waves, and now and then runs into everything that can go wrong."""
    count = 0
    while (passed := time.time() - began) < SECONDS:
        count += 1
        if (count + number) % 25 == 0:
            await clients.everything()
        wave = 0.5 + 0.5 * math.sin(passed / 12 + number)
        chunks = 20 + int(100 * wave)
        model = {"model": SPREAD} if number % 3 == 0 else {}
        await clients.ask(stream=True, demo={"chunks": chunks}, **model)
        if number == 0:
            await clients.ask("ads")


async def draw(name: str, watcher: Prometheus, since: float, until: float) -> None:
    dashboard = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    series = {str(panel["id"]): await drawn(panel, watcher, since, until) for panel in dashboard["panels"]}
    python = str(Path(tool("kubernetes-validate")).parent / "python")
    given = json.dumps({"dashboard": dashboard, "series": series})
    await run(python, "-m", "deploy.dashboards.picture", str(DOCS / f"{name}.png"), given=given, cwd=ROOT)


async def drawn(panel: Json, watcher: Prometheus, since: float, until: float) -> list[tuple[str, list[list[float]]]]:
    found: list[tuple[str, list[list[float]]]] = []
    for target in panel.get("targets", ()):
        for each in await watcher.over_time(target["expr"], since, until):
            points = [[second, float(value)] for second, value in each["values"] if math.isfinite(float(value))]
            if points:
                found.append((named(target["legendFormat"], each["metric"]), points))
    return found


def named(legend: str, labels: dict[str, str]) -> str:
    told = re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), legend)
    return told or ", ".join(filter(None, labels.values())) or "(none)"


if __name__ == "__main__":
    asyncio.run(main())
