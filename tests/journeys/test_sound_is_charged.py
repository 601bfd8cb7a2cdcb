"""Sound that is priced by the second: what answers of every format cost, whether they name the length or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.usage import Usage, UsageSource
from gateway.demo import DemoScript, DemoUpstream
from tests.forms import FORM_TYPE, chunk, field, file, form, form_head
from tests.hand_upstream import hand_upstream
from tests.raw_client import raw_client
from tests.whole_gateway import MODEL, Json, WholeGateway, whole_gateway

SOUND = bytes(range(256)) * 1_200
SENT_S = 20
"""Seconds of SOUND, by its size."""
SMALL = form(field("model", MODEL), file(b"sound"))
LARGE = form(field("model", MODEL), field("response_format", "text"), file(SOUND))
SPOOLED = form(file(SOUND), field("model", MODEL))
PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
BY_SECOND: Json = {"price": {"second": "0.0001", "request": "0.01"}}
EVENTS = {"content-type": "text/event-stream"}
TOKENS: Json = {"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}}


def event(kind: str, **members: Any) -> str:
    return f"data: {json.dumps({'type': kind, **members})}\n\n"


STREAM = event("transcript.text.delta", delta="a" * 60) + event("transcript.text.done", text="a" * 60)


async def asked(gateway: WholeGateway, body: bytes, path: str = PATHS[0]) -> Usage | None:
    reply = await gateway.post(body, path=path, headers={"content-type": FORM_TYPE})
    assert reply.status == 200
    return (await gateway.ended()).usage


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "content_type", "seconds"),
    [
        pytest.param("a" * 900 + "\n", "text/plain", 60, id="text"),
        pytest.param("1\n00:00:00,000 --> 00:01:09,080\nSay\n\n", "application/x-subrip", 70, id="srt"),
        pytest.param("WEBVTT\n\n00:00.000 --> 01:09.000\nSay\n\n", "text/vtt", 69, id="vtt"),
        pytest.param(json.dumps({"text": "a" * 900}), "application/json", 60, id="json"),
        pytest.param('{"text":"Say","segments":[{"end":1.5},{"end":7.1}]}', "application/json", 8, id="segments"),
        pytest.param(json.dumps({"text": "a" * 900, **TOKENS}), "application/json", 60, id="tokens without a price"),
        pytest.param(STREAM, EVENTS["content-type"], 4, id="events"),
        pytest.param("\n", "text/plain", SENT_S, id="silence"),
        pytest.param('{"text":""}', "application/json", SENT_S, id="silence in JSON"),
        pytest.param("", "text/plain", SENT_S, id="nothing"),
    ],
)
async def test_sound_whose_length_no_answer_names_is_charged_by_an_estimate(
    path: str, body: str, content_type: str, seconds: int
) -> None:
    script = DemoScript(body=body, headers={"content-type": content_type})
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, model=BY_SECOND) as gateway:
        streams = [field("stream", "true")] if content_type == EVENTS["content-type"] else []
        usage = await asked(gateway, form(field("model", MODEL), *streams, file(SOUND)), path)
        assert usage is not None
        assert (usage.audio_ms, usage.source) == (seconds * 1_000, UsageSource.ESTIMATED)
        assert gateway.lines[-1]["usage_source"] == "estimated"
        row = await gateway.ledger()
        assert (row.audio_ms, row.estimated_ms, row.cost) == (seconds * 1_000, seconds * 1_000, 10_000 + seconds * 100)
        assert (row.estimated, row.input) == (0, usage.input)


@pytest.mark.parametrize(
    ("body", "price", "usage"),
    [
        ('{"text":"Say","duration":8.47}', {"second": 1}, Usage(audio_ms=9_000)),
        ('{"text":"Say","usage":{"type":"duration","seconds":27}}', {"second": 1}, Usage(audio_ms=27_000)),
        (json.dumps({"text": "Say", **TOKENS}), {"second": 1, "input": 1}, Usage(14, 45)),
        (json.dumps({"text": "Say", **TOKENS}), {"input": 1}, Usage(14, 45)),
        ("Say", {"input": 1}, Usage()),
        ("Say", {"request": 1}, Usage()),
    ],
)
async def test_no_length_is_estimated_where_what_the_answer_names_has_a_price(
    body: str, price: Json, usage: Usage
) -> None:
    model = {"price": price}
    async with (
        DemoUpstream(DemoScript(body=body)) as upstream,
        whole_gateway(upstream.base_url, model=model) as gateway,
    ):
        assert await asked(gateway, LARGE) == usage
        assert gateway.lines[-1]["usage_source"] == "reported"


@pytest.mark.parametrize(("body", "seconds"), [(SMALL, 1), (LARGE, SENT_S), (SPOOLED, SENT_S)])
async def test_who_leaves_before_the_answer_pays_for_the_sound_that_was_sent(body: bytes, seconds: int) -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, model=BY_SECOND) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(len(body)) + body)
        await upstream.asked()
        client.hang_up()
        usage = (await gateway.ended()).usage
    assert usage is not None
    assert (usage.audio_ms, usage.source) == (seconds * 1_000, UsageSource.ESTIMATED)


@pytest.mark.parametrize(("path", "name"), [(PATHS[0], "file"), ("/v1/images/edits", "image")])
async def test_who_leaves_within_the_form_pays_for_the_request_alone(path: str, name: str) -> None:
    begun = form(field("model", MODEL), file(SOUND, name))[:200_000]
    model = {"price": {"second": 1, "image": 1}}
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url, model=model) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(None, path=path) + chunk(begun))
        await (await upstream.asked()).heard(100_000)
        client.hang_up()
        exchange = await gateway.ended()
    assert (exchange.usage, exchange.cost) == (Usage(), 0)


async def test_a_failure_in_the_place_of_a_transcript_costs_nothing() -> None:
    script = DemoScript(body='{"error":{"message":"The file is no sound.","type":"invalid_request_error"}}')
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, model=BY_SECOND) as gateway:
        assert await asked(gateway, LARGE) is None


async def test_speech_and_pictures_whose_answer_names_tokens_without_a_price_cost_what_was_asked_for() -> None:
    spoken = event("speech.audio.done", **TOKENS)
    made = json.dumps({"created": 1, **TOKENS})
    found = '{"results":[],"usage":{"total_tokens":14}}'
    model: Json = {"price": {"million_characters": 1_000_000, "image": 1, "search": 1}}
    said: Json = {"model": MODEL, "input": "Four", "voice": "alloy", "stream_format": "sse"}
    drawn: Json = {"model": MODEL, "prompt": "A cat", "n": 3}
    sought: Json = {"model": MODEL, "query": "moons", "documents": ["moon"] * 101}
    for path, question, answer, headers, cost in (
        ("/v1/audio/speech", said, spoken, EVENTS, 4),
        ("/v1/images/generations", drawn, made, {}, 3),
        ("/v1/rerank", sought, found, {}, 2),
    ):
        script = DemoScript(body=answer, headers=headers)
        async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, model=model) as gateway:
            assert (await gateway.post(json.dumps(question).encode(), path=path)).status == 200
            assert (await gateway.ended()).cost == cost * 1_000_000
