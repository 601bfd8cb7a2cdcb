"""Clients that speak HTTP badly, oddly or in an old way: an answer or a closed connection, never a 500."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import pytest

from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import hand_upstream
from tests.raw_client import http_chat, http_head, raw_client
from tests.whole_gateway import KEY, chat_body, whole_gateway

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n".encode()


async def test_chunks_that_are_mostly_framing_are_refused() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 30_000)
            for _ in range(100):
                if not await client.takes(b"x" * 30_000):
                    break
            reply = await client.answer()
            assert (reply.status, reply.error["code"]) == (400, "invalid_request")
            assert "framing" in reply.error["message"]
        async with raw_client(gateway.port) as client:
            body = json.dumps(chat_body(pad="x" * 100_000)).encode()
            pieces = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body)
            client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
            assert (await client.answer()).status == 200


@pytest.mark.parametrize("sent", [b"", b"POST", HEAD, HEAD + b"content-length: 500\r\n\r\n{"])
async def test_a_client_that_stops_in_the_middle_of_a_request_harms_nobody(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(sent)
            client.hang_up()
        assert (await gateway.chat()).status == 200
        assert upstream.truth.total.requests == 1
    assert _told(caplog) == []


async def test_a_client_that_leaves_within_its_body_is_recorded_as_gone() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(HEAD + b'expect: 100-continue\r\ncontent-length: 500\r\n\r\n{"model":')
            assert (await client.head())[0] == 100
            client.hang_up()
            exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"
        assert exchange.usage is None
        assert gateway.lines[-1]["status"] == 499
        assert upstream.truth.total.requests == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_http_1_0_gets_an_answer_that_ends_with_the_connection(stream: bool) -> None:
    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(version="1.0", stream=stream))
            reply = await client.answer()
            assert reply.status == 200
            assert "transfer-encoding" not in reply.headers
            assert await client.rest() == b""
        assert reply.events[-1] == "[DONE]" if stream else reply.json["usage"]["completion_tokens"] == 5
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert exchange.usage.output == 5


async def test_a_client_of_http_1_0_cannot_take_a_broken_stream_for_a_whole_one() -> None:
    """Without chunks the end of the connection is the end of the answer: the error event must be there."""
    script = DemoScript(chunks=6, halt="reset", halt_after=3)
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(version="1.0", stream=True))
            reply = await client.answer()
        assert reply.chunks[-1]["error"]["code"] == "upstream_broke"
        assert "[DONE]" not in reply.events


async def test_requests_in_one_pipeline_are_answered_in_their_order() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(
                http_chat(max_tokens=1)
                + http_chat(stream=True, max_tokens=2)
                + http_chat(model="absent")
                + http_head("GET /v1/models HTTP/1.1", {"host": "gateway", "authorization": f"Bearer {KEY}"})
                + http_chat(max_tokens=3)
            )
            replies = [await client.answer() for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 404, 200, 200]
        assert replies[0].json["usage"]["completion_tokens"] == 1
        assert replies[1].events[-1] == "[DONE]"
        assert replies[3].json["object"] == "list"
        assert replies[4].json["usage"]["completion_tokens"] == 3
        assert upstream.truth.total.completed == 3


async def test_a_client_that_asks_to_close_gets_its_answer_and_the_end() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(headers={"connection": "close"}))
        turn = await upstream.asked()
        turn.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        assert (await client.answer()).body == b"{}"
        assert await client.rest() == b""


async def test_a_client_that_ends_its_sending_is_taken_for_one_that_left() -> None:
    """As nginx and Envoy have it: from here, half a connection looks like none."""
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat())
            turn = await upstream.asked()
            client.end_sending()
            await turn.left()
        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"


async def test_curl_sends_a_large_body_after_it_was_asked_to_go_on() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        body = b'{"pad":"' + b"x" * 2_000_000 + b'",' + http_chat().partition(b"\r\n\r\n{")[2]
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-o", "-", "-w", "%{http_code}", "-H", f"authorization: Bearer {KEY}"),
            *("-H", "content-type: application/json", "-H", "expect: 100-continue"),
            *("--data-binary", "@-", f"{gateway.url}/chat/completions"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(body)
        assert out.endswith(b"}200")
        assert upstream.truth.requests[0].body == body


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What libraries had to say that an operator would be woken by."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "sent",
    [
        b"no http\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: g\r\n" + b"x: y\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nhost: g\r\nx: " + b"y" * 100_000,
        b"GET /" + b"y" * 100_000,
        b"GET / HTTP/1.1\r\nhost: g\r\nx-request-id: not ours\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: -1\r\n\r\n",
    ],
)
async def test_every_answer_has_an_id_whatever_was_sent(sent: bytes) -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(sent)
        assert re.fullmatch("[A-Za-z0-9._-]{1,128}", (await client.head())[1]["x-request-id"])
