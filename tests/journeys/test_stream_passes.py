"""A stream goes through as it comes: the same bytes, at once, with the usage that the client expects."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import DONE, content, event, finish, hand_upstream, usage
from tests.whole_gateway import KEY, LiveStream, WholeGateway, chat_body, whole_gateway

ASKING = {"stream_options": {"include_usage": True}}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
DIALECTS: list[dict[str, Any]] = [
    {},
    {"newline": "crlf"},
    {"newline": "cr"},
    {"bom": True},
    {"tight": True},
    {"comments": True},
    {"multiline": True},
    {"spaced": True},
    {"no_done": True},
    {"after_done": ": and a word\n\n"},
    {"newline": "crlf", "comments": True, "multiline": True, "bom": True},
    {"usage": "every"},
    {"usage": "last"},
    {"usage": "null"},
    {"usage": "early"},
    {"usage": "never"},
    {"usage": "always"},
    {"gzip": True},
    {"framing": "close"},
    {"trailers": True},
    {"chunk_bytes": 3000},
    {"chunks": 0},
    {"chunks": 1},
]


async def test_each_event_reaches_the_client_before_the_upstream_says_the_next() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.create_task(_first_event(gateway))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("0"))
        stream, first = await asking
        assert first == content("0")
        for number in range(1, 20):
            turn.send(content(str(number)))
            assert await stream.event() == content(str(number))
        turn.send(finish())
        turn.send(event(choices=[], usage=usage(3, 20)) + DONE)
        turn.end_stream()
        rest = await stream.rest()
        assert rest.events[-1] == "[DONE]"
        assert not rest.broken
        stream.leave()


async def test_the_final_chunk_waits_for_usage_but_never_delays_content() -> None:
    """With two choices, one ends while the other still speaks."""
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.create_task(_first_event(gateway, n=2))
        turn = await upstream.asked()
        turn.begin_stream()
        turn.send(content("a", index=0))
        stream, _ = await asking
        turn.send(finish())
        turn.send(content("b", index=1))
        assert await stream.event() == finish()
        assert await stream.event() == content("b", index=1)
        turn.send(event(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}]))
        turn.send(event(choices=[], usage=usage(3, 2)) + DONE)
        turn.end_stream()
        rest = await stream.rest()
        assert [chunk.get("usage") for chunk in rest.chunks] == [usage(3, 2)]
        stream.leave()


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
async def test_who_asks_for_usage_gets_the_bytes_of_the_upstream(dialect: dict[str, Any]) -> None:
    recorded = await _recorded(dialect, **ASKING)
    replay = DemoScript(body=recorded.decode(), pieces=dialect.get("pieces", "event"))
    async with DemoUpstream(replay) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat(stream=True, **ASKING)
        assert reply.body == recorded
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert json.loads(upstream.truth.requests[0].body) == chat_body(stream=True, **ASKING)


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}, ASKING])
async def test_the_ledger_has_what_the_upstream_served_whatever_its_dialect(
    dialect: dict[str, Any], asked: dict[str, Any]
) -> None:
    async with (
        DemoUpstream(DemoScript(**{"chunks": 7, **dialect})) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        reply = await gateway.chat(stream=True, **asked)
        exchange = await gateway.ended()
        truth = upstream.truth.total
        assert (reply.status, reply.broken, truth.completed) == (200, False, 1)
        assert json.loads(upstream.truth.requests[0].body)["stream_options"] == {"include_usage": True}
        assert exchange.usage is not None
        if dialect.get("usage") == "never":
            assert exchange.usage.source == "estimated"
            assert exchange.usage.output >= truth.unreported.completion
        else:
            assert exchange.usage.source == "reported"
            assert (exchange.usage.input, exchange.usage.output) == (truth.reported.prompt, truth.reported.completion)
        row = await gateway.ledger()
        assert (row.input, row.output, row.requests) == (exchange.usage.input, exchange.usage.output, 1)


async def test_who_did_not_ask_gets_usage_in_the_last_chunk_and_none_with_empty_choices() -> None:
    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat(stream=True)
        assert reply.events[-1] == "[DONE]"
        assert all(chunk["choices"] for chunk in reply.chunks)
        assert reply.chunks[-1]["choices"][0]["finish_reason"] == "stop"
        told = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        assert [chunk.get("usage") for chunk in reply.chunks] == [None] * 6 + [told]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in reply.chunks[:-1]) == (
            "Hello! This is the demo"
        )
        assert upstream.truth.total.reported.completion == 5


async def test_who_says_false_is_metered_all_the_same() -> None:
    async with DemoUpstream(DemoScript(chunks=5)) as upstream, whole_gateway(upstream.base_url) as gateway:
        options = {"include_usage": False, "include_obfuscation": False}
        await gateway.chat(stream=True, stream_options=options)
        asked = json.loads(upstream.truth.requests[0].body)["stream_options"]
        assert asked == {"include_usage": True, "include_obfuscation": False}
        assert (await gateway.ledger()).output == 5


async def test_tool_calls_pass_unchanged_in_their_pieces() -> None:
    async with DemoUpstream(DemoScript(chunks=6)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat(stream=True, tools=TOOLS, n=2)
        calls = [choice["delta"] for chunk in reply.chunks for choice in chunk["choices"] if choice["index"] == 1]
        pieces = [call["function"] for delta in calls for call in delta.get("tool_calls", [])]
        assert pieces[0]["name"] == "look_up"
        assert set(json.loads("".join(piece["arguments"] for piece in pieces))) == {"text"}
        assert reply.chunks[-1]["usage"]["completion_tokens"] == 12
        plain = await gateway.chat(tools=TOOLS)
        assert plain.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look_up"
        assert upstream.truth.total.completed == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_explicit_zero_is_zero(stream: bool) -> None:
    script = DemoScript(chunks=5, prompt_tokens=0, completion_tokens=0)
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        await gateway.chat(stream=stream)
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (exchange.usage.source, exchange.usage.total) == ("reported", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_streamed_and_plain_answers_cost_the_same_to_the_micro_dollar(stream: bool) -> None:
    script = DemoScript(
        prompt_tokens=1000, completion_tokens=500, total_tokens=1800, cached_tokens=400, reasoning_tokens=10
    )
    model = {"price": {"input": 0.15, "output": 0.6, "cached_input": 0.07}}
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url, model=model) as gateway:
        await gateway.chat(stream=stream)
        exchange = await gateway.ended()
        assert exchange.usage is not None
        assert (exchange.usage.input, exchange.usage.cached_input) == (1000, 400)
        assert (exchange.usage.output, exchange.usage.reasoning) == (800, 300)  # What the total has above is output.
        assert exchange.cost == 90 + 28 + 480  # 600 at 0.15, 400 at 0.07, 800 at 0.60 dollars a million.
        assert (await gateway.ledger()).cost == exchange.cost
        assert 'gateway_cost_usd_total{team="search",model="openai/gpt-oss-120b"} 0.000598' in await gateway.metrics()


@pytest.mark.parametrize("asked", [{}, ASKING])
async def test_an_error_event_inside_a_stream_passes_and_counts_as_failure(asked: dict[str, Any]) -> None:
    async with (
        DemoUpstream(DemoScript(chunks=8, error_after=4)) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        reply = await gateway.chat(stream=True, **asked)
        assert reply.status == 200
        told = [chunk for chunk in reply.chunks if "error" in chunk]
        assert [chunk["error"]["message"] for chunk in told] == ["The demo upstream's script breaks here."]
        exchange = await gateway.ended()
        assert exchange.tally is not None
        assert exchange.tally.failed
        assert exchange.usage is not None  # What came before it was delivered, and is charged.
        assert exchange.usage.source == "estimated"
        assert exchange.usage.output <= 6


async def test_an_error_as_the_first_event_costs_nothing() -> None:
    async with DemoUpstream(DemoScript(error_after=0)) as upstream, whole_gateway(upstream.base_url) as gateway:
        await gateway.chat(stream=True)
        assert (await gateway.ended()).usage is None
        assert (await gateway.ledger()).requests == 0


@pytest.mark.parametrize(
    "script", [{"chunks": 3}, {"chunks": 30_000}, {"chunks": 3, "gzip": True}, {"framing": "chunked"}]
)
async def test_a_plain_answer_passes_byte_for_byte(script: dict[str, Any]) -> None:
    async with DemoUpstream(DemoScript(**script)) as upstream:
        direct = await _recorded(script, stream=False)
        replay = DemoScript(**{**script, "body": direct.decode()})
        upstream.script = replay
        async with whole_gateway(upstream.base_url) as gateway:
            reply = await gateway.chat()
            assert reply.body == direct
            assert reply.headers["content-type"] == "application/json"
            assert "content-encoding" not in reply.headers
            exchange = await gateway.ended()
            assert exchange.usage is not None
            assert exchange.usage.output == json.loads(direct)["usage"]["completion_tokens"]
            assert exchange.usage.source == "reported"


async def test_the_body_reaches_the_upstream_byte_for_byte() -> None:
    spaced = b'{ "model" :"openai/gpt-oss-120b",\n\t"messages":[{"role":"user","content":"\\u00fc \xc3\xbc"}]'
    body = spaced + b', "seed":1e0 , "x":{"a" : 1} }'
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        assert (await gateway.post(body)).status == 200
        assert upstream.truth.requests[0].body == body


async def test_only_what_must_change_in_a_body_is_changed() -> None:
    body = b'{"max_tokens": 900 ,"model": "gpt-oss", "messages":[{"role":"user"}], "stream": true, "seed":1e0}'
    model = {"aliases": ["gpt-oss"], "max_output_tokens": 7, "routes": [{"upstream": "up1", "model": "awq"}]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, model=model) as gateway:
        reply = await gateway.post(body)
        assert reply.status == 200
        assert upstream.truth.requests[0].body == (
            b'{"max_tokens": 7 ,"model": "awq", "messages":[{"role":"user"}], "stream": true, "seed":1e0,'
            b'"stream_options":{"include_usage":true}}'
        )
        assert (await gateway.ledger()).model == ""
        assert gateway.lines[-1]["model"] == "openai/gpt-oss-120b"


async def test_only_listed_headers_reach_the_upstream_and_no_key_of_the_client() -> None:
    given = {
        "x-api-key": "client-key",
        "api-key": "client-key",
        "cookie": "session=1",
        "x-forwarded-for": "10.0.0.1",
        "openai-organization": "org",
        "accept-encoding": "gzip, br",
        "te": "trailers",
        "openai-beta": "assistants=v2",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "tools",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "a=b",
        "user-agent": "tester/1.0",
        "accept": "application/json",
        "x-request-id": "mine-1",
    }
    upstreams = {"up1": {"base_url": "", "api_key": "upstream-secret", "headers": {"X-Org": "platform"}}}
    async with DemoUpstream() as upstream:
        upstreams["up1"]["base_url"] = upstream.base_url
        async with whole_gateway(upstream.base_url, upstreams=upstreams) as gateway:
            assert (await gateway.chat(headers=given)).status == 200
        arrived = {name.lower(): value for name, value in upstream.truth.requests[0].headers}
        passed = (
            "openai-organization",
            "openai-beta",
            "anthropic-version",
            "anthropic-beta",
            "traceparent",
            "tracestate",
            "user-agent",
            "accept",
        )
        assert arrived == {
            "host": f"127.0.0.1:{upstream.port}",
            "accept-encoding": "identity",
            "authorization": "Bearer upstream-secret",
            "x-org": "platform",
            "content-type": "application/json",
            "content-length": arrived["content-length"],
            "x-request-id": "mine-1",
            **{name: given[name] for name in passed},
        }
        assert KEY not in str(upstream.truth.as_json())
        assert "upstream-secret" not in str(gateway.lines)


async def _first_event(gateway: WholeGateway, **fields: Any) -> tuple[LiveStream, bytes]:
    stream = await gateway.open_stream(**fields)
    return stream, await stream.event()


async def _recorded(script: dict[str, Any], **fields: Any) -> bytes:
    """What the scripted upstream says without a gateway, unpacked."""
    body = chat_body(**{"stream": True, **fields})
    async with (
        DemoUpstream(DemoScript(**{"chunks": 7, **script, "gzip": False})) as upstream,
        ClientSession() as session,
    ):
        answer = await session.post(f"{upstream.base_url}/chat/completions", json=body)
        return await answer.read()
