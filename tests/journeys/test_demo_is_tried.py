"""Nothing is configured: `gateway serve --demo`, or `--upstream` with a server's URL, and what they print."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.app.demo import PLAYED_MODELS
from gateway.core.endpoints import ENDPOINTS, Endpoint
from gateway.demo.server import DemoUpstream
from gateway.settings.demo_credentials import DEMO_KEY
from tests.apis import SmallestRequest
from tests.hand_upstream import hand_upstream
from tests.whole_gateway import whole_gateway

PAGES = Path(__file__).parents[2] / "docs" / "clients"
CURL = re.compile(r"^curl .*?\]\}'$", re.MULTILINE | re.DOTALL)
REPORT = re.compile(r"^\S.*(?:usage|limits) --demo \S+$", re.MULTILINE)


async def test_the_commands_that_the_demo_prints_work_as_they_stand() -> None:
    process = await _start("--demo")
    printed = await _printed(process)
    commands = CURL.findall(printed)
    plain, streamed = [await _shell(command) for command in commands]
    offered = await _shell(commands[0].replace('"messages"', '"tools": [{"function": {"name": "look"}}], "messages"'))
    metrics = await _shell(re.findall(r"curl \S+ http\S+/metrics", printed)[0])
    reports = [await _shell(command) for command in REPORT.findall(printed)]
    process.terminate()
    assert '"finish_reason":"stop"' in plain
    assert '"finish_reason":"stop"' in offered, "an agent's tools are left alone"
    assert streamed.rstrip().endswith("data: [DONE]")
    assert 'gateway_requests_total{endpoint="chat.completions",team="demo"' in metrics
    usage, limits = reports
    assert re.search(r"demo +openai/gpt-oss-120b +3 ", usage)
    assert "requests-per-minute" in limits
    assert await process.wait() == 0


async def test_the_variables_that_the_demo_prints_are_all_that_claude_code_needs() -> None:
    process = await _start("--demo")
    exports = re.findall(r"^export .*$", await _printed(process), re.MULTILINE)
    for model in ("ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL"):
        body = json.dumps({"model": f"${model}", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
        data = body.replace('"', '\\"')
        curl = f'curl -s $ANTHROPIC_BASE_URL/v1/messages -H "x-api-key: $ANTHROPIC_API_KEY" -d "{data}"'
        assert '"type":"message"' in await _shell("\n".join([*exports, curl]))
    process.terminate()
    assert await process.wait() == 0


def test_the_demo_serves_every_model_that_a_page_of_a_client_names() -> None:
    pages = "".join(page.read_text() for page in sorted(PAGES.glob("*.md")))
    named = set(re.findall(r"\b(?:claude|gemini)-[a-z]*-?\d[a-z0-9.-]*\b", pages))
    assert named >= {"claude-sonnet-5-5", "gemini-3.8-flash"}
    assert named <= set(PLAYED_MODELS)


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.name)
async def test_the_demo_answers_every_endpoint_that_names_a_model(endpoint: Endpoint) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asked = SmallestRequest.of(endpoint)
        reply = await gateway.post(asked.body, path=asked.path, headers={"content-type": asked.content_type})
        assert reply.status == 200
        await gateway.ended()
        row, truth = await gateway.ledger(), upstream.truth.total
        assert (row.input, row.output) == (truth.reported.prompt, truth.reported.completion)
        assert row.estimated == 0


async def test_what_the_demo_prints_fits_a_terminal_and_is_the_same_at_each_start() -> None:
    printed = []
    for _ in range(2):
        process = await _start("--demo")
        printed.append(re.sub(r":\d{4,5}\b", ":8080", await _printed(process)))
        process.terminate()
        await process.wait()
    assert printed[0] == printed[1]
    # The reports' commands begin with the path of this machine's Python.
    assert [line for line in REPORT.sub("", printed[0]).splitlines() if len(line) > 80] == []


async def test_ctrl_c_says_what_it_waits_for_and_a_second_one_stops() -> None:
    process = await _start("--demo", stderr=asyncio.subprocess.PIPE)
    _, streamed = CURL.findall(await _printed(process))
    endless = streamed.replace('"stream": true', '"stream": true, "demo": {"chunks": 4000}')
    client = await asyncio.create_subprocess_shell(endless, stdout=asyncio.subprocess.PIPE)
    assert client.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(30):
        await client.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert b"for 1 request to finish. Ctrl-C again stops at once." in await process.stderr.readuntil(b"at once.")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        await client.communicate()


async def test_where_others_reach_it_the_demo_makes_a_key_of_its_own() -> None:
    process = await _start("--demo", listen="0.0.0.0:0")
    printed = await _printed(process)
    plain = await _shell(CURL.findall(printed)[0])
    process.terminate()
    await process.wait()
    assert re.search(rf"{DEMO_KEY}\b", printed) is None
    assert '"finish_reason":"stop"' in plain


async def test_every_model_that_a_server_lists_is_served() -> None:
    odd = 'My Model\'s "Q4" {é} *.gguf'
    async with DemoUpstream(models=(odd, "two", "", "three\n", "x" * 300)) as upstream:
        process = await _start("--upstream", upstream.base_url)
        printed = await _printed(process)
        plain = await _shell(CURL.findall(printed)[0])
        process.terminate()
        assert await process.wait() == 0
    assert f"The gateway serves {odd} (and 1 more)\nat " in printed
    assert json.loads(plain)["model"] == odd


async def test_a_server_behind_the_proxy_of_the_environment_is_served() -> None:
    async with hand_upstream() as proxy:
        environ = {"HTTP_PROXY": proxy.base_url.removesuffix("/v1"), "no_proxy": "other.invalid"}
        process = await _start("--upstream", "http://llm.invalid/v1", **environ)
        listing = await proxy.asked()
        listing.answer(b'{"data": [{"id": "one"}]}')
        assert listing.request_line == "GET http://llm.invalid/v1/models HTTP/1.1"
        plain = asyncio.create_task(_shell(CURL.findall(await _printed(process))[0]))
        chat = await proxy.asked()
        chat.answer(b'{"model": "one"}')
        assert chat.request_line == "POST http://llm.invalid/v1/chat/completions HTTP/1.1"
        assert json.loads(await plain) == {"model": "one"}
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--upstream", "somewhere"], 2, "base_url: must be an http:// or https:// URL"),
        (["--upstream", "http://127.0.0.1:1/v1"], 1, "http://127.0.0.1:1/v1 is not served: "),
        (["--upstream", "http://127.0.0.1:1/"], 1, "Most servers have their API at http://127.0.0.1:1/v1."),
        (["--demo", "--listen", "somewhere"], 2, "listen: must be an address"),
        (["--demo", "--listen", "0.0.0.0:0"], 2, "teams.demo.keys[0]: is that of the demo, which is public"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(arguments: list[str], status: int, said: str) -> None:
    command = [sys.executable, "-m", "gateway", "serve", *arguments]
    env = os.environ | {"INDUCTA_API_KEY": DEMO_KEY}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


async def _start(
    *arguments: str, listen: str = "127.0.0.1:0", stderr: int | None = None, **environ: str
) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "gateway", "serve", *arguments, "--listen", listen)
    env = os.environ | environ
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=stderr, env=env)


async def _printed(process: asyncio.subprocess.Process) -> str:
    """What is told to people, up to its last line. Lines of the log come in between where their thread is as fast."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        printed = (await process.stdout.readuntil(b"Ctrl-C")).decode()
    return re.sub(r"^\{\"time\".*\n", "", printed, flags=re.MULTILINE)


async def _shell(command: str) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(30):
        return (await process.communicate())[0].decode()
