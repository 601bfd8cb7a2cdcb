"""The `anthropic` library against a whole gateway: as if it were Anthropic's own API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from gateway.core.usage import Usage
from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import KEY, MODEL, WholeGateway, key_settings, whole_gateway

ASKED: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Say hello."}],
}
TOOLS = [{"name": "look_up", "input_schema": {"type": "object"}}]
SAID = "Hello! This is the demo"


@pytest.fixture
async def upstream() -> AsyncIterator[DemoUpstream]:
    async with DemoUpstream(DemoScript(chunks=5)) as running:
        yield running


@pytest.fixture
async def gateway(upstream: DemoUpstream) -> AsyncIterator[WholeGateway]:
    async with whole_gateway(upstream.base_url, team={"models": ["openai/*"], "keys": [key_settings()]}) as running:
        yield running


@pytest.fixture
async def client(gateway: WholeGateway) -> AsyncIterator[AsyncAnthropic]:
    async with _client(gateway) as made:
        yield made


def _client(gateway: WholeGateway, **options: Any) -> AsyncAnthropic:
    """The library adds /v1 itself."""
    return AsyncAnthropic(**{"base_url": gateway.url.removesuffix("/v1"), "api_key": KEY, "max_retries": 0, **options})


async def test_a_message_is_parsed_and_charged(client: AsyncAnthropic, gateway: WholeGateway) -> None:
    message = await client.messages.create(**ASKED)
    assert message.content[0].text == SAID  # type: ignore[union-attr]  # the demo upstream says text
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 5)
    assert (await gateway.ended()).usage == Usage(3, 5)


async def test_tokens_from_the_cache_are_charged_as_input(
    client: AsyncAnthropic, gateway: WholeGateway, upstream: DemoUpstream
) -> None:
    upstream.script = DemoScript(chunks=5, prompt_tokens=100, cached_tokens=60)
    message = await client.messages.create(**ASKED)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (40, 60)
    assert (await gateway.ended()).usage == Usage(input=100, output=5, cached_input=60)
    async with client.messages.stream(**ASKED) as stream:
        final = await stream.get_final_message()
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens) == (40, 60)
    assert (await gateway.ended()).usage == Usage(input=100, output=5, cached_input=60)


async def test_a_streamed_message_is_accumulated(client: AsyncAnthropic, gateway: WholeGateway) -> None:
    async with client.messages.stream(**ASKED) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(texts) == SAID
    assert len(texts) == 5
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 5)
    assert (await gateway.ended()).usage == Usage(3, 5)


async def test_a_stream_comes_in_its_typed_events(client: AsyncAnthropic) -> None:
    events = [event.type async for event in await client.messages.create(**ASKED, stream=True)]
    assert events[:2] == ["message_start", "content_block_start"]
    assert events.count("content_block_delta") == 5
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_a_tool_call_arrives_whole(client: AsyncAnthropic) -> None:
    async with client.messages.stream(**ASKED, tools=TOOLS) as stream:
        final = await stream.get_final_message()
    (call,) = final.content
    assert call.type == "tool_use"
    assert (call.name, set(call.input)) == ("look_up", {"text"})


async def test_the_key_may_come_as_a_bearer_token_too(gateway: WholeGateway) -> None:
    async with _client(gateway, api_key=None, auth_token=KEY) as client:
        assert (await client.messages.create(**ASKED)).stop_reason == "end_turn"


async def test_what_the_library_says_of_versions_reaches_the_upstream(
    client: AsyncAnthropic, upstream: DemoUpstream
) -> None:
    await client.beta.messages.create(**ASKED, betas=["tools-2025"])
    arrived = {name.lower(): value for name, value in upstream.truth.requests[0].headers}
    assert arrived["anthropic-version"] == client.default_headers["anthropic-version"]
    assert arrived["anthropic-beta"] == "tools-2025"
    assert KEY not in arrived.values()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_key_is_an_authentication_error(gateway: WholeGateway, stream: bool) -> None:
    async with _client(gateway, api_key="gw_wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client.messages.create(**ASKED, stream=stream)
    _assert_told(refused.value, 401, "authentication_error", "invalid_api_key")


async def test_an_unknown_model_is_a_not_found_error(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await client.messages.create(**{**ASKED, "model": "absent"})
    _assert_told(refused.value, 404, "not_found_error", "model_not_found")


async def test_a_field_out_of_range_is_a_bad_request_error(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(**{**ASKED, "max_tokens": 0})
    _assert_told(refused.value, 400, "invalid_request_error", "invalid_value")
    assert "'max_tokens'" in str(refused.value)


async def test_a_spent_quota_is_a_rate_limit_error_that_is_not_tried_again(upstream: DemoUpstream) -> None:
    async with (
        whole_gateway(upstream.base_url, team={"limits": [{"requests": 1, "per": "day"}]}) as gateway,
        _client(gateway, max_retries=5) as client,
    ):
        await client.messages.create(**ASKED)
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(**ASKED)
        _assert_told(refused.value, 429, "billing_error", "insufficient_quota")
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["limit"]["meter"] == "requests"
        assert len(gateway.lines) == 2


async def test_a_rate_is_waited_for_as_it_says(upstream: DemoUpstream) -> None:
    team = {"limits": [{"requests": 20, "per": "second", "burst": 1}]}
    async with whole_gateway(upstream.base_url, team=team) as gateway, _client(gateway, max_retries=1) as client:
        for _ in range(3):
            assert (await client.messages.create(**ASKED)).stop_reason == "end_turn"
        assert [line["status"] for line in gateway.lines].count(200) == 3


async def test_a_model_server_that_is_lost_is_a_server_error(client: AsyncAnthropic, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(halt="reset", halt_at="before_headers")
    with pytest.raises(anthropic.InternalServerError) as refused:
        await client.messages.create(**ASKED)
    _assert_told(refused.value, 502, "api_error", "upstream_unreachable")


async def test_a_stream_that_breaks_raises_and_never_looks_whole(
    client: AsyncAnthropic, upstream: DemoUpstream
) -> None:
    upstream.script = DemoScript(chunks=6, halt="reset", halt_after=5)
    texts: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as broken:
        await _read(client, texts)
    assert "".join(texts) == "Hello! This"
    assert isinstance(broken.value.body, dict)
    assert broken.value.body["error"]["code"] == "upstream_broke"


async def test_an_error_event_of_the_upstream_raises(client: AsyncAnthropic, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(chunks=6, error_after=5)
    with pytest.raises(anthropic.APIStatusError) as broken:
        await _read(client, [])
    assert "The demo upstream's script breaks here." in json.dumps(broken.value.body)


async def test_a_stream_that_is_closed_early_ends_the_upstreams(client: AsyncAnthropic, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(chunks=1000, chunk_delay_ms=5)
    async with client.messages.stream(**{**ASKED, "max_tokens": 2_000}) as stream:
        async for _ in stream.text_stream:
            break
    await upstream.truth.when(lambda truth: truth.total.cancelled == 1)


async def test_the_synchronous_client_does_the_same(gateway: WholeGateway, upstream: DemoUpstream) -> None:
    def use() -> None:
        with Anthropic(base_url=gateway.url.removesuffix("/v1"), api_key=KEY, max_retries=0) as client:
            assert client.messages.create(**ASKED).usage.output_tokens == 5
            with client.messages.stream(**ASKED) as stream:
                assert stream.get_final_text() == SAID
            with pytest.raises(anthropic.NotFoundError):
                client.messages.create(**{**ASKED, "model": "absent"})

    await asyncio.to_thread(use)
    assert upstream.truth.total.completed == 2


async def _read(client: AsyncAnthropic, texts: list[str]) -> None:
    async with client.messages.stream(**ASKED) as stream:
        async for text in stream.text_stream:
            texts.append(text)


def _assert_told(error: anthropic.APIStatusError, status: int, kind: str, code: str) -> None:
    assert error.status_code == status
    assert isinstance(error.body, dict)
    assert error.body["type"] == "error"
    assert (error.body["error"]["type"], error.body["error"]["code"]) == (kind, code)
    assert error.body["error"]["message"]


async def test_models_are_listed_page_by_page(upstream: DemoUpstream) -> None:
    models = {name: {"routes": [{"upstream": "up1"}], "context_window": 1000} for name in ("one", "two", "three")}
    async with whole_gateway(upstream.base_url, models=models) as gateway, _client(gateway) as client:
        listed = [model async for model in client.models.list(limit=2)]
        assert [(model.id, model.display_name, model.type, model.max_input_tokens) for model in listed] == [
            (name, name, "model", 1000) for name in models
        ]
        assert (await client.models.retrieve("two")).id == "two"


async def test_a_base_url_with_a_version_too_many_is_explained(gateway: WholeGateway) -> None:
    async with _client(gateway, base_url=gateway.url) as client:
        with pytest.raises(anthropic.NotFoundError, match="leave /v1 off the base URL") as failed:
            await client.messages.create(**ASKED)
        assert failed.value.request_id
