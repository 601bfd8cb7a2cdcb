"""The `openai` library against a whole gateway: as if it were OpenAI's own API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.demo import DemoScript, DemoUpstream
from tests.contract.store.keepers import FalseClock
from tests.whole_gateway import KEY, MODEL, WholeGateway, key_settings, whole_gateway

ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
SAID = "Hello! This is the demo"


@pytest.fixture
async def upstream() -> AsyncIterator[DemoUpstream]:
    async with DemoUpstream(DemoScript(chunks=5)) as running:
        yield running


@pytest.fixture
async def gateway(upstream: DemoUpstream) -> AsyncIterator[WholeGateway]:
    model = {"max_output_tokens": 100, "aliases": ["gpt-oss"]}
    team = {"models": ["openai/*"], "keys": [key_settings()]}
    async with whole_gateway(upstream.base_url, model=model, team=team) as running:
        yield running


@pytest.fixture
async def client(gateway: WholeGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as made:
        yield made


async def test_a_plain_answer_is_parsed_whole(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(**ASKED)
    answer = raw.parse()
    assert answer.choices[0].message.content == SAID
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 5, 8)
    assert answer._request_id == raw.headers["x-request-id"]


async def test_a_streamed_answer_is_parsed_chunk_by_chunk(client: AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await client.chat.completions.create(**ASKED, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [5]
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_stream_with_usage_ends_with_a_chunk_of_its_own(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8
    assert not any(chunk.usage for chunk in chunks[:-1])


async def test_the_librarys_own_accumulation_of_a_stream_works(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**ASKED) as stream:
        kinds = {happening.type async for happening in stream}
        completion = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert completion.choices[0].message.content == SAID
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5


async def test_tool_calls_arrive_as_deltas_that_make_json(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(**ASKED, tools=TOOLS, stream=True)
    calls = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function is not None
    assert calls[0].function.name == "look_up"
    arguments = "".join(call.function.arguments or "" for call in calls if call.function)
    assert json.loads(arguments).keys() == {"text"}


async def test_models_are_listed_and_found_by_ids_with_a_slash(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    found = await client.models.retrieve(MODEL)
    assert (found.id, found.object) == (MODEL, "model")
    assert found.created > 0
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("openai/absent")


async def test_a_bad_key_is_an_authentication_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.with_options(api_key="gw_wrong").chat.completions.create(**ASKED)
    _assert_told(refused.value, 401, "invalid_api_key", None)
    assert refused.value.request_id
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="gw_wrong").models.list()


async def test_an_unknown_model_is_a_not_found_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(**{**ASKED, "model": "openai/absent"})
    _assert_told(refused.value, 404, "model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_field_out_of_range_is_a_bad_request_error(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**ASKED, temperature=3, stream=stream)
    _assert_told(refused.value, 400, "invalid_value", "temperature")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_rate_limit_error_says_when_to_come_back(upstream: DemoUpstream, stream: bool) -> None:
    clock, team = FalseClock(), {"limits": [{"requests": 7, "per": "minute", "burst": 1}]}
    async with (
        whole_gateway(upstream.base_url, team=team, clock=clock) as gateway,
        AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
    ):
        await client.chat.completions.create(**ASKED)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**ASKED, stream=stream)
        _assert_told(refused.value, 429, "rate_limit_exceeded", None)
        assert refused.value.type == "requests"
        clock.at_ms += int(refused.value.response.headers["retry-after-ms"])
        assert (await client.chat.completions.create(**ASKED)).choices


async def test_the_library_waits_as_long_as_it_is_told_and_then_succeeds(upstream: DemoUpstream) -> None:
    team = {"limits": [{"requests": 20, "per": "second", "burst": 1}]}
    async with (
        whole_gateway(upstream.base_url, team=team) as gateway,
        AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=1) as client,
    ):
        for _ in range(4):
            assert (await client.chat.completions.create(**ASKED)).choices
        statuses = [(await gateway.ended()).status for _ in range(len(gateway.lines))]
        assert statuses.count(200) == 4
        assert 429 in statuses


async def test_the_library_does_not_retry_where_no_retry_can_help(upstream: DemoUpstream) -> None:
    team = {"limits": [{"requests": 1, "per": "month"}]}
    async with (
        whole_gateway(upstream.base_url, team=team) as gateway,
        AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=5) as client,
    ):
        await client.chat.completions.create(**ASKED)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**ASKED)
        _assert_told(refused.value, 429, "insufficient_quota", None)
        assert len(gateway.lines) == 2


async def test_a_stream_that_breaks_raises_and_never_looks_whole(client: AsyncOpenAI, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(chunks=6, halt="reset", halt_after=3)
    stream = await client.chat.completions.create(**ASKED, stream=True)
    texts = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
    assert texts == ["", "Hello!", " This"]
    with pytest.raises(openai.APIError) as broken:
        await anext(stream)
    assert broken.value.code == "upstream_broke"
    await stream.close()


async def test_a_stream_that_is_closed_early_ends_the_upstreams(client: AsyncOpenAI, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(chunks=1000, chunk_delay_ms=5)
    async with await client.chat.completions.create(**ASKED, stream=True) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    await upstream.truth.when(lambda truth: truth.total.cancelled == 1)


async def test_the_synchronous_client_does_the_same(gateway: WholeGateway, upstream: DemoUpstream) -> None:
    def use() -> None:
        with OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
            assert client.chat.completions.create(**ASKED).choices[0].message.content == SAID
            chunks = list(client.chat.completions.create(**ASKED, stream=True))
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
            assert [model.id for model in client.models.list()] == [MODEL]
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="gw_wrong").models.list()
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(**ASKED, top_p=9)

    await asyncio.to_thread(use)
    assert upstream.truth.total.completed == 2


def _assert_told(error: openai.APIStatusError, status: int, code: str, param: str | None) -> None:
    assert error.status_code == status
    assert (error.code, error.param) == (code, param)
    assert isinstance(error.body, dict)
    assert error.body["message"]
