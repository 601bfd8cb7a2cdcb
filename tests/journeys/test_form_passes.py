"""A form with files goes through piece by piece: the same parts, at the pace of the slower side, never held whole."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.core.endpoints import ENDPOINTS
from gateway.core.usage import Usage
from gateway.demo import DemoScript, DemoUpstream
from tests.forms import BOUNDARY, FORM_TYPE, chunk, field, file, form, form_head, sent_parts
from tests.hand_upstream import hand_upstream
from tests.raw_client import raw_client
from tests.whole_gateway import KEY, MODEL, Reply, WholeGateway, whole_gateway

Parts = list[tuple[str, str | None, bytes]]

PATHS = [row.path for row in ENDPOINTS.values() if row.takes_form]
BEGINNING = 64 * 1024
SOUND = bytes(range(256)) * 1_200
SMALL = form(field("model", MODEL), file(b"sound"))
LARGE = form(field("model", MODEL), field("response_format", "json"), file(SOUND), field("prompt", "Zürich"))
SMALL_PARTS = [("model", None, MODEL.encode()), ("file", "speech.wav", b"sound")]
LARGE_PARTS = [
    ("model", None, MODEL.encode()),
    ("response_format", None, b"json"),
    ("file", "speech.wav", SOUND),
    ("prompt", None, "Zürich".encode()),
]
BOTH = pytest.mark.parametrize(("body", "parts"), [(SMALL, SMALL_PARTS), (LARGE, LARGE_PARTS)], ids=["small", "large"])
HELD_MAX = 1536 * 1024
TRANSCRIPT = (
    b'data: {"type":"transcript.text.delta","delta":"Say"}\n\n'
    b'data: {"type":"transcript.text.done","text":"Say","usage":'
    b'{"type":"tokens","input_tokens":14,"output_tokens":1,"total_tokens":15}}\n\n'
)


async def post(gateway: WholeGateway, body: bytes, path: str = PATHS[0], **headers: str) -> Reply:
    return await gateway.post(body, path=path, headers={"content-type": FORM_TYPE, **headers})


@pytest.mark.parametrize("path", PATHS)
@BOTH
async def test_a_form_arrives_part_for_part_and_its_answer_is_charged(path: str, body: bytes, parts: Parts) -> None:
    async with DemoUpstream(DemoScript(chunks=7)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await post(gateway, body, path)
        (asked,) = upstream.truth.requests
        assert (asked.path, sent_parts(asked)) == (path, parts)
        assert BOUNDARY not in str(asked.headers) + str(asked.body)
        is_large = body is LARGE
        assert asked.header("transfer-encoding") == ("chunked" if is_large else None)
        assert asked.header("content-length") == (None if is_large else str(len(asked.body)))
        assert reply.status == 200
        told = reply.json["usage"]
        images = 1 if "/images/" in path else 0
        assert (await gateway.ended()).usage == Usage(told["input_tokens"], told["output_tokens"], images=images)
        row = await gateway.ledger()
        assert (row.requests, row.input, row.output) == (1, told["input_tokens"], told["output_tokens"])
        assert gateway.lines[-1]["endpoint"] == ENDPOINTS[path].name


@BOTH
async def test_the_model_is_rewritten_where_the_route_names_another(body: bytes, parts: Parts) -> None:
    aliased = body.replace(MODEL.encode(), b"whisper", 1)
    model = {"aliases": ["whisper"], "routes": [{"upstream": "up1", "model": "whisper-large-v3-turbo"}]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, model=model) as gateway:
        assert (await post(gateway, aliased)).status == 200
        (asked,) = upstream.truth.requests
        assert sent_parts(asked) == [("model", None, b"whisper-large-v3-turbo"), *parts[1:]]
        assert gateway.lines[-1]["model"] == MODEL


@BOTH
async def test_a_form_that_comes_in_chunks_goes_out_in_chunks_where_it_is_large(body: bytes, parts: Parts) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(form_head(None))
            for begin in range(0, len(body), 7_000):
                client.send(chunk(body[begin : begin + 7_000]))
            client.send(b"0\r\n\r\n")
            assert (await client.answer()).status == 200
        (asked,) = upstream.truth.requests
        assert sent_parts(asked) == parts
        headers = {name.lower(): value for name, value in asked.headers}
        assert ("transfer-encoding" in headers) is (len(body) > BEGINNING)
        assert ("content-length" in headers) is (len(body) <= BEGINNING)


async def test_a_form_that_comes_compressed_goes_out_unpacked_with_no_length_of_the_packed() -> None:
    packed = gzip.compress(LARGE)
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await post(gateway, packed, **{"content-encoding": "gzip"})).status == 200
        (asked,) = upstream.truth.requests
        assert sent_parts(asked) == LARGE_PARTS
        assert "content-encoding" not in {name.lower() for name, _ in asked.headers}


async def test_each_piece_reaches_the_upstream_before_the_client_says_the_next() -> None:
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(len(LARGE)) + LARGE[:BEGINNING])
        turn = await upstream.asked()
        await turn.heard(BEGINNING - 200)
        for begin in range(BEGINNING, len(LARGE), 20_000):
            piece = LARGE[begin : begin + 20_000]
            client.send(piece)
            await turn.heard(len(piece))
        turn.answer(b'{"text": "Say"}')
        assert (await client.answer()).json == {"text": "Say"}


async def test_a_slow_upstream_slows_the_client_down_and_little_is_held() -> None:
    endless = 48 * 1024 * 1024
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url, max_body="64MiB") as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(endless) + LARGE[:BEGINNING])
        turn = await upstream.asked()
        piece, sent = b"x" * 65_536, BEGINNING
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        while await client.takes(piece):
            sent += len(piece)
            assert sent < endless, "nobody holds the client back"
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert held < HELD_MAX  # Client and upstream, which hold half of it, are in this process, too.
        sent += len(piece)
        assert len(await turn.heard(sent)) == sent
        assert await client.takes(piece)
        client.hang_up()
        await turn.left()


async def test_a_client_that_waits_to_be_asked_for_its_form_is_asked() -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(len(LARGE), expect="100-continue"))
        assert (await client.head())[0] == 100
        client.send(LARGE)
        assert (await client.answer()).status == 200
        assert sent_parts(upstream.truth.requests[0]) == LARGE_PARTS


@pytest.mark.parametrize("pieces", ["event", "byte", "whole"])
async def test_a_transcript_that_streams_passes_and_is_charged_as_it_reports(pieces: str) -> None:
    body = form(field("model", MODEL), field("stream", "true"), file(SOUND))
    script = DemoScript(body=TRANSCRIPT.decode(), headers={"content-type": "text/event-stream"}, pieces=pieces)
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await post(gateway, body)
        assert (reply.status, reply.broken, reply.body) == (200, False, TRANSCRIPT)
        assert (await gateway.ended()).usage == Usage(14, 1)
        assert gateway.lines[-1]["stream"] is True


async def test_who_still_sends_its_form_gets_no_keep_alive_and_who_waits_does() -> None:
    body = form(field("model", MODEL), field("stream", "true"), file(SOUND))
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url, keepalive="20ms") as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(len(body)) + body[:-10])
        turn = await upstream.asked()
        await turn.heard(len(body) - 10)
        with pytest.raises(TimeoutError):
            await client.read(1, patience_s=0.1)
        client.send(body[-10:])
        status, _ = await client.head()
        assert (status, await client.until(b": keep-alive\n")) == (200, b"d\r\n: keep-alive\n")
        await turn.heard(10)
        turn.begin_stream()
        turn.send(TRANSCRIPT)
        turn.end_stream()
        assert TRANSCRIPT in await client.until(b"0\r\n\r\n")


async def test_a_sound_without_reported_tokens_is_charged_as_a_request_alone() -> None:
    script = DemoScript(body='{"text":"Say","usage":{"type":"duration","seconds":27}}')
    team: dict[str, Any] = {"limits": [{"requests": 2, "per": "day"}, {"tokens": 100, "per": "day"}]}
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        first = await post(gateway, LARGE)
        second = await post(gateway, SMALL)
        third = await post(gateway, LARGE)
        assert [first.status, second.status, third.status] == [200, 200, 429]
        assert first.headers["x-quota-remaining-requests"] == "1"
        assert second.headers["x-quota-remaining-tokens"] == "100"
        row = await gateway.ledger()
        assert (row.requests, row.input, row.output, row.estimated) == (2, 0, 0, 0)
        assert upstream.truth.total.requests == 2


async def test_the_user_of_a_form_is_limited_by_itself() -> None:
    team: dict[str, Any] = {"user_limits": [{"requests": 1, "per": "day"}]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        statuses = [
            (await post(gateway, form(field("model", MODEL), field("user", user), file(SOUND)))).status
            for user in ("ann", "bob", "ann")
        ]
        assert statuses == [200, 200, 429]


async def test_json_at_an_endpoint_of_forms_goes_through_as_json() -> None:
    body = b'{"model": "%b", "images": [{"file_id": "f-1"}], "prompt": "A cat."}' % MODEL.encode()
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await gateway.post(body, path="/v1/images/edits")).status == 200
        assert upstream.truth.requests[0].body == body


async def test_no_key_of_the_client_reaches_the_upstream_with_a_form() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        given = {"x-api-key": KEY, "cookie": "session=1"}
        assert (await post(gateway, LARGE, **given)).status == 200
        assert KEY not in str(upstream.truth.requests[0].headers)


async def test_a_hundred_forms_at_once_keep_to_themselves() -> None:
    forms = [form(field("model", MODEL), file(b"%d" % number * 50_000)) for number in range(100, 200)]
    async with DemoUpstream() as upstream:
        # A hundred connections at once take their time on a busy machine.
        patient = {"up1": {"base_url": upstream.base_url, "timeouts": {"connect": "60s"}}}
        async with whole_gateway(upstream.base_url, upstreams=patient) as gateway:
            replies = await asyncio.gather(*(post(gateway, body) for body in forms))
        assert {reply.status for reply in replies} == {200}
        files = sorted(sent_parts(asked)[1][2] for asked in upstream.truth.requests)
        assert files == [b"%d" % number * 50_000 for number in range(100, 200)]


async def test_files_that_come_first_arrive_with_a_length_once_the_fields_have_been_read() -> None:
    body = form(file(SOUND), field("model", MODEL), field("user", "ann"), field("prompt", "Zürich"))
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await post(gateway, body)).status == 200
        (asked,) = upstream.truth.requests
        assert asked.header("content-length") == str(len(asked.body))
        assert sent_parts(asked) == [
            ("model", None, MODEL.encode()),
            ("user", None, b"ann"),
            ("file", "speech.wav", SOUND),
            ("prompt", None, "Zürich".encode()),
        ]
        assert (await gateway.ended()).parsed is not None
        assert gateway.gateway._data._memory.held_bytes == 0


async def test_a_form_that_waits_on_disk_is_gone_when_its_client_is() -> None:
    body, before = form(file(SOUND), field("model", MODEL)), _open_files()
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(form_head(len(body)) + body[:-100])
            while _open_files() == before:
                await asyncio.sleep(0)
            client.hang_up()
        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"
        assert _open_files() == before
        assert gateway.gateway._data._memory.held_bytes == 0


def _open_files() -> list[str]:
    """Files without a name that this process has open in the folder for temporary files."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(str(link.readlink()))
    return [link for link in links if link.startswith(tempfile.gettempdir()) and link.endswith("(deleted)")]
