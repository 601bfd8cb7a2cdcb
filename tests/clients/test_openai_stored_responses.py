"""The `openai` library with what a provider keeps: responses by id, and conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import KEY, MODEL, WholeGateway, key_settings, whole_gateway

OTHERS = "gw_oTh3rT34m5Gd2mR8sT1vX4bF7hJ3qP6wA9eU0iO5yKd"
TEAMS = {"search": {"keys": [key_settings()]}, "ads": {"keys": [key_settings("ads-test", OTHERS)]}}


@pytest.fixture
async def gateway() -> AsyncIterator[WholeGateway]:
    """Two upstreams that take turns, each of which knows its own ids only."""
    script = DemoScript(chunks=3)
    model = {"routes": [{"upstream": "up1"}, {"upstream": "up2"}]}
    async with (
        DemoUpstream(script) as one,
        DemoUpstream(script, seed=1) as other,
        whole_gateway(one.base_url, other.base_url, model=model, teams=TEAMS) as running,
    ):
        running.secrets.add(OTHERS)
        yield running


@pytest.fixture
async def client(gateway: WholeGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
async def stranger(gateway: WholeGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.url, api_key=OTHERS, max_retries=0) as made:
        yield made


async def test_a_chain_of_responses_is_made_read_and_deleted(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="Say hello.")
    second = await client.responses.create(model=MODEL, input="Again.", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    read = await client.responses.retrieve(second.id)
    assert (read.id, read.output_text) == (second.id, second.output_text)
    items = [item async for item in await client.responses.input_items.list(second.id)]
    assert len(items) == 1
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)


async def test_a_stream_goes_on_from_a_stream(client: AsyncOpenAI) -> None:
    previous: str | None = None
    for _ in range(4):
        async with client.responses.stream(
            model=MODEL, input="Go on.", previous_response_id=previous or openai.omit
        ) as stream:
            final = await stream.get_final_response()
        assert final.previous_response_id == previous
        previous = final.id


async def test_a_conversation_is_made_used_listed_and_deleted(client: AsyncOpenAI) -> None:
    conversation = await client.conversations.create(metadata={"topic": "moons"}, extra_query={"model": MODEL})
    await client.responses.create(model=MODEL, input="Say hello.", conversation=conversation.id)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
    await client.conversations.items.create(conversation.id, items=[item])
    (listed,) = [each async for each in await client.conversations.items.list(conversation.id)]
    assert listed.id is not None
    await client.conversations.items.retrieve(listed.id, conversation_id=conversation.id)
    await client.conversations.items.delete(listed.id, conversation_id=conversation.id)
    updated = await client.conversations.update(conversation.id, metadata={"topic": "suns"})
    assert updated.metadata == {"topic": "suns"}
    assert (await client.conversations.retrieve(conversation.id)).id == conversation.id
    assert (await client.conversations.delete(conversation.id)).deleted


async def test_a_stranger_finds_nothing(client: AsyncOpenAI, stranger: AsyncOpenAI) -> None:
    response = await client.responses.create(model=MODEL, input="Say hello.")
    conversation = await client.conversations.create()
    attempts = (
        lambda: stranger.responses.retrieve(response.id),
        lambda: stranger.responses.delete(response.id),
        lambda: stranger.responses.cancel(response.id),
        lambda: stranger.responses.create(model=MODEL, input="x", previous_response_id=response.id),
        lambda: stranger.responses.create(model=MODEL, input="x", conversation=conversation.id),
        lambda: stranger.conversations.retrieve(conversation.id),
        lambda: stranger.conversations.delete(conversation.id),
    )
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            await attempt()
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await client.responses.cancel(response.id)


async def test_the_librarys_retries_wait_for_no_lost_response(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as told:
        await client.responses.create(model=MODEL, input="x", previous_response_id="resp_that-never-was")
    assert told.value.code == "previous_response_not_found"
    assert told.value.param == "previous_response_id"
