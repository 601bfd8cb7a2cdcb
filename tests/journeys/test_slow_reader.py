"""A client that reads slowly slows its own upstream down: little is held for it, and nobody else waits."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import AsyncExitStack

from tests.hand_upstream import DONE, HandUpstream, Turn, content, event, finish, hand_upstream, usage
from tests.raw_client import RawClient, http_chat, raw_client
from tests.whole_gateway import WholeGateway, whole_gateway

SMALL = 16 * 1024
HELD_MAX = 256 * 1024
ASKING = {"stream_options": {"include_usage": True}}
ENDLESS = 64 * 1024 * 1024
STALLED_S = 0.3
"""An upstream that could send nothing for so long is being held back."""


async def test_what_is_held_for_slow_readers_stays_small() -> None:
    """Each upstream would send without end. Kernel buffers are not the gateway's: only its memory is counted."""
    readers = 8
    async with AsyncExitStack() as stack:
        _, gateway, turns, _ = await _slow_streams(stack, readers)
        piece = content("x" * 4000)
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        sent = await asyncio.gather(*(_send_until_stalled(turn, piece) for turn in turns))
        held = tracemalloc.get_traced_memory()[0] - before
        assert min(sent) > SMALL
        assert held / readers < HELD_MAX
        assert (await gateway.request("GET", "/healthz", admin=True)).status == 200


async def test_a_slow_reader_that_goes_on_gets_every_byte() -> None:
    async with AsyncExitStack() as stack:
        _, gateway, (turn,), (client,) = await _slow_streams(stack, 1)
        piece = content("y" * 4000)
        sent = await _send_until_stalled(turn, piece) // len(piece)
        last = finish() + event(choices=[], usage=usage(5, 77)) + DONE
        turn.send(last)
        turn.end_stream()
        assert (await client.answer()).body == piece * sent + last
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert exchange.usage.output == 77


async def test_other_streams_do_not_wait_for_a_slow_reader() -> None:
    async with AsyncExitStack() as stack:
        upstream, gateway, (turn,), _ = await _slow_streams(stack, 1)
        await _send_until_stalled(turn, content("z" * 4000))
        asking = asyncio.create_task(gateway.open_stream(**ASKING))
        other = await upstream.asked()
        other.begin_stream()
        other.send(content("0"))
        stream = await asking
        assert await stream.event() == content("0")
        for number in range(1, 50):
            other.send(content(str(number)))
            assert await stream.event() == content(str(number))
        stream.leave()


async def test_a_slow_reader_may_pause_longer_than_an_upstream_may() -> None:
    """While the client takes nothing, the upstream cannot be blamed for silence."""
    async with AsyncExitStack() as stack:
        _, gateway, (turn,), (client,) = await _slow_streams(stack, 1, idle="100ms")
        piece = content("w" * 4000)
        sent = await _send_until_stalled(turn, piece) // len(piece)
        turn.send(DONE)
        turn.end_stream()
        assert (await client.answer()).body == piece * sent + DONE
        assert (await gateway.ended()).error is None


async def test_a_slow_reader_that_leaves_ends_its_upstream() -> None:
    async with AsyncExitStack() as stack:
        _, gateway, (turn,), (client,) = await _slow_streams(stack, 1)
        await _send_until_stalled(turn, content("v" * 4000))
        client.hang_up()
        await turn.left()
        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"
        assert exchange.usage is not None
        assert exchange.usage.output > 100


async def _slow_streams(
    stack: AsyncExitStack, count: int, idle: str = "60s"
) -> tuple[HandUpstream, WholeGateway, list[Turn], list[RawClient]]:
    """Streams that have begun, and whose clients read no further than the head."""
    upstream = await stack.enter_async_context(hand_upstream(send_bytes=SMALL))
    told = {"up1": {"base_url": upstream.base_url, "timeouts": {"idle": idle}}}
    gateway = await stack.enter_async_context(whole_gateway(upstream.base_url, upstreams=told))
    turns, clients = [], []
    for _ in range(count):
        client = await stack.enter_async_context(raw_client(gateway.port, receive_bytes=SMALL))
        client.send(http_chat(stream=True, **ASKING))
        turns.append(await upstream.asked())
        turns[-1].begin_stream()
        clients.append(client)
    return upstream, gateway, turns, clients


async def _send_until_stalled(turn: Turn, piece: bytes) -> int:
    """Say this piece again and again for as long as somebody takes it; the bytes that were said."""
    said = 0
    while said < ENDLESS:
        turn.send(piece)
        said += len(piece)
        try:
            await asyncio.wait_for(turn.taken(), STALLED_S)
        except TimeoutError:
            return said
    raise AssertionError("nobody holds it back")
