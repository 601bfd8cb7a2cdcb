"""A real Prometheus that scrapes gateways once a second, asked as Grafana asks it."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bench.free_ports import free_port
from tests.deploy.processes import Json, running, tool

VARIABLES = {"$__rate_interval": "6s", "$__range": "10m", "$team": ".+", "$upstream": ".+"}
"""What Grafana puts in for its variables; a rate needs some four scrapes."""


class Prometheus:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(self, query: str) -> list[Json]:
        """The series that a query gives now; those that are not numbers are left out."""
        found = await self._get("query", query=filled(query))
        return [series for series in found if math.isfinite(float(series["value"][1]))]

    async def over_time(self, query: str, since: float, until: float) -> list[Json]:
        """The series that a query gives at each second between two times (seconds since 1970)."""
        return await self._get("query_range", query=filled(query), start=str(since), end=str(until), step="1")

    async def scraped(self) -> int:
        """How often it has asked a gateway for its metrics."""
        found = await self.ask("max(count_over_time(gateway_build_info[1h]))")
        return int(found[0]["value"][1]) if found else 0

    async def _get(self, what: str, **parameters: str) -> list[Json]:
        async with self._session.get(f"{self._url}/api/v1/{what}", params=parameters) as answer:
            told = await answer.json()
        assert told["status"] == "success", f"{parameters}: {told}"
        found: list[Json] = told["data"]["result"]
        return found


def filled(query: str) -> str:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


@asynccontextmanager
async def prometheus(folder: Path, *admins: str) -> AsyncIterator[Prometheus]:
    """Scrapes these admin listeners."""
    config = folder / "prometheus.yml"
    scraping = {"job_name": "inducta-gateway", "static_configs": [{"targets": list(admins)}]}
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scraping]}))
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    async with running(tool("prometheus"), *flags) as program, aiohttp.ClientSession() as session:
        await program.line(lambda line: "ready to receive web requests" in line)
        yield Prometheus(session, f"http://{address}")
