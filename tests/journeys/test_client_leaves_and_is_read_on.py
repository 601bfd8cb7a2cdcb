"""on_disconnect: drain. The client has left, the stream is read on, and its true usage is charged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.stages.release_upstream import READ_ON_BYTES
from tests.hand_upstream import DONE, HandUpstream, content, event, finish, hand_upstream, usage
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import PATIENCE_S, WholeGateway, configuration, whole_gateway


@asynccontextmanager
async def reading_on() -> AsyncIterator[tuple[HandUpstream, WholeGateway]]:
    async with hand_upstream() as upstream:
        upstreams = {"up1": {"base_url": upstream.base_url, "on_disconnect": "drain"}}
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            yield upstream, gateway


async def test_what_the_upstream_reports_at_its_end_is_charged() -> None:
    async with reading_on() as (upstream, gateway):
        async with raw_client(gateway.port) as client:
            client.send(http_chat(stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(content("one"))
            await client.until(b"one")
            client.hang_up()
        turn.send(content("two") + finish() + event(choices=[], usage=usage(7, 123)) + DONE)
        turn.end_stream()
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (exchange.usage.input, exchange.usage.output, exchange.usage.source) == (7, 123, "reported")
        assert (await gateway.ledger()).output == 123


async def test_a_stream_without_end_is_left_all_the_same() -> None:
    async with reading_on() as (upstream, gateway):
        async with raw_client(gateway.port) as client:
            client.send(http_chat(stream=True))
            turn = await upstream.asked()
            turn.begin_stream()
            turn.send(content("one"))
            await client.until(b"one")
            client.hang_up()
        # Twice as much, since some of it may be relayed before the gateway sees that the client has left.
        for _ in range(2 * READ_ON_BYTES // 50_000):
            turn.send(content("x" * 50_000))
        await asyncio.wait_for(turn.left(), PATIENCE_S)
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert exchange.usage.source == "estimated"


def test_leaving_is_the_default() -> None:
    assert "on_disconnect" not in configuration("http://127.0.0.1:1/v1")["upstreams"]["up1"]
