"""What happened to one request, told afterwards: by the admin API and by `gateway explain`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import HandUpstream, content, hand_upstream
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import (
    KEY,
    MODEL,
    PATIENCE_S,
    Json,
    LiveStream,
    Reply,
    WholeGateway,
    configuration,
    whole_gateway,
)

TOKEN = "operators-token"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
NOWHERE = "http://127.0.0.1:1/v1"
ONE_A_DAY = {"limits": [{"requests": 1, "per": "day"}, {"tokens": 1_000_000, "per": "month"}]}
SECRET_WORDS = "the prompt that nobody may read"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server(tcp=True) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Json:
    if request.param == "memory":
        return {"url": "memory://"}
    server: RedisServer = request.getfixturevalue("redis")
    with server.client() as client:
        client.flushall()
    return {"url": server.url, "journal": str(tmp_path / "journal")}


async def explanation(gateway: WholeGateway, request_id: str, query: str = "") -> Reply:
    headers = {"authorization": f"Bearer {TOKEN}"}
    return await gateway.request("GET", f"/admin/v1/requests/{request_id}{query}", admin=True, headers=headers)


async def explained(gateway: WholeGateway, reply: Reply) -> Json:
    """The record of a request with this answer, once it is written."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await explanation(gateway, reply.headers["x-request-id"])).status == 404:
            continue
    (record,) = found.json["records"]
    return dict(record)


async def test_a_refusal_is_explained_with_the_figures_of_every_limit(store: Json) -> None:
    async with (
        DemoUpstream(DemoScript(chunks=3)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, team=ONE_A_DAY, store=store) as gateway,
    ):
        assert (await gateway.chat()).status == 200
        refused = await gateway.chat(headers={"user-agent": "agent/1.0"})
        record = await explained(gateway, refused)
        assert (record["status"], record["error"]["code"], record["error"]["blame"]) == (
            429, "insufficient_quota", "policy"
        )  # fmt: skip
        assert record["error"]["message"] == refused.error["message"]
        day, month = record["limits"]
        assert (day["name"], day["verdict"], day["used"], day["needed"], day["left"]) == (
            "requests-per-day", "refused", 1, 1, 0
        )  # fmt: skip
        assert (month["name"], month["verdict"], month["amount"]) == ("tokens-per-month", "passed", 1_000_000)
        assert (record["team"], record["key_name"], record["model"]) == ("search", "search-test", MODEL)
        assert (record["client_ip"], record["user_agent"]) == ("127.0.0.1", "agent/1.0")
        assert (record["usage"], record["usd"], record["attempts"]) == (None, 0, [])
        first, second = record["explanation"][:2]
        assert first == "The request was refused: status 429, insufficient_quota."
        assert "1 used" in second


async def test_a_failure_is_explained_with_its_attempts(store: Json) -> None:
    async with (
        DemoUpstream(DemoScript(status=500)) as upstream,
        whole_gateway(NOWHERE, upstream.base_url, admin=ADMIN, store=store) as gateway,
    ):
        record = await explained(gateway, await gateway.chat())
        assert [each["upstream"] for each in record["attempts"]] == ["up1", "up2"]
        assert record["attempts"][1]["outcome"] == "500"
        assert record["error"]["blame"] == "upstream"
        assert any(line.startswith("Upstreams tried: up1 (") for line in record["explanation"])
        assert "It was charged nothing: nothing was delivered." in record["explanation"]


async def test_what_a_broken_stream_cost_is_explained_by_line(store: Json) -> None:
    script = DemoScript(chunks=8, halt="close", halt_at="between_events", halt_after=4)
    priced = {"price": {"input": 2, "output": 8}}
    async with (
        DemoUpstream(script) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, model=priced, store=store) as gateway,
    ):
        reply = await gateway.chat(stream=True)
        record = await explained(gateway, reply)
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (record["status"], record["stream"], record["whole"]) == (200, True, False)
        usage = record["usage"]
        assert (usage["input"], usage["output"]) == (exchange.usage.input, exchange.usage.output)
        assert usage["source"] == "estimated"
        assert record["usd"] == exchange.cost / 1_000_000
        assert sum(line["usd"] for line in record["prices"]) == pytest.approx(record["usd"], abs=1e-6)
        assert [line["name"] for line in record["prices"]] == ["input", "output"]
        assert record["time_to_first_byte_s"] <= record["duration_s"]
        assert record["version"]
        assert ":" in record["process"]


@pytest.mark.parametrize(("requests", "ok", "failed"), [("none", 404, 404), ("failed", 404, 200), ("all", 200, 200)])
async def test_the_setting_says_which_requests_have_a_record(requests: str, ok: int, failed: int) -> None:
    async with (
        DemoUpstream(DemoScript(chunks=3)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, record={"requests": requests}) as gateway,
    ):
        good, bad = await gateway.chat(), await gateway.chat(model="unknown")
        for _ in range(2):
            await gateway.ended()
        await gateway.gateway._records.writer.write()
        for reply, status in ((good, ok), (bad, failed)):
            assert (await explanation(gateway, reply.headers["x-request-id"])).status == status


async def test_nothing_of_what_a_client_wrote_or_an_upstream_answered_is_kept(store: Json, redis: RedisServer) -> None:
    answer = json.dumps({"error": {"message": f"cannot: {SECRET_WORDS}", "code": "server_error"}})
    messages = [{"role": "user", "content": SECRET_WORDS}]
    async with (
        DemoUpstream(DemoScript(status=500, body=answer)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, store=store) as gateway,
    ):
        replies = [
            await gateway.chat(messages=messages),
            await gateway.chat(messages=messages, model=SECRET_WORDS),
            await gateway.chat(messages=messages, temperature=SECRET_WORDS),
            await gateway.chat(messages=[{"role": SECRET_WORDS, "content": ""}]),
            await gateway.chat(key="gw_a-key-that-nobody-has-and-nobody-may-read"),
        ]
        shown = json.dumps([await explained(gateway, reply) for reply in replies])
        for secret in (SECRET_WORDS, KEY, "gw_a-key"):
            assert secret not in shown
        with redis.client() as client:
            kept = b"".join(repr(client.hgetall(name)).encode() for name in client.scan_iter("*:x"))
        assert SECRET_WORDS.encode() not in kept


async def test_a_record_costs_no_call_of_its_own(redis: RedisServer, tmp_path: Path) -> None:
    store = {"url": redis.url, "journal": str(tmp_path / "journal"), "prefix": "calls"}
    team = {"limits": [{"requests": 10, "per": "day"}]}
    async with (
        DemoUpstream(DemoScript(status=500)) as upstream,
        whole_gateway(upstream.base_url, admin=ADMIN, team=team, store=store) as gateway,
    ):
        replies = [await gateway.chat() for _ in range(60)]
        for _ in replies:
            await gateway.ended()
        records = [await explained(gateway, reply) for reply in (replies[0], replies[9], replies[10])]
        codes = [record["error"]["code"] for record in records]
        assert codes == ["passed_on", "no_upstream_available", "insufficient_quota"]
        calls = await store_calls(gateway)
        # Fifty refusals, within some seconds: one call in each.
        assert calls["keep_records"] <= 5
        assert calls["settle"] == 10
        # Ten that pass, and one refusal or more: within a moment, it is repeated without a call.
        assert 11 <= calls["admit"] <= 60


async def store_calls(gateway: WholeGateway) -> dict[str, int]:
    """How often the store was called, by what for."""
    pattern = r'^gateway_store_calls_total\{call="(\w+)",outcome="ok"\} (\d+)'
    return {call: int(count) for call, count in re.findall(pattern, await gateway.metrics(), re.MULTILINE)}


async def test_a_storm_of_refusals_is_sampled_and_other_kinds_are_not_lost() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        storm = await asyncio.gather(*[gateway.chat(model="unknown") for _ in range(60)])
        other = await gateway.chat(temperature="hot")
        await gateway.gateway._records.writer.write()
        found = [(await explanation(gateway, reply.headers["x-request-id"])).status for reply in storm]
        assert 20 <= found.count(200) <= 40
        assert (await explanation(gateway, other.headers["x-request-id"])).status == 200


async def test_a_request_while_the_store_is_out_is_explained_when_it_is_back(tmp_path: Path) -> None:
    with redis_server(tcp=True) as server:
        store = {"url": server.url, "journal": str(tmp_path), "timeout": "100ms"}
        async with whole_gateway(NOWHERE, admin=ADMIN, store=store) as gateway:
            server.kill()
            reply = await gateway.chat()
            assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
            assert (await explanation(gateway, reply.headers["x-request-id"])).status == 503
            server.start()
            async with asyncio.timeout(PATIENCE_S):
                while (found := await explanation(gateway, reply.headers["x-request-id"])).status != 200:
                    continue
            (record,) = found.json["records"]
            assert (record["error"]["code"], record["error"]["blame"]) == ("store_unavailable", "gateway")


async def test_a_record_waits_in_the_journal_with_its_settlement(tmp_path: Path) -> None:
    with redis_server(tcp=True) as server:
        store = {"url": server.url, "journal": str(tmp_path), "timeout": "100ms"}
        async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN, store=store) as gateway:
            stream = await begun_stream(gateway, upstream)
            server.kill()
            upstream.hang_up()
            await stream.rest()
            exchange = await gateway.ended()
            assert "gateway_unsettled_requests 1" in await gateway.metrics()
            server.start()
            async with asyncio.timeout(PATIENCE_S):
                while (found := await explanation(gateway, stream.headers["x-request-id"])).status != 200:
                    continue
            (record,) = found.json["records"]
            assert exchange.usage is not None
            assert record["usage"]["output"] == exchange.usage.output >= 1
            assert (await gateway.ledger()).output == exchange.usage.output


async def begun_stream(gateway: WholeGateway, upstream: HandUpstream) -> LiveStream:
    """A stream that has delivered one chunk."""
    opening = asyncio.ensure_future(gateway.open_stream())
    turn = await upstream.asked()
    turn.begin_stream()
    turn.send(content("Once"))
    stream = await opening
    await stream.event()
    return stream


async def test_an_unknown_id_is_told_where_to_look() -> None:
    async with whole_gateway(NOWHERE, admin=ADMIN) as gateway:
        reply = await explanation(gateway, "nobodys")
        assert (reply.status, reply.error["code"]) == (404, "unknown_url")
        assert "'nobodys'" in reply.error["message"]
        assert "'record'" in reply.error["message"]
        assert (await explanation(gateway, "nobodys", "?colour=red")).status == 400
        assert (await explanation(gateway, "no/bodys")).status == 404


class Shell:
    """Runs `gateway` beside the gateway of a test."""

    def __init__(self, config: Json, folder: Path) -> None:
        self._file = folder / "gateway.yaml"
        self._file.write_text(json.dumps(config))

    async def run(self, *words: str) -> Any:
        arguments = [words[0], "-c", str(self._file), *words[1:]]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments)


async def test_the_command_tells_it_in_sentences_and_needs_no_running_gateway(
    redis: RedisServer, tmp_path: Path
) -> None:
    store = {"url": redis.url, "journal": str(tmp_path / "journal"), "prefix": "explain"}
    async with whole_gateway(NOWHERE, admin=ADMIN, store=store) as gateway:
        reply = await gateway.chat()
        await explained(gateway, reply)
    shell = Shell(configuration(NOWHERE, store=store), tmp_path)
    told = await shell.run("explain", reply.headers["x-request-id"])
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("The request was not completed: status 502, upstream_unreachable.\n")
    assert "The upstream is responsible: look at 'gateway upstreams'." in told.stdout
    parsed = json.loads((await shell.run("explain", reply.headers["x-request-id"], "--json")).stdout)
    assert parsed["records"][0]["attempts"][0]["upstream"] == "up1"
    unknown = await shell.run("explain", "nobodys")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("Error: No request 'nobodys' is known.")
