"""A client that leaves: the upstream is told at once, what was delivered is charged, what was held is free again."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.estimate import TOKENS_PER_SECOND_AT_FIRST
from gateway.core.request import IncomingRequest
from gateway.demo import DemoScript, DemoUpstream
from gateway.upstream.contract import NOT_SENT
from tests.hand_upstream import DONE, content, event, finish, hand_upstream, usage
from tests.raw_client import http_chat, raw_client
from tests.unit.web.test_http_connection import TakingClient
from tests.whole_gateway import KEY, WholeGateway, whole_gateway

CHUNKS = 6
NOTICE_S = 10.0
"""Within which the upstream must see that nobody listens any more: no time limit of the request is as short."""


@pytest.mark.parametrize("leaves_after", range(CHUNKS))
async def test_a_client_that_leaves_after_some_events_pays_for_them(leaves_after: int) -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=True, stream_options={"include_usage": True}))
        turn = await upstream.asked()
        turn.begin_stream()
        sent = b""
        for number in range(leaves_after + 1):
            turn.send(content(f"word {number}"))
            sent += content(f"word {number}")
        await client.head()
        await client.until(sent[-10:])
        client.hang_up()
        async with asyncio.timeout(NOTICE_S):
            await turn.left()

        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"
        assert exchange.usage is not None
        assert exchange.usage.source == "estimated"
        assert exchange.usage.output >= leaves_after + 1
        assert exchange.usage.input > 0
        row = await gateway.ledger()
        assert (row.requests, row.output) == (1, exchange.usage.output)
        assert (gateway.lines[-1]["status"], gateway.lines[-1]["code"]) == (200, "client_gone")
        assert 'gateway_streams_aborted_total{by="client"} 1' in await gateway.metrics()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_pays_for_its_prompt(stream: bool) -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=stream))
        turn = await upstream.asked()
        client.hang_up()
        async with asyncio.timeout(NOTICE_S):
            await turn.left()
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert exchange.usage.input > 0
        # A plain answer was being written meanwhile: on a slow machine for long enough to make some tokens.
        made = 0 if stream else int(exchange.upstream_seconds * TOKENS_PER_SECOND_AT_FIRST)
        assert exchange.usage.output == made
        assert gateway.lines[-1]["status"] == 499
        assert (await gateway.ledger()).requests == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_its_prompt_could_be_sent_pays_nothing(stream: bool) -> None:
    async with hand_upstream() as upstream:
        told = {"up1": {"base_url": upstream.base_url, "max_connections": 1}}
        async with whole_gateway(upstream.base_url, upstreams=told) as gateway, raw_client(gateway.port) as client:
            first = asyncio.create_task(gateway.chat())
            turn = await upstream.asked()
            client.send(http_chat(stream=stream))
            await _until_in_flight(gateway, 2)
            while not any(pool._lines for pool in gateway.gateway._client._pools.values()):
                await asyncio.sleep(0)
            client.hang_up()
            left = await gateway.ended()
            assert (left.status, left.usage, left.attempts) == (499, None, (("up1", NOT_SENT),))
            turn.answer(b"{}")
            assert (await first).status == 200
            await gateway.ended()
            assert (await gateway.ledger()).requests == 1


async def test_a_client_that_leaves_within_a_plain_answer_ends_the_upstream_request() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat())
        turn = await upstream.asked()
        turn.say(b'HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{"choices":')
        await turn.taken()
        client.hang_up()
        async with asyncio.timeout(NOTICE_S):
            await turn.left()
        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"


async def test_what_a_client_held_is_free_once_it_left() -> None:
    limits = [{"concurrent": 1}, {"tokens": 5000, "per": "day"}]
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, team={"limits": limits}) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(stream=True, max_tokens=4000))
            turn = await upstream.asked()
            assert (await gateway.chat()).status == 429
            await gateway.ended()
            client.hang_up()
            await turn.left()
            await gateway.ended()
        limit_statuses = (await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})).json
        assert [row["held"] for row in limit_statuses["data"]] == [0, 0]
        assert 0 < limit_statuses["data"][1]["used"] < 50


async def test_a_client_that_leaves_the_line_for_a_connection_lets_the_next_one_in() -> None:
    async with hand_upstream() as upstream:
        told = {"up1": {"base_url": upstream.base_url, "max_connections": 1}}
        async with whole_gateway(upstream.base_url, upstreams=told) as gateway, raw_client(gateway.port) as client:
            first = asyncio.create_task(gateway.chat())
            turn = await upstream.asked()
            client.send(http_chat(headers={"x-request-id": "impatient"}))
            third = asyncio.create_task(gateway.chat(headers={"x-request-id": "patient"}))
            await _until_in_flight(gateway, 3)
            client.hang_up()
            assert (await gateway.ended()).request.request_id == "impatient"
            turn.answer(b"{}")
            turn = await upstream.asked()
            assert ("x-request-id", "patient") in turn.headers
            turn.answer(b"{}")
            assert [(await first).status, (await third).status] == [200, 200]


async def test_where_the_operator_reads_on_the_true_usage_is_charged() -> None:
    async with hand_upstream() as upstream:
        told = {"up1": {"base_url": upstream.base_url, "on_disconnect": "drain"}}
        async with whole_gateway(upstream.base_url, upstreams=told) as gateway, raw_client(gateway.port) as client:
            client.send(http_chat(stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(content("a"))
            await client.until(b"\n\n")
            client.hang_up()
            await _until_in_flight(gateway, 0)
            turn.send(finish() + event(choices=[], usage=usage(11, 222)) + DONE)
            turn.end_stream()
            exchange = await gateway.ended()
            assert exchange.usage is not None
            assert (exchange.usage.source, exchange.usage.input, exchange.usage.output) == ("reported", 11, 222)
            assert (await gateway.ledger()).output == 222


async def test_a_crowd_that_leaves_leaves_nothing_open() -> None:
    limits = [{"concurrent": 100}]
    async with (
        DemoUpstream(DemoScript(chunks=1000, chunk_delay_ms=5)) as upstream,
        whole_gateway(upstream.base_url, team={"limits": limits}) as gateway,
    ):
        streams = await asyncio.gather(*(gateway.open_stream() for _ in range(40)))
        for _ in range(5):
            await asyncio.gather(*(stream.event() for stream in streams))
        for stream in streams:
            stream.leave()
        ended = [await gateway.ended() for _ in streams]
        await upstream.truth.quiet()
        assert upstream.truth.total.cancelled == 40
        row = await gateway.ledger()
        assert row.requests == 40
        assert row.output >= 40 * 4  # The first event of each has no text.
        assert all(exchange.usage for exchange in ended)
        held = (await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})).json
        assert held["data"][0]["held"] == 0
        assert "gateway_requests_in_flight 0" in await gateway.metrics()


async def _until_in_flight(gateway: WholeGateway, count: int) -> None:
    while f"gateway_requests_in_flight {count}\n" not in await gateway.metrics():
        continue


@pytest.mark.parametrize("ahead", [0, 1, 5])
async def test_a_client_that_leaves_in_the_moment_that_its_request_begins_leaves_nothing_held(ahead: int) -> None:
    limits = [{"concurrent": 5}, {"requests": 100, "per": "day"}]
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team={"limits": limits}) as gateway:
        open_ids = gateway.gateway.store.open_ids
        connection = gateway.gateway._open[0].listener()
        connection.connection_made(TakingClient())
        begun: list[IncomingRequest] = []

        def leave_at_the_last(request: IncomingRequest) -> None:
            begun.append(request)
            if len(begun) > ahead:  # Reported before the task of the request has had its first step.
                asyncio.get_running_loop().call_soon(connection.connection_lost, None)

        gateway.gateway.services.begin_trace = leave_at_the_last
        connection.data_received(http_chat() * (ahead + 1))
        ended = [await gateway.ended() for _ in range(ahead + 1)]
        assert [each.status for each in ended] == [200] * ahead + [499]
        assert gateway.gateway._data._memory.held_bytes == 0
        assert not open_ids
        standing = (await gateway.request("GET", "/v1/limits", headers={"authorization": f"Bearer {KEY}"})).json["data"]
        assert [limit["held"] for limit in standing] == [0, 0]
