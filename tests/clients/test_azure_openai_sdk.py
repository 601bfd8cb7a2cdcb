"""The `openai` library's Azure client against a whole gateway: the model is in the path, the key in `api-key`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncAzureOpenAI

from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import KEY, MODEL, WholeGateway, whole_gateway

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
SAID = "Hello! This is the demo"


@pytest.fixture
async def upstream() -> AsyncIterator[DemoUpstream]:
    async with DemoUpstream(DemoScript(chunks=5)) as running:
        yield running


@pytest.fixture
async def gateway(upstream: DemoUpstream) -> AsyncIterator[WholeGateway]:
    async with whole_gateway(upstream.base_url) as running:
        yield running


def _client(gateway: WholeGateway, **options: Any) -> AsyncAzureOpenAI:
    place = options or {"azure_endpoint": gateway.url.removesuffix("/v1")}
    return AsyncAzureOpenAI(**place, api_key=KEY, api_version="2024-10-21", max_retries=0)


async def test_a_deployment_is_a_model(gateway: WholeGateway, upstream: DemoUpstream) -> None:
    async with _client(gateway) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        embeddings = await client.embeddings.create(model=MODEL, input="text")
    assert (answer.choices[0].message.content, text, len(embeddings.data)) == (SAID, SAID, 1)
    assert [request.path for request in upstream.truth.requests] == [
        *("/v1/chat/completions", "/v1/chat/completions", "/v1/embeddings")
    ]
    assert (await gateway.ledger()).requests == 3


async def test_responses_and_models_are_where_azure_has_them(gateway: WholeGateway) -> None:
    async with _client(gateway) as client:
        assert (await client.responses.create(model=MODEL, input="Say hello.")).output_text == SAID
        assert [model.id async for model in client.models.list()] == [MODEL]


async def test_a_client_that_was_given_a_base_url_works_too(gateway: WholeGateway) -> None:
    async with _client(gateway, base_url=gateway.url) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == SAID
