"""The `openai` library's other APIs against a whole gateway: completions, embeddings, responses, sounds, images."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from gateway.demo import DemoScript, DemoUpstream
from tests.whole_gateway import KEY, MODEL, WholeGateway, whole_gateway

SAID = "Hello! This is the demo"
SOUND = b"RIFF" + bytes(range(256)) * 2_000
PIXELS = b"\x89PNG\r\n\x1a\n" + bytes(300_000)


@pytest.fixture
async def upstream() -> AsyncIterator[DemoUpstream]:
    async with DemoUpstream(DemoScript(chunks=5)) as running:
        yield running


@pytest.fixture
async def gateway(upstream: DemoUpstream) -> AsyncIterator[WholeGateway]:
    model = {"max_output_tokens": 100, "aliases": ["alias"], "routes": [{"upstream": "up1", "model": "served"}]}
    async with whole_gateway(upstream.base_url, model=model) as running:
        yield running


@pytest.fixture
async def client(gateway: WholeGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as made:
        yield made


async def _used(gateway: WholeGateway) -> tuple[int, int]:
    usage = (await gateway.ended()).usage
    assert usage is not None
    assert usage.source == "reported"
    return usage.input, usage.output


async def test_a_completion_is_parsed_and_charged(client: AsyncOpenAI, gateway: WholeGateway) -> None:
    answer = await client.completions.create(model=MODEL, prompt="Say hello.")
    assert answer.choices[0].text == SAID
    assert answer.usage is not None
    assert await _used(gateway) == (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}], ids=["not asking", "asking"])
async def test_a_streamed_completion_is_parsed_and_charged(
    client: AsyncOpenAI, gateway: WholeGateway, asked: dict[str, Any]
) -> None:
    stream = await client.completions.create(model=MODEL, prompt="Say hello.", stream=True, **asked)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == SAID
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [5]
    assert all(chunk.choices for chunk in chunks) is not bool(asked)
    assert await _used(gateway) == (3, 5)


@pytest.mark.parametrize("given", ["Say hello.", ["Say", "hello."], [1, 2, 3], [[1, 2], [3]]])
async def test_embeddings_are_parsed_and_charged(client: AsyncOpenAI, gateway: WholeGateway, given: Any) -> None:
    """The library asks for base64 and unpacks it."""
    answer = await client.embeddings.create(model=MODEL, input=given, dimensions=4)
    assert [row.embedding[:2] for row in answer.data] == [[1.0, 0.5]] * len(answer.data)
    assert answer.usage is not None
    assert await _used(gateway) == (answer.usage.prompt_tokens, 0)


async def test_a_response_is_parsed_and_charged(client: AsyncOpenAI, gateway: WholeGateway) -> None:
    raw = await client.responses.with_raw_response.create(model=MODEL, input="Say hello.")
    answer = raw.parse()
    assert (answer.output_text, answer.status) == (SAID, "completed")
    assert answer.usage is not None
    assert await _used(gateway) == (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 5)
    assert raw.headers["x-request-id"]


async def test_a_response_over_the_models_most_is_cut_and_says_so(client: AsyncOpenAI, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(chunks=1_000)
    answer = await client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=5_000)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 100


async def test_a_streamed_response_comes_in_its_typed_events(client: AsyncOpenAI, gateway: WholeGateway) -> None:
    stream = await client.responses.create(model=MODEL, input="Say hello.", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert await _used(gateway) == (last.response.usage.input_tokens, last.response.usage.output_tokens)


async def test_the_librarys_own_accumulation_of_a_response_works(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input="Say hello.") as stream:
        kinds = {event.type async for event in stream}
        final = await stream.get_final_response()
    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds
    assert final.output_text == SAID


async def test_a_response_that_breaks_raises_and_never_looks_whole(client: AsyncOpenAI, upstream: DemoUpstream) -> None:
    upstream.script = DemoScript(chunks=6, halt="reset", halt_after=6)
    stream = await client.responses.create(model=MODEL, input="Say hello.", stream=True)
    seen: list[Any] = []
    with pytest.raises(openai.APIConnectionError):
        await _drain(stream, seen)
    assert (seen[-1].type, seen[-1].code) == ("error", "upstream_broke")
    assert "response.completed" not in [event.type for event in seen]


async def _drain(stream: AsyncIterator[Any], seen: list[Any]) -> None:
    async for event in stream:
        seen.append(event)


@pytest.mark.parametrize(
    ("changes", "kind", "code", "param"),
    [
        ({"model": "absent"}, openai.NotFoundError, "model_not_found", "model"),
        ({"background": True}, openai.BadRequestError, "invalid_value", "background"),
        ({"max_output_tokens": 0}, openai.BadRequestError, "invalid_value", "max_output_tokens"),
        ({"extra_headers": {"authorization": "Bearer no"}}, openai.AuthenticationError, "invalid_api_key", None),
    ],
)
async def test_errors_of_responses_are_those_that_the_library_knows(
    client: AsyncOpenAI, changes: dict[str, Any], kind: type[openai.APIStatusError], code: str, param: str | None
) -> None:
    with pytest.raises(kind) as refused:
        await client.responses.create(**{"model": MODEL, "input": "Say hello.", **changes})
    assert (refused.value.code, refused.value.param) == (code, param)


async def test_a_file_is_transcribed(client: AsyncOpenAI, gateway: WholeGateway, upstream: DemoUpstream) -> None:
    answer = await client.audio.transcriptions.create(model="alias", file=("speech.wav", SOUND), language="de")
    assert answer.text == SAID
    (asked,) = upstream.truth.requests
    assert SOUND in asked.body
    assert b'name="model"\r\n\r\nserved\r\n' in asked.body
    assert (asked.path, asked.model) == ("/v1/audio/transcriptions", "served")
    assert (await _used(gateway))[1] == 5
    with pytest.deprecated_call():
        translated = await client.audio.translations.create(model=MODEL, file=("speech.wav", SOUND))
    assert translated.text == SAID


async def test_a_transcript_streams(client: AsyncOpenAI, gateway: WholeGateway, upstream: DemoUpstream) -> None:
    body = (
        'data: {"type":"transcript.text.delta","delta":"Say","logprobs":[]}\n\n'
        'data: {"type":"transcript.text.done","text":"Say","logprobs":[],"usage":'
        '{"type":"tokens","input_tokens":14,"output_tokens":1,"total_tokens":15}}\n\n'
    )
    upstream.script = DemoScript(body=body, headers={"content-type": "text/event-stream"})
    stream = await client.audio.transcriptions.create(model=MODEL, file=("speech.wav", SOUND), stream=True)
    assert [event.type async for event in stream] == ["transcript.text.delta", "transcript.text.done"]
    assert await _used(gateway) == (14, 1)


async def test_a_file_that_is_too_large_is_told_so(upstream: DemoUpstream) -> None:
    async with (
        whole_gateway(upstream.base_url, max_body="100KiB") as gateway,
        AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            await client.audio.transcriptions.create(model=MODEL, file=("speech.wav", SOUND))
        assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")


async def test_images_are_made_edited_and_varied(
    client: AsyncOpenAI, gateway: WholeGateway, upstream: DemoUpstream
) -> None:
    made = await client.images.generate(model=MODEL, prompt="A cat.", n=2)
    edited = await client.images.edit(model="alias", image=[("a.png", PIXELS), ("b.png", PIXELS)], prompt="A dog.")
    with pytest.deprecated_call():
        varied = await client.images.create_variation(model=MODEL, image=("a.png", PIXELS))
    assert [len(answer.data or []) for answer in (made, edited, varied)] == [2, 1, 1]
    _, second, third = upstream.truth.requests
    assert (second.body.count(PIXELS), third.body.count(PIXELS)) == (2, 1)
    assert b'name="model"\r\n\r\nserved\r\n' in second.body
    assert (await gateway.ledger()).requests >= 2


async def test_speech_comes_as_the_bytes_of_the_upstream(client: AsyncOpenAI, upstream: DemoUpstream) -> None:
    sound = await client.audio.speech.create(model=MODEL, voice="alloy", input="Say hello.")
    assert sound.content.startswith(b"ID3")
    async with client.audio.speech.with_streaming_response.create(model=MODEL, voice="alloy", input="Hi.") as answer:
        assert b"".join([piece async for piece in answer.iter_bytes()]) == sound.content
    assert upstream.truth.total.completed == 2


async def test_moderations_are_parsed(client: AsyncOpenAI) -> None:
    answer = await client.moderations.create(model=MODEL, input=["Say hello.", "Say goodbye."])
    assert [row.flagged for row in answer.results] == [False, False]


async def test_the_synchronous_client_does_the_same(gateway: WholeGateway, upstream: DemoUpstream) -> None:
    def use() -> None:
        with OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
            assert client.completions.create(model=MODEL, prompt="Say hello.").choices[0].text == SAID
            chunks = list(client.completions.create(model=MODEL, prompt="Say hello.", stream=True))
            assert "".join(chunk.choices[0].text for chunk in chunks) == SAID
            assert client.embeddings.create(model=MODEL, input="Say hello.").data[0].embedding[0] == 1.0
            assert client.responses.create(model=MODEL, input="Say hello.").output_text == SAID
            events = list(client.responses.create(model=MODEL, input="Say hello.", stream=True))
            assert events[-1].type == "response.completed"
            assert client.audio.transcriptions.create(model=MODEL, file=io.BytesIO(SOUND)).text == SAID
            assert client.images.edit(model=MODEL, image=("a.png", PIXELS), prompt="A dog.").data
            with pytest.raises(openai.BadRequestError):
                client.responses.create(model=MODEL, input="Say hello.", top_p=9)

    await asyncio.to_thread(use)
    assert upstream.truth.total.completed == 7
