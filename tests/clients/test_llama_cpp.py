"""A real model server behind the gateway: llama.cpp's, which answers anything with the same few words."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.gateway_process import gateway_process
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import PATIENCE_S, Json, WholeGateway, whole_gateway

SECRET = {"authorization": "Bearer upstream-secret"}
ASKING = {"stream_options": {"include_usage": True}}


@pytest.fixture
async def gateway(server: str) -> AsyncIterator[WholeGateway]:
    upstreams = {"up1": {"base_url": f"{server}/v1", "api_key": "upstream-secret"}}
    model = {"routes": [{"upstream": "up1", "model": "tiny"}], "max_output_tokens": 8000}
    async with whole_gateway(f"{server}/v1", upstreams=upstreams, model=model) as running:
        yield running


async def test_a_plain_answer_is_charged_as_the_server_counts(gateway: WholeGateway) -> None:
    reply = await gateway.chat(max_tokens=64)
    assert reply.status == 200
    assert "Zürich" in reply.json["choices"][0]["message"]["content"]
    await _assert_charged(gateway, reply.json["usage"])


@pytest.mark.parametrize("asked", [{}, ASKING], ids=["not asking", "asking"])
async def test_a_stream_is_charged_as_the_server_counts(gateway: WholeGateway, asked: Json) -> None:
    reply = await gateway.chat(stream=True, max_tokens=64, **asked)
    assert reply.events[-1] == "[DONE]"
    assert not reply.broken
    texts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in reply.chunks if chunk["choices"]]
    assert "Zürich" in "".join(texts)
    usages = [chunk["usage"] for chunk in reply.chunks if chunk.get("usage")]
    assert len(usages) == 1
    assert bool(reply.chunks[-1]["choices"]) is not bool(asked)
    await _assert_charged(gateway, usages[0])


async def test_two_choices_are_both_charged(gateway: WholeGateway) -> None:
    reply = await gateway.chat(stream=True, n=2, max_tokens=64)
    exchange = await gateway.ended()
    assert exchange.usage is not None
    told = [chunk["usage"] for chunk in reply.chunks if chunk.get("usage")]
    assert exchange.usage.output == told[-1]["completion_tokens"]
    assert reply.events[-1] == "[DONE]"


async def test_a_cap_of_the_client_reaches_the_server(gateway: WholeGateway) -> None:
    reply = await gateway.chat(max_tokens=3)
    assert reply.json["choices"][0]["finish_reason"] == "length"
    await _assert_charged(gateway, reply.json["usage"])


async def test_an_error_of_the_server_reaches_the_client(gateway: WholeGateway) -> None:
    reply = await gateway.chat(response_format={"type": "nonsense"})
    assert reply.status == 400
    assert reply.json["error"]["message"]
    assert (await gateway.ledger()).requests == 0


async def test_a_client_that_leaves_frees_the_servers_slot(gateway: WholeGateway, server: str) -> None:
    async with raw_client(gateway.port) as client:
        client.send(http_chat(stream=True, max_tokens=8000, ignore_eos=True))
        await client.until(b'"content":"')
        assert await _busy(gateway, server) == 1
        client.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            while await _busy(gateway, server):
                continue
    exchange = await gateway.ended()
    assert exchange.usage is not None
    assert exchange.usage.source == "estimated"
    assert 0 < exchange.usage.output < 8000


async def test_a_gateway_without_a_file_serves_what_the_server_lists(server: str, tmp_path: Path) -> None:
    arguments = ("--upstream", f"{server}/v1", "--listen", "127.0.0.1:0")
    environment = {"UPSTREAM_API_KEY": "upstream-secret"}
    async with gateway_process(*arguments, folder=tmp_path, environment=environment) as gateway:
        said = await gateway.saying("with the key")
        key = said.rpartition(" ")[2].strip()
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=key) as client:
            assert [model.id async for model in client.models.list()] == ["tiny"]
            messages: Any = [{"role": "user", "content": "Say hello."}]
            stream = await client.chat.completions.create(model="tiny", messages=messages, stream=True)
            chunks = [chunk async for chunk in stream]
        assert "Zürich" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        gateway.signal(signal.SIGINT)
        assert await gateway.exit_status() == 0
        assert [line["status"] for line in gateway.lines if line["event"] == "request"] == [200, 200]


async def _assert_charged(gateway: WholeGateway, usage: dict[str, Any]) -> None:
    exchange = await gateway.ended()
    assert exchange.usage is not None
    assert exchange.usage.source == "reported"
    assert (exchange.usage.input, exchange.usage.output) == (usage["prompt_tokens"], usage["completion_tokens"])
    row = await gateway.ledger()
    assert (row.input, row.output, row.estimated) == (usage["prompt_tokens"], usage["completion_tokens"], 0)


async def _busy(gateway: WholeGateway, server: str) -> int:
    async with gateway.session.get(f"{server}/slots", headers=SECRET) as answer:
        return sum(slot["is_processing"] for slot in await answer.json())
