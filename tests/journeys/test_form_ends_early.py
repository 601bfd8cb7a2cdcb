"""A form that does not come to its end: too large, wrong, left by its client, answered early, cut by the upstream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.forms import FORM_TYPE, chunk, field, file, form, form_head, sent_parts
from tests.hand_upstream import HandUpstream, Turn, hand_upstream
from tests.raw_client import RawClient, raw_client
from tests.whole_gateway import MODEL, Reply, WholeGateway, whole_gateway

PATH = "/v1/audio/transcriptions"
BEGINNING = 64 * 1024
SOUND = b"s" * 300_000
SMALL = form(field("model", MODEL), file(b"sound"))
LARGE = form(field("model", MODEL), file(SOUND))
NOBODY = "http://127.0.0.1:9/v1"
"""Where every connection is refused."""

SECONDS = 0.2
"""Within which the upstream must see that nothing more comes."""


async def post(gateway: WholeGateway, body: bytes, **headers: str) -> Reply:
    return await gateway.post(body, path=PATH, headers={"content-type": FORM_TYPE, **headers})


async def begun(client: RawClient, upstream: HandUpstream, size: int | None = len(LARGE)) -> Turn:
    """A form whose beginning the upstream has, with the rest still to be sent."""
    beginning = LARGE[:BEGINNING]
    client.send(form_head(size) + (beginning if size else chunk(beginning)))
    turn = await upstream.asked()
    await turn.heard(BEGINNING)
    return turn


async def test_a_form_that_says_itself_that_it_is_too_large_is_refused_at_once() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, max_body="200KiB") as gateway:
        reply = await post(gateway, LARGE)
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        assert f"{len(LARGE):,} bytes is larger than the 204,800 bytes" in reply.error["message"]
        assert gateway.lines[-1]["body_bytes"] == len(LARGE)
        assert upstream.truth.total.requests == 0


async def test_a_form_that_grows_too_large_on_its_way_is_refused_and_its_upstream_left() -> None:
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url, max_body="200KiB") as gateway,
        raw_client(gateway.port) as client,
    ):
        turn = await begun(client, upstream, size=None)
        client.send(chunk(SOUND))
        await asyncio.wait_for(turn.left(), SECONDS)
        client.send(b"0\r\n\r\n")
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        exchange = await gateway.ended()
        assert exchange.usage is None
        assert "body_bytes" not in gateway.lines[-1]
        assert (await gateway.ledger()).requests == 0


async def test_a_form_may_be_as_large_as_is_allowed() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, max_body=f"{len(LARGE)}B") as gateway:
        assert (await post(gateway, LARGE)).status == 200
        assert (await post(gateway, form(field("model", MODEL), file(SOUND + b"s")))).status == 413


async def test_a_client_that_leaves_midway_ends_the_upstream_request() -> None:
    async with hand_upstream(reads_bodies=False) as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            turn = await begun(client, upstream)
            client.send(SOUND[:1000])
            client.hang_up()
            await asyncio.wait_for(turn.left(), SECONDS)
        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"
        assert (gateway.lines[-1]["status"], gateway.lines[-1]["output_tokens"]) == (499, 0)
        assert (await gateway.metrics()).count("gateway_requests_in_flight 0") == 1


async def test_an_answer_before_the_forms_end_reaches_the_client_and_ends_the_sending() -> None:
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        turn = await begun(client, upstream)
        turn.say(b'HTTP/1.1 400 No\r\ncontent-length: 26\r\n\r\n{"error":{"message":"no"}}')
        reply = await client.answer()
        assert (reply.status, reply.error) == (400, {"message": "no"})
        await asyncio.wait_for(turn.left(), SECONDS)
        # The client may say the rest, which nobody hears, and go on with another request.
        client.send(LARGE[BEGINNING:] + form_head(len(SMALL)) + SMALL)
        other = await upstream.asked()
        await other.heard(len(SMALL))
        other.answer(b"{}")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("early", [{"status": 413}, {"status": 500}, {"chunks": 3}])
async def test_a_client_that_never_stops_sending_gets_the_early_answer(early: dict[str, Any]) -> None:
    async with (
        DemoUpstream(DemoScript(early_answer=True, **early)) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        reply = await post(gateway, LARGE)
        assert reply.status == early.get("status", 200)
        upstream.script = DemoScript()
        assert (await post(gateway, LARGE)).status == 200


async def test_nothing_else_is_tried_once_a_piece_was_passed_on() -> None:
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        DemoUpstream() as spare,
        whole_gateway(upstream.base_url, spare.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        turn = await begun(client, upstream)
        client.send(LARGE[BEGINNING:-1])
        await turn.heard(1)
        turn.hang_up()
        client.send(LARGE[-1:])
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
        assert spare.truth.total.requests == 0
        assert (await gateway.ended()).usage is None


async def test_a_failure_that_the_first_upstream_tells_midway_is_what_the_client_sees() -> None:
    async with (
        DemoUpstream(DemoScript(status=503, early_answer=True)) as upstream,
        DemoUpstream() as spare,
        whole_gateway(upstream.base_url, spare.base_url) as gateway,
    ):
        assert (await post(gateway, LARGE)).status == 503
        assert spare.truth.total.requests == 0


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_where_the_first_connection_is_refused_the_next_upstream_gets_the_whole_form(body: bytes) -> None:
    async with DemoUpstream() as spare, whole_gateway(NOBODY, spare.base_url) as gateway:
        assert (await post(gateway, body)).status == 200
        (asked,) = spare.truth.requests
        assert [part[2] for part in sent_parts(asked)] == [MODEL.encode(), b"sound" if body is SMALL else SOUND]


@pytest.mark.parametrize("failing", [{"status": 503}, {"halt": "reset", "halt_at": "before_headers"}])
async def test_a_small_form_is_tried_again_like_any_request(failing: dict[str, Any]) -> None:
    async with (
        DemoUpstream(DemoScript(**failing)) as upstream,
        DemoUpstream() as spare,
        whole_gateway(upstream.base_url, spare.base_url) as gateway,
    ):
        assert (await post(gateway, SMALL)).status == 200
        (asked,) = spare.truth.requests
        assert [part[2] for part in sent_parts(asked)] == [MODEL.encode(), b"sound"]


async def test_an_upstream_that_takes_nothing_is_given_up_in_time() -> None:
    async with hand_upstream(reads_bodies=False) as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "timeouts": {"idle": "200ms"}}}
        async with (
            whole_gateway(upstream.base_url, upstreams=upstreams, max_body="64MiB") as gateway,
            raw_client(gateway.port) as client,
        ):
            endless = 32 * 1024 * 1024
            client.send(form_head(endless) + LARGE[:BEGINNING] + bytes(endless - BEGINNING - 1))
            turn = await upstream.asked()
            reply = await client.answer()
            assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
            assert "read no byte of the request" in reply.error["message"]
            await turn.left()


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (form(file(SOUND)), "invalid_value", "required"),
        (form(file(SOUND), field("model", MODEL), field("MODEL", "x")), "invalid_form", "can be taken for"),
        (form(file(b"sound")), "invalid_value", "required"),
        (form(field("model", "absent"), file(SOUND)), "model_not_found", "absent"),
        (form(field("model", MODEL), field("stream", "si"), file(SOUND)), "invalid_value", "stream"),
        (form(field("model", MODEL), field("model", MODEL), file(SOUND)), "invalid_form", "once"),
        (b'{"model": "%b", "file": ""}' % MODEL.encode(), "invalid_form", "boundary"),
        (b"", "invalid_form", "ends before"),
        (form(field("model", MODEL), file(b"sound"))[:-4], "invalid_form", "ends before"),
    ],
)
async def test_a_wrong_form_is_refused_before_anything_is_passed_on(body: bytes, code: str, said: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await post(gateway, body)
        assert reply.status == (404 if code == "model_not_found" else 400)
        assert reply.error["code"] == code
        assert said in reply.error["message"]
        assert upstream.truth.total.requests == 0


async def test_a_model_that_comes_again_behind_the_file_never_reaches_the_upstream() -> None:
    """Else a client could be metered for one model and served another."""
    body = form(field("model", MODEL), file(SOUND), field("model", "expensive"))
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(form_head(len(body)) + body)
        turn = await upstream.asked()
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (400, "invalid_form")
        with pytest.raises(asyncio.IncompleteReadError) as heard:
            await turn.heard(len(body))
        assert b"expensive" not in heard.value.partial


@pytest.mark.parametrize(
    ("team", "headers", "status"),
    [
        ({}, {"authorization": "Bearer gw_wrong"}, 401),
        ({"limits": [{"requests": 1, "per": "day"}]}, {}, 429),
    ],
)
async def test_a_refusal_of_a_form_leaves_the_upstream_alone(
    team: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        await post(gateway, SMALL)
        assert (await post(gateway, LARGE, **headers)).status == status
        assert upstream.truth.total.requests == 1
