"""One request and its answer, in every way that an answer can be framed."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.header_rules import HeaderLines
from gateway.upstream.client import HttpClient
from gateway.upstream.contract import UpstreamRequest
from tests.contract.upstream.asking import (
    ASK,
    BODY,
    CHUNKED_HEAD,
    LAST_CHUNK,
    ask,
    body_of,
    chunk,
    chunked,
    head,
    plain,
)
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    hangs_up,
    hears,
    hears_the_head,
    says,
    says_in,
    sees_the_client_leave,
    sets,
    waits_for,
)


async def test_a_request_arrives_as_it_was_given(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"{}"))])
    upstream = server.upstream(path="/v1/?api-version=2026-01-01", headers=(("Authorization", "Bearer s3cret"),))
    await ask(client, upstream)
    [request] = server.requests
    assert request.line == "POST /v1/chat/completions?api-version=2026-01-01 HTTP/1.1"
    assert request.body == BODY
    assert request.header("host") == f"localhost:{server.port}"
    assert request.header("authorization") == "Bearer s3cret"
    assert request.header("content-type") == "application/json"
    assert request.header("accept-encoding") == "identity"
    assert request.header("content-length") == str(len(BODY))


async def test_an_answer_with_a_length_is_read_to_its_end(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b'{"ok":true}', b"X-One: 1", b"Content-Type: application/json"))])
    answer = await client.send(server.upstream(), ASK)
    assert answer.status == 200
    assert answer.headers["x-one"] == "1"
    assert answer.headers["content-type"] == "application/json"
    assert await body_of(answer) == b'{"ok":true}'
    assert answer.sent_at <= answer.first_byte_at


async def test_a_chunked_stream_is_handed_over_piece_by_piece(client: HttpClient, play: Play) -> None:
    first, second, more = asyncio.Event(), asyncio.Event(), asyncio.Event()
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"a")), waits_for(more), says(chunk(b"b") + LAST_CHUNK)])
    answer = await client.send(server.upstream(), ASK)
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        (second if len(pieces) > 1 else first).set()

    answer.deliver_to(take)
    assert pieces == [b"a"]
    more.set()
    await second.wait()
    await answer.finished()
    assert pieces == [b"a", b"b"]


async def test_trailers_and_chunk_extensions_are_not_part_of_the_body(client: HttpClient, play: Play) -> None:
    stream = CHUNKED_HEAD + b"3;name=value\r\nabc\r\n0\r\nX-Usage: 12\r\ncontent-type: text/html\r\n\r\n"
    server = await play([hears, says(stream), hears, says(plain(b"next"))])
    answer = await client.send(server.upstream(), ASK)
    assert await body_of(answer) == b"abc"
    assert answer.headers["content-type"] == "text/event-stream"
    assert await ask(client, server.upstream()) == (200, b"next")
    assert server.connections == 1


async def test_an_old_server_ends_its_answer_by_closing(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(b"HTTP/1.0 200 OK\r\n\r\ndata: 1\n\n"), says(b"data: 2\n\n"), hangs_up])
    assert await ask(client, server.upstream()) == (200, b"data: 1\n\ndata: 2\n\n")


async def test_interim_answers_are_skipped(client: HttpClient, play: Play) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    server = await play([hears, says_in(interim, plain(b"ok"))])
    answer = await client.send(server.upstream(), ASK)
    assert (answer.status, await body_of(answer)) == (200, b"ok")
    assert "link" not in answer.headers


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_some_statuses_have_no_body(client: HttpClient, play: Play, status: bytes) -> None:
    server = await play([hears, says(head(status=status)), hears, says(plain(b"next"))])
    assert await ask(client, server.upstream()) == (int(status[:3]), b"")
    assert await ask(client, server.upstream()) == (200, b"next")
    assert server.connections == 1


async def test_an_answer_may_come_before_the_request_is_sent_whole(client: HttpClient, play: Play) -> None:
    refusal = plain(b"too large", b"connection: close", status=b"413 Content Too Large")
    server = await play([hears_the_head, says(refusal), sees_the_client_leave])
    outgoing = UpstreamRequest(path="/chat/completions", headers=HeaderLines(), body=b"x" * 50_000_000)
    assert await ask(client, server.upstream(), outgoing) == (413, b"too large")
    await server.sees_the_client_gone()


async def test_a_connection_with_half_a_request_on_it_is_not_used_again(client: HttpClient, play: Play) -> None:
    server = await play([hears_the_head, says(plain(b"early")), sees_the_client_leave], [hears, says(plain(b"ok"))])
    outgoing = UpstreamRequest(path="/chat/completions", headers=HeaderLines(), body=b"x" * 50_000_000)
    assert await ask(client, server.upstream(), outgoing) == (200, b"early")
    await server.sees_the_client_gone()
    assert await ask(client, server.upstream()) == (200, b"ok")


async def test_a_large_request_arrives_whole(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"ok"))])
    body = bytes(range(256)) * 20_000
    outgoing = UpstreamRequest(path="/chat/completions", headers=HeaderLines(), body=body)
    assert await ask(client, server.upstream(), outgoing) == (200, b"ok")
    assert server.requests[0].body == body


async def test_send_returns_only_with_the_first_byte_of_the_body(client: HttpClient, play: Play) -> None:
    headed, more = asyncio.Event(), asyncio.Event()
    server = await play([hears, says(CHUNKED_HEAD), sets(headed), waits_for(more), says(chunk(b"a") + LAST_CHUNK)])
    sending = asyncio.create_task(client.send(server.upstream(), ASK))
    await headed.wait()
    assert not (await asyncio.wait([sending], timeout=0.05))[0]
    more.set()
    assert await body_of(await sending) == b"a"


async def test_a_line_break_in_a_header_is_never_sent(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"ok"))])
    smuggled = UpstreamRequest(
        path="/chat/completions", headers=HeaderLines(("user-agent",), ("x\r\nx-admin: 1",)), body=b""
    )
    with pytest.raises(ValueError, match="line break"):
        await client.send(server.upstream(), smuggled)
    with pytest.raises(UpstreamUnreachable, match="line break"):
        await client.send(server.upstream(headers=(("authorization", "Bearer x\ny"),)), ASK)
    assert server.connections == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
    ],
    ids=["other protocol", "two lengths", "transfer coding", "bad length", "upgrade", "endless head", "endless 1xx"],
)
async def test_what_is_no_answer_is_an_unreachable_upstream(client: HttpClient, play: Play, nonsense: bytes) -> None:
    server = await play([hears, says(nonsense), sees_the_client_leave])
    with pytest.raises(UpstreamUnreachable, match="'inducta' sent what is not an HTTP answer"):
        await client.send(server.upstream(), ASK)
    await server.sees_the_client_gone()


async def test_two_framings_of_one_body_read_the_same(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(chunked(b"one", b"two")), hears, says(plain(b"onetwo"))])
    assert await ask(client, server.upstream()) == await ask(client, server.upstream())
