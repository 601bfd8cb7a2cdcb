"""A model that thinks for long: the client gets comments between events, and what follows them stays true."""

from __future__ import annotations

from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import DONE, content, finish, hand_upstream
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import whole_gateway

COMMENT = b": keep-alive\n"


async def test_comments_begin_a_stream_whose_upstream_is_silent() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, keepalive="20ms") as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=True))
        turn = await upstream.asked()
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        await client.until(COMMENT)
        turn.begin_stream()
        turn.send(content("at last"))
        await client.until(content("at last"))
        await client.until(COMMENT)
        turn.send(finish() + DONE)
        turn.end_stream()
        await client.until(DONE)


async def test_no_comment_stands_inside_an_event() -> None:
    # Longer than what is held back of an unfinished event: the client has its first part, then silence.
    long = content("x" * 100_000)
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, keepalive="20ms") as gateway,
        raw_client(gateway.port) as client,
        raw_client(gateway.port) as other,
    ):
        client.send(http_chat(stream=True))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(long[:90_000])
        await client.until(b"x" * 1000)
        # Another stream tells how time passes: two comments later, this one has had no word.
        other.send(http_chat(stream=True))
        await upstream.asked()
        await other.until(COMMENT)
        await other.until(COMMENT)
        turn.send(long[90_000:])
        seen = b""
        while not seen.endswith(b"null}]}\n\n\r\n"):
            seen += await client.read(2**16)
        assert COMMENT not in seen


async def test_a_refusal_that_comes_too_late_is_the_streams_last_event() -> None:
    script = DemoScript(headers_delay_ms=100, status=400)
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, keepalive="20ms") as gateway:
        reply = await gateway.chat(stream=True)
        assert (reply.status, reply.broken) == (200, True)
        assert reply.chunks[-1]["error"]["code"] == "upstream_refused"
        assert (await gateway.ended()).usage is None


async def test_no_other_route_is_tried_once_the_client_has_a_comment() -> None:
    async with (
        DemoUpstream(DemoScript(headers_delay_ms=100, halt="close", halt_at="before_headers")) as sick,
        DemoUpstream(DemoScript(chunks=2)) as well,
        whole_gateway(sick.base_url, well.base_url, keepalive="20ms") as gateway,
    ):
        reply = await gateway.chat(stream=True)
        assert reply.chunks[-1]["error"]["code"] == "upstream_unreachable"
        assert well.truth.total.requests == 0


async def test_keepalive_of_nothing_says_nothing() -> None:
    script = DemoScript(headers_delay_ms=60, chunks=2)
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, keepalive="0s") as gateway:
        assert b": keep-alive" not in (await gateway.chat(stream=True)).body


async def test_an_upstream_that_ignores_stream_and_is_slow_is_heard_as_a_stream_and_charged() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, keepalive="20ms") as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(stream=True))
        turn = await upstream.asked()
        await client.head()
        await client.until(COMMENT)
        turn.answer(
            b'{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant",'
            b'"content":"at last"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}'
        )
        seen = await client.until(DONE)
        assert b'"content":"at last"' in seen
        assert b'"chat.completion.chunk"' in seen
        exchange = await gateway.ended()
        assert (exchange.usage and (exchange.usage.input, exchange.usage.output), exchange.error) == ((4, 2), None)
