"""The bodies of all requests have a bound together: beyond it requests wait, and then get a 503."""

from __future__ import annotations

import asyncio
import json

from gateway.demo import DemoUpstream
from tests.hand_upstream import hand_upstream
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import chat_body, whole_gateway

BODY = json.dumps(chat_body(pad="x" * 100_000)).encode()
SIZES = {"max_body": "150KiB", "max_body_memory": "250KiB"}


async def test_a_request_waits_until_another_has_had_its_answer() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, **SIZES) as gateway,
        raw_client(gateway.port) as first,
        raw_client(gateway.port) as second,
        raw_client(gateway.port) as third,
    ):
        turns = []
        for client in (first, second):
            client.send(http_chat(BODY))
            turns.append(await upstream.asked())
        third.send(http_chat(BODY))
        waiting = asyncio.ensure_future(upstream.asked())
        while not gateway.gateway._data._memory._waiting:
            await asyncio.sleep(0)
        assert not waiting.done()
        turns[0].answer(b"{}")
        assert (await first.answer()).status == 200
        (await waiting).answer(b"{}")
        assert (await third.answer()).status == 200
        turns[1].answer(b"{}")
        assert (await second.answer()).status == 200
        assert gateway.gateway._data._memory.held_bytes == 0


async def test_who_waits_too_long_is_refused_and_told_when_to_come_again() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, **SIZES) as gateway:
        gateway.gateway._data._memory._wait_s = 0.05
        async with raw_client(gateway.port) as first, raw_client(gateway.port) as second:
            for client in (first, second):
                client.send(http_chat(BODY))
                await upstream.asked()
            reply = await gateway.post(BODY)
            assert (reply.status, reply.error["code"]) == (503, "overloaded")
            assert reply.headers["retry-after"] == "1"
            assert gateway.lines[-1]["status"] == 503


async def test_small_requests_pass_where_large_ones_fill_the_rest() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **SIZES) as gateway:
        replies = await asyncio.gather(*(gateway.chat() for _ in range(50)), *(gateway.post(BODY) for _ in range(5)))
        assert {reply.status for reply in replies} == {200}
        assert gateway.gateway._data._memory.held_bytes == 0
