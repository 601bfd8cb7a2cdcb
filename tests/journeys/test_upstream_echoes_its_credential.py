"""An upstream that repeats what it was sent, its credential included: no caller gets that, in whichever place it is."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode

import pytest

from tests.hand_upstream import DONE, HandUpstream, content, finish, hand_upstream
from tests.whole_gateway import WholeGateway, whole_gateway

SECRET = "sk-upstream-0aZ9bY8cX7dW6eV5fU4gT3"
TOKEN = "tok/second+credential=="
HALF = SECRET[:17]
COUNTED = 'gateway_redacted_credentials_total{upstream="up1"}'


def _upstreams(upstream: HandUpstream, **changes: object) -> dict[str, object]:
    settings = {"base_url": upstream.base_url, "api_key": SECRET, "headers": {"x-proxy-token": f"Token {TOKEN}"}}
    return {"up1": settings | changes}


@pytest.mark.parametrize("status", [200, 400, 404, 418, 422, 429, 500, 503])
@pytest.mark.parametrize("echoed", [SECRET, f"Bearer {SECRET}", TOKEN, b64encode(f"Bearer {SECRET}".encode()).decode()])
async def test_a_plain_answer_is_given_without_it(status: int, echoed: str) -> None:
    async with hand_upstream() as upstream, whole_gateway(upstreams=_upstreams(upstream), **_models()) as gateway:
        asked = asyncio.create_task(gateway.chat())
        body = json.dumps({"error": {"message": f"You sent {echoed}."}, "usage": {"prompt_tokens": 3}})
        (await upstream.asked()).answer(body.encode(), status)
        reply = await asked
        assert reply.status == status
        assert "You sent " in reply.error["message"]
        assert "[redacted]" in reply.error["message"]
        _assert_nowhere(reply.body, gateway)
        assert f"{COUNTED} 1" in await gateway.metrics()
        assert (await gateway.ended()).redacted == 1
        assert gateway.lines[-1]["redacted"] == 1


async def test_headers_are_given_without_it() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstreams=_upstreams(upstream), **_models()) as gateway:
        asked = asyncio.create_task(gateway.chat())
        echo = f"content-language: {SECRET}\r\nopenai-version: a {TOKEN}\r\nrequest-id: {SECRET}"
        (await upstream.asked()).say(f"HTTP/1.1 200 OK\r\n{echo}\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        reply = await asked
        assert reply.headers["openai-version"] == "a [redacted]"
        _assert_nowhere(str(dict(reply.headers)).encode(), gateway)


@pytest.mark.parametrize("pieces", [(SECRET,), (HALF, SECRET.removeprefix(HALF)), tuple(SECRET)])
async def test_a_stream_is_given_without_it_wherever_it_is_cut(pieces: tuple[str, ...]) -> None:
    async with hand_upstream() as upstream, whole_gateway(upstreams=_upstreams(upstream), **_models()) as gateway:
        opening = asyncio.create_task(gateway.open_stream())
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("first"))
        stream = await opening
        assert await stream.event() == content("first")
        turn.send(b'data: {"error":{"message":"Bearer ')
        for piece in pieces:
            turn.send(piece.encode())
            await turn.taken()
            await asyncio.sleep(0)
        turn.send(b' is wrong"}}\n\n' + finish() + DONE)
        turn.end_stream()
        reply = await stream.rest()
        assert reply.chunks[0]["error"]["message"] == "Bearer [redacted] is wrong"
        assert reply.events[-1] == "[DONE]"
        _assert_nowhere(reply.body, gateway)
        assert (await gateway.ended()).redacted == 1


async def test_an_answer_that_is_passed_on_as_it_comes_is_given_without_it() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstreams=_upstreams(upstream), **_models()) as gateway:
        asked = asyncio.create_task(gateway.chat())
        body = b'{"pad":"' + b"x" * 300_000 + SECRET.encode() + b'"}'
        (await upstream.asked()).answer(body)
        reply = await asked
        assert reply.json["pad"].endswith("x[redacted]")
        _assert_nowhere(reply.body, gateway)


async def test_a_late_error_of_a_stream_is_given_without_it() -> None:
    upstreams_are = {"keepalive": "50ms", **_models()}
    async with hand_upstream() as upstream, whole_gateway(upstreams=_upstreams(upstream), **upstreams_are) as gateway:
        opening = asyncio.create_task(gateway.open_stream())
        turn = await upstream.asked()
        stream = await opening
        assert await stream.comment() == b": keep-alive\n"
        turn.answer(json.dumps({"error": {"message": f"No such key: {SECRET}"}}).encode(), 400)
        reply = await stream.rest()
        assert b"No such key: [redacted]" in reply.body
        _assert_nowhere(reply.body, gateway)


def _models() -> dict[str, object]:
    return {"model": {"routes": [{"upstream": "up1"}]}}


def _assert_nowhere(body: bytes, gateway: WholeGateway) -> None:
    for seen in (body.decode(), json.dumps(gateway.lines)):
        for secret in (SECRET, TOKEN, b64encode(SECRET.encode()).decode()[4:-4]):
            assert secret not in seen
