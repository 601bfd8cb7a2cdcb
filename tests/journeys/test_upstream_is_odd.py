"""An upstream that speaks HTTP or events oddly: the client has what was said, the ledger what is true of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.core.usage import Usage
from gateway.demo import DemoScript, DemoUpstream
from tests.apis import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, SPEAKING, Api, name_of
from tests.hand_upstream import DONE, content, event, finish, hand_upstream, usage
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import Json, Reply, WholeGateway, whole_gateway

ASKING = {"stream_options": {"include_usage": True}}
STREAM = content("a") + content("b") + finish() + event(choices=[], usage=usage(3, 2)) + DONE
EVENTS = b"content-type: text/event-stream\r\n"
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (STREAM[:50], STREAM[50:]))


async def told(said: bytes, *, closes: bool = False, **fields: Any) -> tuple[Reply, WholeGateway]:
    """What a client gets of an upstream that says exactly these bytes."""
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asking = asyncio.create_task(gateway.chat(stream=True, **fields))
        turn = await upstream.asked()
        turn.say(said)
        if closes:
            await turn.close()
        return await asking, gateway


@pytest.mark.parametrize(
    ("said", "closes"),
    [
        (b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (EVENTS, len(STREAM), STREAM), False),
        (b"HTTP/1.1 200 OK\r\n%bconnection: close\r\n\r\n%b" % (EVENTS, STREAM), True),
        (b"HTTP/1.0 200 OK\r\n%b\r\n%b" % (EVENTS, STREAM), True),
        (b"HTTP/1.0 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (EVENTS, len(STREAM), STREAM), True),
        (b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (EVENTS, CHUNKS), False),
        (b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\nx-a: b\r\n\r\n" % (EVENTS, CHUNKS), False),
        (b"HTTP/1.1 200\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (EVENTS, CHUNKS), False),
        (
            b"HTTP/1.1 200 OK\r\nContent-TYPE:Text/Event-Stream\r\ntransfer-encoding: Chunked\r\n\r\n%b0\r\n\r\n"
            % CHUNKS,
            False,
        ),
    ],
    ids=["length", "close", "1.0", "1.0 length", "chunked", "trailers", "no reason", "capitals"],
)
@pytest.mark.parametrize(
    "before", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3]
)
async def test_whatever_the_framing_a_stream_passes_whole(said: bytes, closes: bool, before: bytes) -> None:
    reply, gateway = await told(before + said, closes=closes, **ASKING)
    assert (reply.status, reply.broken, reply.body) == (200, False, STREAM)
    assert "content-length" not in reply.headers
    assert reply.headers["content-type"].lower().startswith("text/event-stream")
    assert not {"link", "x-a", "trailer", "connection"} & {name.lower() for name in reply.headers}
    assert (await gateway.ended()).usage == Usage(3, 2)


@pytest.mark.parametrize(
    "script", [{"gzip": True}, {"gzip": True, "pieces": "byte"}, {"gzip": True, "framing": "close"}]
)
@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_comes_packed_though_identity_was_asked_is_unpacked(
    api: Api, stream: bool, script: dict[str, Any]
) -> None:
    async with DemoUpstream(DemoScript(chunks=6)) as upstream, whole_gateway(upstream.base_url) as gateway:
        as_it_should_be = await api.ask(gateway, stream=stream)
        upstream.script = DemoScript(**{"chunks": 6, **script})
        reply = await api.ask(gateway, stream=stream)
        assert ("accept-encoding", "identity") in upstream.truth.requests[-1].headers
        assert "content-encoding" not in reply.headers
        assert (reply.broken, len(reply.body)) == (False, len(as_it_should_be.body))
        assert (await gateway.ended()).usage == (await gateway.ended()).usage == Usage(6, 6)


@pytest.mark.parametrize("after", [b": bye\n\n", b"data: more\n\n", b"\n\n\n", b"garbage", content("c")])
@pytest.mark.parametrize("fields", [{}, ASKING], ids=["not asking", "asking"])
async def test_what_comes_after_done_passes_and_changes_no_usage(after: bytes, fields: dict[str, Any]) -> None:
    body = STREAM + after
    reply, gateway = await told(
        b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (EVENTS, len(body), body), **fields
    )
    assert not reply.broken
    assert reply.body.endswith(DONE + after)
    if fields:
        assert reply.body == body
    assert (await gateway.ended()).usage == Usage(3, 2)


@pytest.mark.parametrize("fields", [{}, ASKING], ids=["not asking", "asking"])
async def test_usage_before_the_last_chunk_counts_and_the_last_one_of_several(fields: dict[str, Any]) -> None:
    parts = (
        content("a"),
        event(choices=[], usage=usage(1, 1)),
        content("b"),
        event(choices=[], usage=usage(3, 2)),
        finish(),
        DONE,
    )
    body = b"".join(parts)
    reply, gateway = await told(
        b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (EVENTS, len(body), body), **fields
    )
    assert (await gateway.ended()).usage == Usage(3, 2)
    if fields:
        assert reply.body == body
    else:
        assert reply.body == content("a") + content("b") + finish(usage=usage(3, 2)) + DONE


PAGE = "<html>\n\nupstream overloaded\n\n</html>\n" * 200


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("body", ["Internal Server Error", PAGE, "\ufeff" + PAGE])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_bare_text_in_place_of_an_answer_is_estimated_and_a_failure(
    api: Api, stream: bool, body: str, framing: Any
) -> None:
    async with (
        DemoUpstream(DemoScript(body=body, framing=framing)) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        reply = await api.ask(gateway, stream=stream)
        assert (reply.status, reply.body.decode()) == (200, body)
        exchange = await gateway.ended()
        assert exchange.tally is not None
        assert exchange.tally.failed
        row = await gateway.ledger()
        assert row.requests == 1
        assert row.estimated == row.input + row.output
        assert row.input == exchange.estimated_input > 0
        assert len(body) // 6 < row.output < len(body) // 3


async def test_a_page_in_place_of_embeddings_is_estimated_and_a_failure() -> None:
    async with DemoUpstream(DemoScript(body=PAGE)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await EMBEDDINGS.ask(gateway)
        assert (reply.status, reply.body.decode()) == (200, PAGE)
        exchange = await gateway.ended()
        assert exchange.failure() is not None
        row = await gateway.ledger()
        assert (row.requests, row.input, row.output) == (1, exchange.estimated_input, 0)


@pytest.mark.parametrize("body", ["", ": hm\n\n"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_an_answer_with_nothing_in_it_is_free_and_a_failure(api: Api, stream: bool, body: str) -> None:
    async with DemoUpstream(DemoScript(body=body)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await api.ask(gateway, stream=stream)
        assert (reply.status, reply.body.decode()) == (200, body)
        await _assert_free_and_a_failure(gateway)


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "overloaded", "code": 502}}',
        '[{"error": {"message": "overloaded", "code": 503, "status": "UNAVAILABLE"}}]',
        '{"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}',
        '{"id": "resp_1", "status": "failed", "error": {"code": "server_error"}, "usage": null}',
        '{"error": {"code": 502, "message": "overloaded"}, "request_id": "r',
    ],
)
@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_an_error_reported_with_status_200_is_free_and_a_failure(api: Api, body: str) -> None:
    async with DemoUpstream(DemoScript(body=body)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await api.ask(gateway)
        assert (reply.status, reply.body.decode()) == (200, body)
        await _assert_free_and_a_failure(gateway)


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_the_text_of_an_error_inside_a_stream_is_no_output(api: Api) -> None:
    """What was delivered before it is charged, as where the stream breaks at the same place without a word."""
    charged = []
    for end in ({"error_after": 6}, {"halt": "close", "halt_after": 6}):
        script = DemoScript(usage="never", chunks=20).changed(end)
        async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
            reply = await api.ask(gateway, stream=True)
            assert reply.status == 200
            await gateway.ended()
            charged.append((await gateway.ledger()).output)
    assert charged[0] == charged[1] > 0


async def _assert_free_and_a_failure(gateway: WholeGateway) -> None:
    exchange = await gateway.ended()
    assert exchange.tally is not None
    assert exchange.tally.failed
    assert exchange.usage is None
    assert (await gateway.ledger()).requests == 0


ANSWER = (
    '{"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Two moons."},'
    ' "finish_reason": "stop"}], "usage": {"prompt_tokens": 31, "completion_tokens": 17, "total_tokens": 48}}'
)
NATIVE = (
    '{"model": "m", "message": {"content": "Two"}, "done": false}\n'
    '{"model": "m", "message": {"content": ""}, "done": true, "prompt_eval_count": 31, "eval_count": 17}\n'
)


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "text/plain", "application/octet-stream"])
@pytest.mark.parametrize(
    "body",
    [
        ANSWER,
        "\ufeff" + ANSWER,
        "\n\n  " + ANSWER + "\n",
        ANSWER[:-1] + ",}",
        ANSWER.replace('"stop"}]', '"stop",}]'),
        ANSWER + "\n<!-- served by edge-7 -->",
        ANSWER.replace("Two moons.", "Two\tmoons\\ud83d"),
        ANSWER.replace('"index": 0', '"index": NaN'),
        f"// comment\n{ANSWER}",
        f"[{ANSWER}]",
        NATIVE,
        STREAM.decode().replace('"prompt_tokens": 3', '"prompt_tokens": 31'),
    ],
    ids=range(12),
)
async def test_usage_is_read_whatever_is_odd_about_an_answer(body: str, content_type: str) -> None:
    script = DemoScript(body=body, headers={"content-type": content_type})
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat()
        assert (reply.status, reply.body.decode()) == (200, body)
        exchange = await gateway.ended()
        assert exchange.failure() is None
        assert exchange.usage in (Usage(31, 17), Usage(3, 2))


@pytest.mark.parametrize(
    "body",
    [
        ANSWER[: ANSWER.index('"usage"')],
        ANSWER[: ANSWER.index(', "usage"')] + "}",
        '{"model": "m", "message": {"content": "Two moons."}, "done": false}\n' * 2,
        "data: " + ANSWER[: ANSWER.index(', "usage"')].replace("message", "delta") + "}\n\n",
        '"Two moons, Phobos and Deimos."',
        "Two moons, Phobos and Deimos.",
    ],
    ids=["cut", "no usage", "lines", "events", "a JSON text", "bare text"],
)
async def test_where_no_usage_is_found_what_was_delivered_is_estimated(body: str) -> None:
    async with DemoUpstream(DemoScript(body=body)) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat()
        assert (reply.status, reply.body.decode()) == (200, body)
        usage = (await gateway.ended()).usage
        assert usage is not None
        assert (usage.source, usage.input > 0) == ("estimated", True)
        assert (await gateway.ledger()).estimated == usage.total


async def test_an_answer_that_says_that_it_has_no_error_is_charged() -> None:
    body = '{"id":"resp_1","status":"completed","error":null,"usage":{"input_tokens":3,"output_tokens":2}}'
    async with DemoUpstream(DemoScript(body=body)) as upstream, whole_gateway(upstream.base_url) as gateway:
        await RESPONSES.ask(gateway)
        assert (await gateway.ended()).usage == Usage(3, 2)


@pytest.mark.parametrize("api", SPEAKING, ids=name_of)
async def test_an_upstream_that_does_not_stream_though_it_was_asked_gives_its_plain_answer(api: Api) -> None:
    async with DemoUpstream(DemoScript(chunks=6)) as upstream, whole_gateway(upstream.base_url) as gateway:
        plain = await api.ask(gateway)
        upstream.script = DemoScript(body=plain.body.decode(), headers={"content-type": "application/json"})
        reply = await api.ask(gateway, stream=True)
        assert (reply.headers["content-type"], reply.body) == ("application/json", plain.body)
        assert (await gateway.ended()).usage == (await gateway.ended()).usage == Usage(6, 6)


@pytest.mark.parametrize("status", [200, 400, 413, 503])
async def test_an_answer_before_the_request_was_sent_reaches_the_client(status: int) -> None:
    """A large body is still on its way when the upstream has answered, and the connection serves no other request."""
    body = json.dumps({"pad": "x" * 5_000_000, **CHAT.body()}).encode()
    async with (
        hand_upstream(reads_bodies=False) as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(body))
        turn = await upstream.asked()
        answer = json.dumps({"usage": usage(3, 2)} if status == 200 else {"error": {"message": "no"}}).encode()
        turn.say(b"HTTP/1.1 %d Told\r\ncontent-length: %d\r\n\r\n%b" % (status, len(answer), answer))
        reply = await client.answer()
        assert (reply.status, reply.body) == (status, answer)
        await turn.left()
        exchange = await gateway.ended()
        assert exchange.usage == (Usage(3, 2) if status == 200 else None)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nopenai-x: a\r\n set-cookie: b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nopenai-x: a\nset-cookie: b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nopenai-x: a\rset-cookie: b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nopenai-x: a\x00b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\n{}",
        b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
    ],
    ids=lambda said: repr(said[:90]),
)
async def test_what_is_no_answer_is_a_502(said: bytes) -> None:
    reply, gateway = await told(said, closes=True)
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
    assert (await gateway.ended()).usage is None


async def test_reports_in_parts_are_put_together() -> None:
    """As Anthropic's servers tell usage: input at the beginning, output at the end, what is cached beside the input."""
    begin: Json = {
        "input_tokens": 10,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "output_tokens": 1,
    }
    events = (
        ("message_start", {"message": {"usage": begin}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": '"usage"'}}),
        ("message_delta", {"delta": {}, "usage": {"output_tokens": 4}}),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}),
        ("message_stop", {}),
    )
    body = "".join(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n" for kind, fields in events)
    async with (
        DemoUpstream(DemoScript(body=body, pieces="random")) as upstream,
        whole_gateway(upstream.base_url) as gateway,
    ):
        assert (await MESSAGES.ask(gateway, stream=True)).body.decode() == body
        assert (await gateway.ended()).usage == Usage(input=17, output=9, cached_input=5, cache_write=2)


async def test_a_completion_that_echoes_its_prompt_is_charged_as_it_reports() -> None:
    body = json.dumps({"choices": [{"text": '{"usage": {"prompt_tokens": 999}}'}], "usage": usage(3, 2)})
    async with DemoUpstream(DemoScript(body=body)) as upstream, whole_gateway(upstream.base_url) as gateway:
        await COMPLETIONS.ask(gateway, echo=True)
        assert (await gateway.ended()).usage == Usage(3, 2)
