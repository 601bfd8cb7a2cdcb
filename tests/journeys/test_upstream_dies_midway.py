"""An upstream that breaks after its answer has begun: whole events, then an error, then no end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from gateway.stages.forward import WHOLE_MAX
from tests.hand_upstream import content, finish, hand_upstream
from tests.whole_gateway import whole_gateway

ASKING = {"stream_options": {"include_usage": True}}
PATIENT = {"first_byte": "10s", "idle": "10s", "total": "20s"}
SHORT = PATIENT | {"idle": "500ms"}
"""Where nothing but this timeout can end the stream."""


@pytest.mark.parametrize("asked", [{}, ASKING], ids=["not asking", "asking"])
@pytest.mark.parametrize("halt_at", ["between_events", "inside_event", "inside_framing"])
@pytest.mark.parametrize(
    ("halt", "code"), [("reset", "upstream_broke"), ("close", "upstream_broke"), ("hang", "upstream_timeout")]
)
@pytest.mark.parametrize("halt_after", [1, 4, 8])
async def test_the_client_gets_whole_events_then_an_error_and_no_end(
    halt: str, code: str, halt_at: str, halt_after: int, asked: dict[str, Any]
) -> None:
    script = DemoScript(chunks=7, halt=halt, halt_at=halt_at, halt_after=halt_after)  # type: ignore[arg-type]
    async with DemoUpstream(script) as upstream:
        timeouts = SHORT if halt == "hang" else PATIENT
        settings = {"up1": {"base_url": upstream.base_url, "timeouts": timeouts}}
        async with whole_gateway(upstream.base_url, upstreams=settings) as gateway:
            reply = await gateway.chat(stream=True, **asked)
            assert reply.status == 200
            assert reply.broken
            assert "[DONE]" not in reply.events
            *whole, last = reply.chunks
            assert len(whole) == halt_after
            assert last["error"]["code"] == code
            assert last["error"]["type"] == "server_error"

            exchange = await gateway.ended()
            delivered = sum(1 for chunk in whole if chunk["choices"][0]["delta"].get("content"))
            assert exchange.usage is not None
            assert exchange.usage.source == "estimated"
            assert exchange.usage.output >= delivered
            row = await gateway.ledger()
            assert (row.requests, row.estimated) == (1, exchange.usage.total)
            assert gateway.lines[-1]["code"] == code
            by = "timeout" if halt == "hang" else "upstream"
            assert f'gateway_streams_aborted_total{{by="{by}"}} 1' in await gateway.metrics()


async def test_an_upstream_that_dies_between_the_final_chunk_and_its_usage_leaves_the_final_chunk() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.create_task(gateway.chat(stream=True))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("a"))
        turn.send(finish())
        await turn.taken()
        turn.hang_up()
        reply = await asking
        assert reply.body.startswith(content("a") + finish())
        assert reply.chunks[-1]["error"]["code"] == "upstream_broke"
        assert reply.broken


async def test_an_event_cut_by_the_break_never_glues_to_the_error() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.create_task(gateway.chat(stream=True, **ASKING))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("a") + content("b")[:40])
        turn.send(b"9" * 200_000)  # Longer than what is held back: its beginning is on its way.
        await turn.taken()
        turn.hang_up()
        reply = await asking
        assert reply.broken
        assert reply.body.startswith(content("a") + content("b")[:40] + b"999")
        last = reply.body.rpartition(b"\n\ndata: ")[2]
        assert json.loads(last)["error"]["code"] == "upstream_broke"


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("halt", ["reset", "close"])
async def test_a_plain_answer_that_breaks_is_an_error_as_long_as_none_of_it_was_given(halt: str, framing: str) -> None:
    script = DemoScript(halt=halt, halt_at="inside_event", framing=framing)  # type: ignore[arg-type]
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (502, "upstream_broke")
        assert (await gateway.ended()).usage is None
        assert (await gateway.ledger()).requests == 0


async def test_a_long_plain_answer_that_breaks_has_no_end() -> None:
    script = DemoScript(chunks=200_000, halt="reset", halt_at="inside_event")
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat()
        assert reply.status == 200
        assert reply.broken
        assert b'"error"' not in reply.body
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert exchange.usage.source == "estimated"
        # A reset loses what was not read yet: how much that is, the system decides. A token has about four bytes.
        assert exchange.usage.output > max(WHOLE_MAX, len(reply.body)) / 6


async def test_an_upstream_that_is_lost_after_a_comment_breaks_the_stream() -> None:
    """The client has a status of 200 by then: only an event can tell it."""
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, keepalive="20ms") as gateway:
        stream = await gateway.open_stream()
        assert (await stream.comment()).startswith(b":")
        (await upstream.asked()).hang_up()
        rest = await stream.rest()
        assert rest.chunks[-1]["error"]["code"] == "upstream_unreachable"
        assert rest.broken
        stream.leave()
        assert (await gateway.ledger()).requests == 0


async def test_other_streams_of_the_same_upstream_go_on() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        dying, living = asyncio.create_task(gateway.chat(stream=True)), asyncio.create_task(gateway.chat(stream=True))
        turns = [await upstream.asked(), await upstream.asked()]
        for turn in turns:
            turn.begin_stream()
            turn.send(content("a"))
        await turns[0].taken()
        turns[0].hang_up()
        ended = await gateway.ended()
        assert ended.error is not None
        turns[1].send(finish() + b"data: [DONE]\n\n")
        turns[1].end_stream()
        replies = await asyncio.gather(dying, living)
        assert sorted(reply.broken for reply in replies) == [False, True]
