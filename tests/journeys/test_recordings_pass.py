"""Streams recorded from real servers, through a whole gateway: the same events, charged as they report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.apis import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Api
from tests.unit.core.recordings import needs_recordings, recordings
from tests.whole_gateway import Json, WholeGateway, whole_gateway

ASKING = {"stream_options": {"include_usage": True}}
FEW_BYTES = 20_000
RECORDED: tuple[tuple[Api, str], ...] = (
    (CHAT, "chat"),
    (COMPLETIONS, "legacy"),
    (RESPONSES, "responses"),
    (MESSAGES, "messages"),
)


def _every(*apis: Api) -> list[Any]:
    """(API, bytes, the usage that they report last) of each recording."""
    return [
        pytest.param(api, *made.values, id=f"{api.name}-{made.id}")
        for api, folder in RECORDED
        if api in apis
        for made in recordings(folder)
    ]


def _bytewise() -> list[Any]:
    """The same; each byte of a long one takes its time."""
    return [
        pytest.param(*made.values, id=made.id, marks=[pytest.mark.slow] if len(made.values[1]) > FEW_BYTES else [])
        for made in _every(CHAT, COMPLETIONS, RESPONSES, MESSAGES)
    ]


@needs_recordings
@pytest.mark.parametrize("pieces", ["whole", "random"])
@pytest.mark.parametrize(("api", "stream", "report"), _every(CHAT, COMPLETIONS, RESPONSES, MESSAGES))
async def test_a_recorded_stream_passes_byte_for_byte(
    api: Api, stream: bytes, report: Json | None, pieces: str
) -> None:
    await _assert_passes(api, stream, report, pieces)


@needs_recordings
@pytest.mark.parametrize(("api", "stream", "report"), _bytewise())
async def test_a_recorded_stream_passes_where_each_byte_comes_alone(
    api: Api, stream: bytes, report: Json | None
) -> None:
    await _assert_passes(api, stream, report, "byte")


@needs_recordings
@pytest.mark.parametrize(("api", "stream", "report"), _every(CHAT, COMPLETIONS))
async def test_who_did_not_ask_for_usage_gets_the_same_events_and_no_chunk_of_usage_alone(
    api: Api, stream: bytes, report: Json | None
) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        said = []
        for times, pieces in enumerate(("whole", "random", "event"), 1):
            upstream.script = DemoScript(body=stream.decode(), pieces=pieces)
            reply = await api.ask(gateway, stream=True)
            assert (reply.status, reply.broken) == (200, False)
            await _assert_charged(gateway, report, times)
            said.append(reply.body)
        assert len(set(said)) == 1
        given, made = _events(said[0]), _events(stream)
        # Where no chunk says why its choice ends, usage comes in a chunk of its own with one empty choice.
        added = [event for event in given if event not in made]
        assert [event for event in given if event in made] == made
        assert [choice["delta"] for event in added for choice in event["choices"]] == [{}] * len(added)
        assert len(added) <= 1
        chunks = [json.loads(data) for data in _data(said[0]) if data != "[DONE]"]
        assert [chunk for chunk in chunks if chunk.get("usage") and not chunk.get("choices")] == []


async def _assert_passes(api: Api, stream: bytes, report: Json | None, pieces: str) -> None:
    script = DemoScript(body=stream.decode(), pieces=pieces)  # type: ignore[arg-type]
    asking = ASKING if api in (CHAT, COMPLETIONS) else {}
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await api.ask(gateway, stream=True, **asking)
        assert (reply.status, reply.broken) == (200, False)
        assert reply.body == stream
        await _assert_charged(gateway, report)


async def _assert_charged(gateway: WholeGateway, report: Json | None, times: int = 1) -> None:
    """Of the same stream, so many times over."""
    usage = (await gateway.ended()).usage
    row = await gateway.ledger()
    if report is None:
        assert usage is None or usage.source == "estimated"
        return
    assert usage is not None
    assert (usage.source, usage.input, usage.output) == ("reported", *_counts(report))
    assert (row.requests, row.input, row.output) == (times, usage.input * times, usage.output * times)


def _counts(report: Json) -> tuple[int, int]:
    """What the contract makes of a report: cached input counts, and what the total has above the sum is output."""
    beside = report.get("cache_read_input_tokens", 0) + report.get("cache_creation_input_tokens", 0)
    entered = report.get("prompt_tokens", report.get("input_tokens", 0)) + beside
    output = report.get("completion_tokens", report.get("output_tokens", 0))
    return entered, max(output, report.get("total_tokens", 0) - entered)


def _data(stream: bytes) -> list[str]:
    lines = stream.decode().replace("\r\n", "\n").split("\n")
    return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]


def _events(stream: bytes) -> list[Any]:
    """The data of each event, but for usage and for events that have nothing else."""
    told = []
    for data in _data(stream):
        chunk = json.loads(data) if data != "[DONE]" else {}
        if not (chunk.get("usage") and not chunk.get("choices")):
            told.append({name: value for name, value in chunk.items() if name != "usage"})
    return told
