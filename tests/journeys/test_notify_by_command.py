"""`gateway notify`: whether receivers take what they are sent, and what became of it, without a gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.demo import DemoUpstream
from tests.redis_servers import redis_server
from tests.webhook_receiver import webhook_receiver
from tests.whole_gateway import Json, configuration, whole_gateway


async def run(folder: Path, notify: list[Json], *arguments: str, verb: str = "test", **more: Json) -> Result:
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(configuration("http://127.0.0.1:1/v1", notify=notify, **more)))
    return await asyncio.to_thread(CliRunner().invoke, main, ["notify", verb, "-c", str(file), *arguments])


async def listed(folder: Path, notify: list[Json], store: Json) -> Json:
    result = await run(folder, notify, "--json", verb="list", store=store)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_each_receiver_gets_a_test(tmp_path: Path) -> None:
    async with webhook_receiver() as receiver:
        slack = {"url": f"http://127.0.0.1:{receiver.port}/slack?thread=1", "format": "slack", "name": "people"}
        result = await run(tmp_path, [receiver.channel(events=["key"], teams=["search"]), slack])
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == [
            "channel  format  result",
            "json-1   json    sent",
            "people   slack   sent",
        ]
        told = {each.path: each for each in receiver.attempts}
        assert told["/slack?thread=1"].json["text"] == "This is a test of channel people. Nothing has happened."
        assert told["/hook-Xb7Tq2Lm9Rz4"].json["type"] == "test"
        assert told["/hook-Xb7Tq2Lm9Rz4"].is_signed


async def test_a_receiver_that_refuses_is_named_and_the_status_says_so(tmp_path: Path) -> None:
    async with webhook_receiver(lambda attempt: 404) as receiver:
        result = await run(tmp_path, [receiver.channel()], "--json")
        assert result.exit_code == 1
        problem = "it was answered with 404"
        assert json.loads(result.stdout)["data"] == [{"channel": "json-1", "format": "json", "problem": problem}]


async def test_one_receiver_can_be_asked_alone(tmp_path: Path) -> None:
    async with webhook_receiver() as receiver:
        notify = [receiver.channel(name="a"), receiver.channel(name="b")]
        assert (await run(tmp_path, notify, "--channel", "b")).exit_code == 0
        assert len(receiver.attempts) == 1
        unknown = await run(tmp_path, notify, "--channel", "c")
        assert unknown.exit_code == 2
        assert "There is no receiver 'c'; there are a, b." in unknown.stderr


async def test_a_configuration_without_receivers_is_said_so(tmp_path: Path) -> None:
    result = await run(tmp_path, [])
    assert result.exit_code == 2
    assert "No receiver is configured." in result.stderr


async def test_an_operator_sees_what_was_delivered_and_what_fails_and_why(tmp_path: Path) -> None:
    team = {"limits": [{"requests": 10, "per": "month", "name": "monthly"}]}
    with redis_server() as redis:
        store = {"url": redis.url, "journal": str(tmp_path / "journal")}
        async with (
            webhook_receiver(lambda _attempt: 404) as broken,
            webhook_receiver() as receiver,
            DemoUpstream() as upstream,
        ):
            notify = [receiver.channel(name="good", at=["10%"]), broken.channel(name="gone", at=["10%"])]
            nothing = await run(tmp_path, notify, verb="list", store=store)
            found = await listed(tmp_path, notify, store)
            assert nothing.stdout == "Nothing waits, and nothing was delivered lately.\n"
            async with whole_gateway(upstream.base_url, team=team, notify=notify, store=store) as gateway:
                await gateway.chat()
                async with asyncio.timeout(30):
                    # A receiver has its message before the gateway has noted what became of it.
                    while [each["state"] for each in found["data"]] != ["failing", "sent"]:
                        found = await listed(tmp_path, notify, store)
            assert (found["waiting"], found["next"]) == (1, None)
            failing, sent = found["data"]
            assert (failing["state"], failing["channel"], failing["problem"]) == (
                "failing",
                "gone",
                "it was answered with 404",
            )
            assert (sent["state"], sent["channel"], sent["due_at"]) == ("sent", "good", None)
            assert sent["message"].startswith("10 % of limit monthly of team search is used")
            shown = (await run(tmp_path, notify, verb="list", store=store)).stdout.splitlines()
            assert [line.split()[:2] for line in shown] == [["state", "channel"], ["failing", "gone"], ["sent", "good"]]
            hidden = await run(tmp_path, notify, "--limit", "0", verb="list", store=store)
            assert hidden.exit_code == 2


async def test_the_gateway_that_keeps_all_in_memory_is_asked_for_the_same() -> None:
    admin = {"listen": "127.0.0.1:0", "token": "operators-token"}
    async with webhook_receiver() as receiver, DemoUpstream() as upstream:
        team = {"limits": [{"requests": 10, "per": "month", "name": "monthly"}]}
        notify = [receiver.channel(at=["10%"])]
        async with whole_gateway(upstream.base_url, team=team, notify=notify, admin=admin) as gateway:
            await gateway.chat()
            await receiver.until(lambda: bool(receiver.taken))
            headers = {"authorization": "Bearer operators-token"}
            async with asyncio.timeout(10):
                while True:
                    page = await gateway.request("GET", "/admin/v1/notifications", admin=True, headers=headers)
                    states = [each["state"] for each in page.json["data"]]
                    if states == ["sent"]:
                        break
            assert (await gateway.request("POST", "/admin/v1/notifications", admin=True, headers=headers)).status == 405
