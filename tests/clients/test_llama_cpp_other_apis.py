"""The other APIs of a real model server behind the gateway: llama.cpp's, charged as it counts itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.apis import COMPLETIONS, MESSAGES, RESPONSES, SPEAKING, Api, name_of
from tests.whole_gateway import KEY, MODEL, Json, WholeGateway, whole_gateway

SAID = "Grüße aus Zürich!"


@pytest.fixture
async def gateway(server: str) -> AsyncIterator[WholeGateway]:
    async with _before(server) as running:
        yield running


def _before(server: str):  # type: ignore[no-untyped-def]  # as whole_gateway gives it
    upstreams = {"up1": {"base_url": f"{server}/v1", "api_key": "upstream-secret"}}
    model = {"routes": [{"upstream": "up1", "model": "tiny"}]}
    return whole_gateway(f"{server}/v1", upstreams=upstreams, model=model)


def _counts(usage: Json) -> tuple[int, int]:
    """Anthropic's way counts what is cached beside the input."""
    entered = usage.get("prompt_tokens", usage.get("input_tokens", 0)) + usage.get("cache_read_input_tokens", 0)
    return entered, usage.get("completion_tokens", usage.get("output_tokens", 0))


async def _charged(gateway: WholeGateway) -> tuple[int, int]:
    usage = (await gateway.ended()).usage
    assert usage is not None
    assert usage.source == "reported"
    row = await gateway.ledger()
    assert row.estimated == 0
    return usage.input, usage.output


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_a_plain_answer_is_charged_as_the_server_counts(gateway: WholeGateway, api: Api) -> None:
    reply = await api.ask(gateway, **{api.cap: 64})
    assert reply.status == 200
    assert await _charged(gateway) == _counts(reply.json["usage"])
    if api is not COMPLETIONS:  # The tiny model ends at once where it is not asked as in a chat.
        assert SAID in reply.body.decode()


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_a_stream_is_charged_as_a_plain_answer(gateway: WholeGateway, api: Api) -> None:
    plain = await api.ask(gateway, **{api.cap: 64})
    expected = await _charged(gateway)
    stream = await api.ask(gateway, stream=True, **{api.cap: 64})
    assert (plain.status, stream.status, stream.broken) == (200, 200, False)
    assert await _charged(gateway) == expected
    assert stream.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("api", [RESPONSES, MESSAGES], ids=name_of)
async def test_a_cap_of_the_client_reaches_the_server(gateway: WholeGateway, api: Api) -> None:
    await api.ask(gateway, **{api.cap: 3})
    assert (await _charged(gateway))[1] == 3


async def test_openais_library_reads_the_servers_responses(gateway: WholeGateway) -> None:
    async with AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        answer = await client.responses.create(model=MODEL, input="Say hello.")
        assert SAID in answer.output_text
        stream = await client.responses.create(model=MODEL, input="Say hello.", stream=True)
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        assert SAID in "".join(deltas)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model="absent", input="Say hello.")


async def test_anthropics_library_reads_the_servers_messages(gateway: WholeGateway) -> None:
    asked = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Say hello."}]}
    async with AsyncAnthropic(base_url=gateway.url.removesuffix("/v1"), api_key=KEY, max_retries=0) as client:
        message = await client.messages.create(**asked)  # type: ignore[call-overload]  # a dictionary of arguments
        assert SAID in message.content[0].text
        entered, output = await _charged(gateway)
        assert (entered, output) == (_counts(message.usage.to_dict()))
        async with client.messages.stream(**asked) as stream:
            assert SAID in await stream.get_final_text()
        assert await _charged(gateway) == (entered, output)
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(**{**asked, "model": "absent"})  # type: ignore[call-overload]


@pytest.mark.parametrize("given", ["Say hello.", ["Say", "hello."], [1, 2, 3]])
async def test_embeddings_are_charged_as_the_server_counts(embedder: str, given: list[str]) -> None:
    async with (
        _before(embedder) as gateway,
        AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
    ):
        answer = await client.embeddings.create(model=MODEL, input=given)
        assert len(answer.data[0].embedding) > 8
        assert answer.usage is not None
        assert await _charged(gateway) == (answer.usage.prompt_tokens, 0)


async def test_what_the_server_does_not_do_is_told_in_its_own_words(gateway: WholeGateway) -> None:
    async with AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.embeddings.create(model=MODEL, input="Say hello.")
    assert refused.value.status_code == 501
    assert "--embeddings" in str(refused.value)
    assert (await gateway.ended()).usage is None
