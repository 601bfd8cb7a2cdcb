"""Each panel's query, asked of a real Prometheus that scraped a real gateway under load."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from bench.free_ports import free_port
from deploy.dashboards.__main__ import DASHBOARDS, SHIPPED
from tests.deploy.load import Clients, configuration
from tests.deploy.processes import demo_upstream, gateway, redis
from tests.deploy.prometheus import Prometheus, prometheus

NOWHERE = "http://127.0.0.1:{}/v1"
LATER = {("teams", "Runs out in")}
"""Read from the store every minute: its query is asked, and need not give anything yet."""
SCRAPES = 12
"""So many scrapes, one each second, are enough for every rate."""


@pytest.mark.slow
async def test_every_panel_shows_something(tmp_path: Path) -> None:
    async with (
        redis(tmp_path) as store,
        demo_upstream() as upstream,
        gateway(configuration(upstream, NOWHERE.format(free_port()), store), tmp_path) as (_, data, admin),
        prometheus(tmp_path, admin) as watcher,
        aiohttp.ClientSession() as session,
    ):
        clients = Clients(session, data)
        while await watcher.scraped() < SCRAPES:
            await clients.everything()
        assert [query for query in queries() if not await shows(watcher, query) and query[:2] not in LATER] == []


def queries() -> list[tuple[str, str, str]]:
    """The dashboard, panel and expression of every query that is shipped."""
    return [
        (name, panel["title"], target["expr"])
        for name in DASHBOARDS
        for panel in json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", ())
    ]


async def shows(watcher: Prometheus, query: tuple[str, str, str]) -> bool:
    return bool(await watcher.ask(query[2]))
