"""An upstream that thinks for long: comments keep the client's stream open, at event boundaries and nowhere else."""

from __future__ import annotations

import asyncio

from gateway.demo import DemoUpstream
from tests.hand_upstream import DONE, content, event, finish, hand_upstream, usage
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import Reply, whole_gateway

SOON = "20ms"


async def test_a_stream_that_has_not_begun_is_begun_with_a_comment() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, keepalive=SOON) as gateway:
        stream = await gateway.open_stream()
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert _is_comment(await stream.event())
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("a") + finish() + event(choices=[], usage=usage(3, 1)) + DONE)
        turn.end_stream()
        rest = await stream.rest()
        assert rest.events[-1] == "[DONE]"
        assert rest.chunks[-1]["usage"] == usage(3, 1)
        stream.leave()
        assert (await gateway.ledger()).output == 1


async def test_comments_stand_between_events_and_never_inside_one() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, keepalive=SOON) as gateway:
        asking = asyncio.create_task(gateway.open_stream())
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("a") + content("b")[:30])
        stream = await asking
        while _is_comment(first := await stream.event()):
            continue
        assert first == content("a")
        assert _is_comment(await stream.event())
        turn.send(content("b")[30:])
        while _is_comment(second := await stream.event()):
            continue
        assert second == content("b")
        stream.leave()


async def test_a_failure_after_a_comment_is_told_as_an_event_and_no_other_route_is_tried() -> None:
    async with (
        hand_upstream() as upstream,
        DemoUpstream() as spare,
        whole_gateway(upstream.base_url, spare.base_url, keepalive=SOON) as gateway,
    ):
        stream = await gateway.open_stream()
        assert _is_comment(await stream.event())
        (await upstream.asked()).answer(b'{"error":{"message":"I am overloaded."}}', status=503)
        rest = await stream.rest()
        assert _last_error(rest)["code"] == "upstream_refused"
        assert "I am overloaded." in _last_error(rest)["message"]
        assert rest.broken
        stream.leave()
        assert spare.truth.total.requests == 0
        assert (await gateway.ledger()).requests == 0


async def test_an_upstream_that_is_lost_after_a_comment_breaks_the_stream() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, keepalive=SOON) as gateway:
        stream = await gateway.open_stream()
        assert _is_comment(await stream.event())
        (await upstream.asked()).hang_up()
        rest = await stream.rest()
        assert _last_error(rest)["code"] == "upstream_unreachable"
        assert rest.broken
        stream.leave()


async def test_a_plain_request_gets_no_comment_and_0s_means_none() -> None:
    async with hand_upstream() as upstream:
        for keepalive, stream in ((SOON, False), ("0s", True)):
            async with (
                whole_gateway(upstream.base_url, keepalive=keepalive) as gateway,
                raw_client(gateway.port) as client,
            ):
                client.send(http_chat(stream=stream))
                turn = await upstream.asked()
                reading = asyncio.create_task(client.read(1))
                assert await asyncio.wait({reading}, timeout=0.1) == (set(), {reading})
                turn.answer(b"{}")
                assert await reading == b"H"


def _is_comment(text: bytes) -> bool:
    return text.startswith(b":") and text.endswith(b"\n\n")


def _last_error(reply: Reply) -> dict[str, str]:
    told: dict[str, str] = reply.chunks[-1]["error"]
    return told
