"""Every command of docs/operators-questions.md answers its question, on a gateway that has something to tell."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.demo import DemoScript, DemoUpstream
from tests.gateway_process import GatewayProcess, gateway_process
from tests.redis_servers import redis_server
from tests.whole_gateway import KEY, MODEL, PATIENCE_S, Json, chat_body, configuration
from tests.workers import TOKEN

PAGE = Path(__file__).parents[2] / "docs" / "operators-questions.md"
PAGES_OF_CONSOLE = Path(__file__).parents[2] / "gateway" / "web" / "console" / "app.js"

ANSWERS = {
    "Why was this request refused?": r"tokens-per-day",
    "Who used most this week?": r"search +ann",
    "Which upstream is unhealthy, and why?": r"up1",
    "What would this file change?": r"other/model",
    "How much is left, and until when?": r"(?s)runs out at.*tokens-per-month +team search",
    "How do I replace a key?": r"gw_[A-Za-z0-9_-]{43}",
    "How do I revoke a key everywhere?": r"revoked",
    "How do I give extra tokens until Friday?": r"tokens-per-month",
    # The key of the file that was used is left out, and the one of the store that is younger.
    "Which keys are not used?": r"\A(?!(.|\n)*(search-test|spare))(.|\n)*search-idle(.|\n)*search-old",
    "What did it cost, by day, team and model, for a spreadsheet?": rf"(?s)^day,team,model,.*,search,{MODEL},",
    "What is stuck?": r"search",
    "How do I add a model?": r"is valid: 1 upstream, 2 models",
    "How do I drain one gateway?": r"^$",
    "Is it the gateway, Redis or the upstream that is slow?": r"(?s)store.*up1",
    "Which user of a team uses most tokens?": r"ann",
    "How much of the usage is estimated?": rf"(?s)estimated.*{MODEL}",
    "Was anything lost last night?": r"\ANothing was lost since",
    "What does an upgrade do?": r'"errors": \[\]',
    "How do I try a limit first?": r"other/model",
    "How do I onboard a team?": r"gw_[A-Za-z0-9_-]{43}",
}


class Question(NamedTuple):
    text: str
    command: str
    page: str


def questions() -> list[Question]:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "| `" in line]
    return [Question(text, command.strip("`"), page.strip("`")) for text, command, page, _ in rows]


def test_every_question_is_tried_and_its_page_is_one_of_the_console() -> None:
    found = questions()
    assert [question.text for question in found] == list(ANSWERS)
    known = set(re.findall(r'^  \["([a-z]+)", "', PAGES_OF_CONSOLE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {question.page.split("/")[1] for question in found} <= known


class Terminal:
    """An operator at a shell beside the gateway."""

    def __init__(self, folder: Path, gateway: GatewayProcess, names: dict[str, str]) -> None:
        self._folder = folder
        self._gateway = gateway
        self._names = names

    async def run(self, command: str) -> str:
        for name, value in self._names.items():
            command = re.sub(rf"(?<![A-Z_]){re.escape(name)}\b", value, command)
        words = command.replace('"product launch"', "product-launch").split()
        if words[0] != "gateway":
            return await self._shell(*words)
        words = [str(self._folder / word) if word == "new.yaml" else word for word in words[1:]]
        environment = {"GATEWAY_CONFIG": str(self._folder / "operators.yaml")}
        result = await asyncio.to_thread(CliRunner().invoke, main, words, env=environment)
        assert result.exit_code == 0, f"{command}: {result.output}"
        return result.output

    async def _shell(self, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        assert process.returncode == 0, words
        return output.decode()


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    with redis_server() as redis:
        async with DemoUpstream(DemoScript(prompt_tokens=600, chunks=2_000, chunk_delay_ms=20)) as slow:
            limits: list[Json] = [
                {"tokens": 50_000_000, "per": "month"},
                {"tokens": 1, "per": "day", "models": ["tiny"]},
            ]
            limits[1]["name"] = "tokens-per-day"
            config = configuration(
                slow.base_url,
                team={"limits": limits},
                model={"price": {"input": 1, "output": 2}},
                admin={"listen": "127.0.0.1:0", "token": TOKEN},
                store={"url": redis.url, "journal": str(tmp_path / "journal")},
            )
            config["models"]["tiny"] = config["models"][MODEL]
            config["teams"]["search"]["keys"].append({"name": "search-idle", "sha256": "5e" * 32})
            headers = {"authorization": f"Bearer {KEY}"}
            async with (
                gateway_process(config=config, folder=tmp_path) as gateway,
                aiohttp.ClientSession(headers=headers) as session,
                session.post(url_of(gateway), json=chat_body(stream=True)),
            ):
                yield await terminal_of(gateway, config, tmp_path, session)


def url_of(gateway: GatewayProcess) -> str:
    return f"http://127.0.0.1:{gateway.port}/v1/chat/completions"


async def terminal_of(gateway: GatewayProcess, config: Json, folder: Path, session: aiohttp.ClientSession) -> Terminal:
    """With requests that were answered and refused, beside one in flight, and a key to change."""
    here = {**config, "admin": {**config["admin"], "listen": f"127.0.0.1:{gateway.admin_port}"}}
    (folder / "operators.yaml").write_text(json.dumps(here))
    models = {MODEL: config["models"][MODEL], "other/model": config["models"][MODEL]}
    (folder / "new.yaml").write_text(json.dumps({**here, "models": models, "teams": changed(config["teams"])}))
    async with session.post(url_of(gateway), json=chat_body(user="ann", max_tokens=5)) as answer:
        assert answer.status == 200, await answer.text()
    async with session.post(url_of(gateway), json=chat_body(model="tiny")) as answer:
        assert answer.status == 429, await answer.text()
        refused = answer.headers["x-request-id"]
    admin = f"http://127.0.0.1:{gateway.admin_port}"
    await until_recorded(session, f"{admin}/admin/v1/requests/{refused}")
    names = {"REQUEST_ID": refused, "$ADMIN": admin, "PID": str(gateway.pid)}
    terminal = Terminal(folder, gateway, names)
    old = {"sha256": "4c" * 32, "name": "search-old", "team": "search", "created_at": "2025-01-01T00:00:00Z"}
    (folder / "old.json").write_text(json.dumps({"keys": [old]}))
    await terminal.run(f"gateway keys import {folder / 'old.json'}")
    made = await terminal.run("gateway keys create --team search --name spare --json")
    names["KEY_ID"] = json.loads(made)["id"]
    return terminal


async def until_recorded(session: aiohttp.ClientSession, url: str) -> None:
    """Records of refused requests are written a moment later, many at once."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with session.get(url, headers={"authorization": f"Bearer {TOKEN}"}) as answer:
                if answer.status == 200:
                    return


def changed(teams: Json) -> Json:
    """Without the limit on the model that the new file does not have."""
    search = teams["search"]
    return {**teams, "search": {**search, "limits": search["limits"][:1]}}


@pytest.mark.slow
async def test_every_question_has_its_answer(terminal: Terminal) -> None:
    # What ends the gateway is asked last.
    asked = sorted(questions(), key=lambda question: question.command.startswith("kill"))
    wrong = {}
    for question in asked:
        output = await terminal.run(question.command)
        if not re.search(ANSWERS[question.text], output):
            wrong[question.text] = output
    assert wrong == {}
    assert await terminal._gateway.exit_status() == 0
