"""`gateway reconcile` beside a ledger that real requests wrote: in Redis, or in the memory of the running gateway."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.demo import DemoScript, DemoUpstream
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import MODEL, Json, WholeGateway, configuration, whole_gateway

TOKEN = "operators-token"
SCRIPT = DemoScript(chunks=30, prompt_tokens=100, cached_tokens=40)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Json:
    if request.param == "memory":
        return {"url": "memory://"}
    server: RedisServer = request.getfixturevalue("redis")
    return {"url": server.url, "journal": str(tmp_path / "journal"), "prefix": tmp_path.name[:40].replace("[", "-")}


class Accountant:
    """Somebody at a terminal with the gateway's configuration and the provider's file."""

    def __init__(self, gateway: WholeGateway, folder: Path, store: Json) -> None:
        self._config = folder / "gateway.yaml"
        self._export = folder / "usage.json"
        admin = {"listen": f"127.0.0.1:{gateway.admin_port}", "token": TOKEN}
        self._config.write_text(json.dumps(configuration("http://127.0.0.1:1/v1", admin=admin, store=store)))

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "-c", str(self._config)], input=stdin)

    async def reconcile(self, export: str, *arguments: str) -> Result:
        self._export.write_text(export)
        return await self.run("reconcile", "--upstream", "up1", str(self._export), *arguments)

    async def day_start(self) -> int:
        """When the ledger's only day began, in seconds since 1970."""
        (row,) = json.loads((await self.run("usage", "--by", "day", "--json")).stdout)["rows"]
        return int(datetime.fromisoformat(row["day"]).replace(tzinfo=UTC).timestamp())


def bill(start: int, **changes: object) -> str:
    result = {
        "object": "organization.usage.completions.result",
        "num_model_requests": 2,
        "input_tokens": 200,
        "input_cached_tokens": 80,
        "output_tokens": 60,
        "model": MODEL,
    }
    buckets = [{"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": [result | changes]}]
    return json.dumps({"object": "page", "data": buckets, "has_more": False})


async def test_a_bill_is_compared_with_what_was_used(store: Json, tmp_path: Path) -> None:
    admin = {"listen": "127.0.0.1:0", "token": TOKEN}
    async with (
        DemoUpstream(SCRIPT) as upstream,
        whole_gateway(upstream.base_url, admin=admin, store=store) as gateway,
    ):
        accountant = Accountant(gateway, tmp_path, store)
        for _ in range(2):
            assert (await gateway.chat()).status == 200
            await gateway.ended()
        start = await accountant.day_start()

        agreed = await accountant.reconcile(bill(start))
        assert agreed.exit_code == 0, agreed.output
        assert "1 of 1 days and models are within 1 %." in agreed.stdout

        differing = await accountant.reconcile(bill(start, num_model_requests=3, output_tokens=90))
        assert differing.exit_code == 1, differing.output
        assert [line.split()[2:] for line in differing.stdout.splitlines()[2:4]] == [
            ["requests", "2", "3", "-1", "-33.33"],
            ["output_tokens", "60", "90", "-30", "-33.33"],
        ]
        assert "traffic that bypasses the gateway" in differing.stdout

        allowed = await accountant.reconcile(bill(start, num_model_requests=3), "--tolerance", "34", "--json")
        told = json.loads(allowed.stdout)
        assert (allowed.exit_code, told["within"], told["tolerance_percent"]) == (0, True, 34.0)
        assert told["cells"][0]["model"] == MODEL

        piped = await accountant.run("reconcile", "--upstream", "up1", "-", stdin=bill(start))
        assert piped.stdout == agreed.stdout

        rows = list(csv.DictReader(io.StringIO((await accountant.reconcile(bill(start), "--csv")).stdout)))
        assert [(row["figure"], row["ledger"], row["provider"], row["within"]) for row in rows] == [
            ("requests", "2", "2", "True"),
            ("input_tokens", "200", "200", "True"),
            ("cached_input_tokens", "80", "80", "True"),
            ("output_tokens", "60", "60", "True"),
        ]


async def test_a_file_that_cannot_be_read_ends_with_two_and_one_line(tmp_path: Path) -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        accountant = Accountant(gateway, tmp_path, {"url": "memory://"})
        broken = await accountant.reconcile("day,tokens\n1,2\n")
        assert (broken.exit_code, broken.stdout) == (2, "")
        (line,) = broken.stderr.splitlines()
        assert line.startswith(f"Error: {tmp_path / 'usage.json'}: line 1: it is neither JSON nor a CSV")

        missing = await accountant.run("reconcile", "--upstream", "up1", str(tmp_path / "none.csv"))
        assert missing.exit_code == 2
        assert "none.csv cannot be read: No such file or directory." in missing.stderr

        for tolerance in ("nan", "-1", "101", "much"):
            wrong = await accountant.reconcile("{}", "--tolerance", tolerance)
            assert wrong.exit_code == 2
            assert "Invalid value for '--tolerance'" in wrong.stderr

        unknown = await accountant.run("reconcile", "--upstream", "nobody", str(tmp_path / "usage.json"))
        assert unknown.exit_code == 2
        assert "There is no upstream 'nobody'" in unknown.stderr
