"""`gateway notify test`: whether receivers take what they are sent, without a gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from gateway.__main__ import main
from tests.webhook_receiver import webhook_receiver
from tests.whole_gateway import Json, configuration


async def run(folder: Path, notify: list[Json], *arguments: str) -> Result:
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(configuration("http://127.0.0.1:1/v1", notify=notify)))
    return await asyncio.to_thread(CliRunner().invoke, main, ["notify", "test", "-c", str(file), *arguments])


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
