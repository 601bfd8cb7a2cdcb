"""What was lost or is at risk: over all gateways of a store, in the admin API and by command, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.core.losses import LOSSES
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import content, hand_upstream
from tests.raw_client import http_chat, raw_client
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import PATIENCE_S, Json, WholeGateway, configuration, whole_gateway

TOKEN = "operators-token"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "yes", "--appendfsync", "always", tcp=True) as server:
        yield server
        server.thaw()


def store(redis: RedisServer, folder: Path) -> Json:
    return {"url": redis.url, "timeout": "200ms", "journal": str(folder), "on_outage": "allow"}


async def losses(gateway: WholeGateway) -> Json:
    return dict((await gateway.request("GET", "/admin/v1/losses", admin=True, headers=HEADERS)).json)


def counted(report: Json, span: str = "last_day") -> dict[str, int]:
    """Without the kinds of which there are none, and without those that a busy machine adds."""
    return {kind["kind"]: kind[span] for kind in report["data"] if kind[span] and kind["kind"] != "records_dropped"}


async def until(gateway: WholeGateway, waiting: int, processes: int) -> Json:
    """The report once so many processes answer and so many settlements wait."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await losses(gateway)
            if (found["waiting"]["now"], found["processes"]["answered"]) == (waiting, processes):
                return found


async def test_where_nothing_was_lost_that_is_said_and_since_when() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
        assert (await gateway.chat()).status == 200
        await gateway.ended()
        found = await losses(gateway)
        assert [kind["kind"] for kind in found["data"]] == list(LOSSES)
        assert counted(found) == counted(found, "total") == {}
        assert (found["lost"], found["charged_tokens"]["last_day"] > 0) == ({"last_day": 0, "total": 0}, True)
        assert found["counted_since"] == found["last_day_since"] <= found["at"]
        assert found["waiting"] == {"now": 0, "highest": 0, "highest_at": None}
        assert (found["store"], found["journal_fails"]) == ({"problem": None, "out_s": 0, "times": []}, False)
        assert (found["processes"], found["problem"]) == ({"asked": 1, "answered": 1}, None)
        overview = (await gateway.request("GET", "/admin/v1/overview", admin=True, headers=HEADERS)).json
        assert overview["losses"]["lost"] == found["lost"]
        for path, method, status in (("losses?hours=3", "GET", 400), ("losses", "POST", 405), ("losses/1", "GET", 404)):
            answer = await gateway.request(method, f"/admin/v1/{path}", admin=True, headers=HEADERS)
            assert answer.status == status


async def test_usage_that_is_estimated_and_a_stream_that_breaks_are_counted() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(content("Once upon"))
            await client.until(content("Once upon"))
            turn.hang_up()
            await client.rest()
        exchange = await gateway.ended()
        assert exchange.usage is not None
        found = counted(await losses(gateway))
        assert found == {"streams_broken": 1, "estimated_tokens": exchange.usage.input + exchange.usage.output}


async def test_what_waits_through_an_outage_is_known_to_every_gateway_and_after_a_restart(
    redis: RedisServer, tmp_path: Path
) -> None:
    script = DemoScript(prompt_tokens=6, completion_tokens=4, chunks=4)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with DemoUpstream(script) as upstream:
        url = upstream.base_url
        async with (
            whole_gateway(url, admin=ADMIN, store=store(redis, tmp_path / "one")) as one,
            whole_gateway(url, admin=ADMIN, store=store(redis, tmp_path / "two")) as two,
        ):
            await until(two, 0, 2)
            redis.freeze()
            for _ in range(3):
                assert (await one.chat()).status == 200
                await one.ended()
            async with asyncio.timeout(PATIENCE_S):
                while not (found := await losses(one))["store"]["times"]:
                    await asyncio.sleep(0)
            assert found["waiting"]["now"] == 3
            assert found["store"]["problem"] == "does not answer"
            assert counted(found) == {"settlements_journaled": 3}
            assert found["problem"].startswith("The store does not answer: only what the process that was asked")
            assert (await losses(two))["waiting"]["now"] == 0
            redis.thaw()
            found = await until(two, 0, 2)
            assert counted(found) == {"settlements_journaled": 3}
            assert (found["waiting"]["highest"], found["lost"]["total"]) == (3, 0)
            assert (found["store"]["problem"], found["store"]["out_s"] >= 1) == (None, True)
        async with whole_gateway(url, admin=ADMIN, store=store(redis, tmp_path / "two")) as three:
            found = await until(three, 0, 1)
            assert (counted(found), found["waiting"]["highest"]) == ({"settlements_journaled": 3}, 3)
        config = tmp_path / "gateway.yaml"
        config.write_text(yaml.safe_dump(configuration(url, admin=ADMIN, store=store(redis, tmp_path))))
        printed = await asyncio.to_thread(CliRunner().invoke, main, ["losses", "-c", str(config)])
        first, second, third, head, row = printed.output.splitlines()
        assert first.startswith("Nothing was lost since 20")
        assert second.startswith("Settlements that wait: 0 now, 3 at once at most, in the ten minutes from 20")
        assert third.startswith("The store did not answer for ")
        assert (head.split()[0], row.split()[-6:-3]) == ("what", ["late", "3", "3"])
        as_json = await asyncio.to_thread(CliRunner().invoke, main, ["losses", "-c", str(config), "--json"])
        assert '"settlements_journaled"' in as_json.output


async def test_what_is_lost_is_in_the_first_line(redis: RedisServer, tmp_path: Path) -> None:
    """A journal of a dead process that is damaged: its entry is parked."""
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "dead.journal").write_bytes(b"00000000 {}\n")
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, store=store(redis, folder)) as gateway,
    ):
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await losses(gateway))["lost"]["total"]:
                await asyncio.sleep(0)
        assert counted(found) == {"settlements_parked": 1}
        (kind,) = [kind for kind in found["data"] if kind["kind"] == "settlements_parked"]
        assert [each["number"] for each in kind["times"]] == [1]
        assert kind["last_at"] == kind["times"][0]["at"] <= found["at"]
        config = tmp_path / "gateway.yaml"
        config.write_text(yaml.safe_dump(configuration(upstream.base_url, admin=ADMIN, store=store(redis, folder))))
        printed = await asyncio.to_thread(CliRunner().invoke, main, ["losses", "-c", str(config)])
        assert printed.output.splitlines()[0] == "Lost in the last 24 hours: settlements parked (1)."
