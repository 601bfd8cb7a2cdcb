"""What is in flight over all processes of all gateways, and its end by an operator's hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from tests.hand_upstream import HandUpstream, Turn, content, hand_upstream
from tests.raw_client import RawClient, http_chat, raw_client
from tests.redis_servers import RedisServer, redis_server
from tests.whole_gateway import (
    KEY,
    MODEL,
    PATIENCE_S,
    Json,
    Reply,
    WholeGateway,
    configuration,
    key_settings,
    whole_gateway,
)
from tests.workers import shared, workers_process

TOKEN = "operators-token"
ADMIN = {"listen": "127.0.0.1:0", "token": TOKEN}
OTHER_KEY = "gw_of-another-team-0123456789-0123456789-01234"
TEAMS = {"search": {"keys": [key_settings()]}, "chat": {"keys": [key_settings("chat-test", OTHER_KEY)]}}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server(tcp=True) as server:
        yield server


async def ask(gateway: WholeGateway, page: str, method: str = "GET") -> Reply:
    headers = {"authorization": f"Bearer {TOKEN}"}
    return await gateway.request(method, f"/admin/v1/{page}", admin=True, headers=headers)


async def in_flight(gateway: WholeGateway, processes: int = 1, page: str = "requests") -> Json:
    """What is listed once so many processes answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await ask(gateway, page)).json
            if found["processes"]["answered"] == processes:
                return dict(found)


@asynccontextmanager
async def begun(
    gateway: WholeGateway, upstream: HandUpstream, request_id: str, key: str = KEY
) -> AsyncIterator[tuple[RawClient, Turn]]:
    """A stream that has delivered one chunk."""
    async with raw_client(gateway.port) as client:
        client.send(http_chat(headers={"x-request-id": request_id, "authorization": f"Bearer {key}"}, stream=True))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("Once"))
        await client.until(content("Once"))
        yield client, turn


async def test_requests_in_flight_are_listed_with_what_they_have_delivered() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN, teams=TEAMS) as gateway:
        assert (await in_flight(gateway))["data"] == []
        async with begun(gateway, upstream, "first") as (_, turn), raw_client(gateway.port) as waiting:
            waiting.send(http_chat(headers={"x-request-id": "second", "authorization": f"Bearer {OTHER_KEY}"}))
            await upstream.asked()
            turn.send(content(" upon"))
            found = await in_flight(gateway)
            first, second = found["data"]
            assert (first["id"], first["state"], first["team"], first["key_name"]) == (
                "first", "answering", "search", "search-test"
            )  # fmt: skip
            assert (first["model"], first["upstream"], first["stream"]) == (MODEL, "up1", True)
            assert first["output_tokens"] >= 1
            assert 0 <= first["age_s"] < PATIENCE_S
            assert (second["id"], second["state"], second["output_tokens"]) == ("second", "waiting", 0)
            assert (found["total"], found["problem"]) == (2, None)
            assert [each["id"] for each in (await ask(gateway, "requests?team=chat")).json["data"]] == ["second"]
            shown = (await ask(gateway, "requests/first")).json
            assert ([each["id"] for each in shown["in_flight"]], shown["records"]) == (["first"], [])
        assert (await ask(gateway, "requests?colour=red")).status == 400
        assert (await ask(gateway, "requests", "DELETE")).status == 405
        assert (await ask(gateway, "requests/first", "POST")).status == 405


async def test_a_cancelled_stream_ends_with_an_error_is_charged_and_audited() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
        async with begun(gateway, upstream, "stuck") as (client, turn):
            ended = await ask(gateway, "requests/stuck", "DELETE")
            assert (ended.status, [each["id"] for each in ended.json["data"]]) == (200, ["stuck"])
            rest = await client.rest()
            assert b'"code":"request_cancelled"' in rest
            assert b"[DONE]" not in rest
            # The last event, and no final chunk of the transfer coding.
            assert not rest.endswith(b"0\r\n\r\n")
            await turn.left()
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert exchange.usage.output >= 1
        assert (await gateway.ledger()).output == exchange.usage.output
        (entry,) = (await ask(gateway, "audit")).json["data"]
        assert (entry["action"], entry["subject"]) == ("request.cancel", "stuck")
        assert entry["actor"].startswith("the admin API, from 127.0.0.1")
        assert (entry["before"]["team"], entry["before"]["upstream"]) == ("search", "up1")
        (record,) = (await ask(gateway, "requests/stuck")).json["records"]
        assert (record["error"]["code"], record["error"]["blame"]) == ("request_cancelled", "policy")
        assert "An operator of the gateway has ended this request." in " ".join(record["explanation"])
        assert (await in_flight(gateway))["data"] == []
        (line,) = [line for line in gateway.lines if line["event"] == "request cancelled"]
        assert (line["request_id"], line["team"]) == ("stuck", "search")


async def test_a_request_that_has_no_answer_yet_is_told_not_to_try_again() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(headers={"x-request-id": "stuck"}))
            await upstream.asked()
            await ask(gateway, "requests/stuck", "DELETE")
            reply = await client.answer()
            assert (reply.status, reply.error["code"]) == (503, "request_cancelled")
            assert reply.headers["x-should-retry"] == "false"
            assert "retry-after" not in reply.headers
        assert (await gateway.ended()).usage is None


async def test_what_is_not_in_flight_is_told_apart_from_what_has_ended() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN, teams=TEAMS) as gateway:
        unknown = await ask(gateway, "requests/nobodys", "DELETE")
        assert (unknown.status, unknown.error["code"]) == (404, "unknown_url")
        assert "It is not in flight" in unknown.error["message"]
        async with begun(gateway, upstream, "stuck"):
            assert (await ask(gateway, "requests/stuck?team=chat", "DELETE")).status == 404
            typing_error = await ask(gateway, "requests?team=serach")
            assert (typing_error.status, typing_error.error["param"]) == (400, "team")
            assert [each["id"] for each in (await in_flight(gateway))["data"]] == ["stuck"]
            await ask(gateway, "requests/stuck", "DELETE")
        await gateway.ended()
        again = await ask(gateway, "requests/stuck", "DELETE")
        assert again.status == 404
        assert "has ended already" in again.error["message"]
        assert len((await ask(gateway, "audit")).json["data"]) == 1


async def test_gateways_know_of_one_anothers_requests_and_end_them(redis: RedisServer, tmp_path: Path) -> None:
    store = {"url": redis.url, "prefix": "many"}
    async with hand_upstream() as upstream, AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                whole_gateway(upstream.base_url, admin=ADMIN, store={**store, "journal": str(tmp_path / name)})
            )
            for name in ("one", "two")
        ]
        async with begun(one, upstream, "here"), begun(two, upstream, "there") as (client, _):
            found = await in_flight(one, processes=2)
            assert sorted(each["id"] for each in found["data"]) == ["here", "there"]
            assert (await ask(one, "requests/there", "DELETE")).status == 200
            async with asyncio.timeout(PATIENCE_S):
                assert b"request_cancelled" in await client.rest()
            await two.ended()
            # Whichever gateway is asked, it has the record.
            for gateway in (one, two):
                (record,) = (await ask(gateway, "requests/there")).json["records"]
                assert record["error"]["code"] == "request_cancelled"


async def test_a_gateway_whose_store_is_out_shows_what_runs_in_itself(tmp_path: Path) -> None:
    with redis_server(tcp=True) as server:
        store = {"url": server.url, "journal": str(tmp_path), "timeout": "100ms"}
        async with hand_upstream() as upstream, whole_gateway(upstream.base_url, admin=ADMIN, store=store) as gateway:
            async with begun(gateway, upstream, "stuck") as (client, _):
                server.kill()
                found = (await ask(gateway, "requests")).json
                assert [each["id"] for each in found["data"]] == ["stuck"]
                assert found["problem"].startswith("The store does not answer")
                ended = await ask(gateway, "requests/stuck", "DELETE")
                assert ended.status == 200
                assert "not in the audit" in ended.json["problem"]
                assert b"request_cancelled" in await client.rest()
            server.start()
            await gateway.ended()


async def test_workers_of_one_gateway_are_one_list_and_the_commands_end_what_they_serve(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with hand_upstream() as upstream:
        config = shared(upstream.base_url, redis, tmp_path)
        async with workers_process(config, tmp_path) as gateway, AsyncExitStack() as stack:
            clients = []
            for number in range(6):
                client = await stack.enter_async_context(raw_client(gateway.port))
                client.send(http_chat(headers={"x-request-id": f"r{number}"}, stream=True))
                turn = await upstream.asked()
                turn.begin_stream()
                turn.send(content("Once"))
                await client.until(content("Once"))
                clients.append(client)
            shell = Shell(configuration(upstream.base_url, store=config["store"]), tmp_path)
            found = json.loads(await shell.run("requests", "--json"))
            assert sorted(each["id"] for each in found["data"]) == [f"r{number}" for number in range(6)]
            assert found["processes"] == {"asked": 2, "answered": 2}
            table = (await shell.run("requests", "--team", "search")).splitlines()
            assert [line.split()[0] for line in table[1:]] == [f"r{number}" for number in range(6)]
            for number, client in enumerate(clients):
                assert (await shell.run("requests", "cancel", f"r{number}")).startswith(
                    f"Ended: r{number} of team search"
                )
                assert b"request_cancelled" in await client.rest()
            assert "No request is in flight in the 2 processes that answered." in await shell.run("requests")
            audit = json.loads(await shell.run("audit", "--json"))["data"]
            assert {entry["actor"].partition(",")[0] for entry in audit} == {"the command line"}
            assert sorted(entry["subject"] for entry in audit) == [f"r{number}" for number in range(6)]


async def test_a_store_without_a_gateway_is_said_to_have_none(redis: RedisServer, tmp_path: Path) -> None:
    shell = Shell(shared("http://127.0.0.1:1/v1", redis, tmp_path), tmp_path)
    assert await shell.run("requests") == "No gateway runs with this store, so no request is in flight.\n"
    ended = await asyncio.to_thread(CliRunner().invoke, main, ["explain", "-c", str(tmp_path / "shell.yaml"), "nope"])
    assert ended.exit_code == 1
    assert "No gateway process runs with this store, and there is no record of it." in ended.stderr


class Shell:
    """Runs `gateway` beside the gateway of a test."""

    def __init__(self, config: Json, folder: Path) -> None:
        self._file = folder / "shell.yaml"
        self._file.write_text(json.dumps(config))

    async def run(self, *words: str) -> str:
        position = 2 if words[:2] == ("requests", "cancel") else 1
        arguments = [*words[:position], "-c", str(self._file), *words[position:]]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout
