"""The bodies of all requests have a bound together: beyond it requests wait, and then get a 503."""

from __future__ import annotations

import asyncio
import json
import tracemalloc

import pytest

from gateway.demo import DemoUpstream
from tests.hand_upstream import hand_upstream
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import chat_body, whole_gateway

BODY = json.dumps(chat_body(pad="x" * 100_000)).encode()
SIZES = {"max_body": "150KiB", "max_body_memory": "300KiB"}
MIB = 1024 * 1024


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
        while not gateway.gateway._data._memory.waiting:
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


@pytest.mark.parametrize("announces", [True, False], ids=["by its length", "in chunks"])
async def test_many_large_bodies_at_once_are_answered_and_keep_no_small_one_waiting(announces: bool) -> None:
    large = json.dumps(chat_body(pad="x" * MIB)).encode()
    head = b"content-length: %d" % len(large) if announces else b"transfer-encoding: chunked"
    sent = large if announces else b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)
    request = http_chat(b"").replace(b"content-length: 0", head) + sent
    sizes = {"max_body": "2MiB", "max_body_memory": "8MiB"}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, **sizes) as gateway:
        gateway.gateway._data._memory._wait_s = 60.0  # However slow the machine is.

        async def upload() -> int:
            async with raw_client(gateway.port) as client:
                for begin in range(0, len(request), 100_000):
                    client.send(request[begin : begin + 100_000])
                    await asyncio.sleep(0)
                return (await client.answer()).status

        uploads = [asyncio.ensure_future(upload()) for _ in range(40)]
        while not gateway.gateway._data._memory.waiting:
            await asyncio.sleep(0)
        assert (await gateway.chat()).status == 200
        assert gateway.gateway._data._memory.waiting
        assert set(await asyncio.gather(*uploads)) == {200}
        assert gateway.gateway._data._memory.held_bytes == 0


@pytest.mark.parametrize(("size", "freed"), [(8 * MIB, 7 * MIB), (32 * 1024, 16 * 1024)])
async def test_a_stream_that_runs_holds_no_memory_of_its_prompt(size: int, freed: int) -> None:
    large = json.dumps(chat_body(pad="x" * size, stream=True)).encode()
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, max_body="16MiB", max_body_memory="64MiB") as gateway,
        raw_client(gateway.port) as client,
    ):
        memory = gateway.gateway._data._memory
        tracemalloc.start()
        try:
            client.send(http_chat(large))
            turn = await upstream.asked()
            before, held = tracemalloc.get_traced_memory()[0], memory.held_bytes
            turn.begin_stream()
            turn.send(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
            await client.until(b"data: ")
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert (held, memory.held_bytes) == (len(large), 0)
        assert before - after > freed
