"""Upstreams that break, and what is said of them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import UpstreamBroke, UpstreamUnreachable
from gateway.core.header_rules import HeaderLines
from gateway.upstream.client import HttpClient
from gateway.upstream.contract import UpstreamRequest
from tests.contract.upstream.asking import ASK, CHUNKED_HEAD, ask, body_of, chunk, head, new_client, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    Step,
    hangs_up,
    hears,
    hears_the_head,
    resets,
    says,
    sees_the_client_leave,
    sets,
)

LEAVES: list[Step] = [hangs_up, resets]


@pytest.mark.parametrize("leaves", LEAVES)
async def test_breaking_before_an_answer_is_being_unreachable(client: HttpClient, play: Play, leaves: Step) -> None:
    server = await play([hears, leaves])
    with pytest.raises(
        UpstreamUnreachable, match=r"^Upstream 'inducta' (closed|reset) the connection before it answered"
    ) as caught:
        await client.send(server.upstream(), ASK)
    assert caught.value.outcome == "hung_up"
    assert server.connections == 1


@pytest.mark.parametrize("leaves", LEAVES)
async def test_breaking_between_head_and_body_is_being_unreachable(
    client: HttpClient, play: Play, leaves: Step
) -> None:
    server = await play([hears, says(CHUNKED_HEAD), leaves])
    with pytest.raises(UpstreamUnreachable):
        await client.send(server.upstream(), ASK)


@pytest.mark.parametrize("leaves", LEAVES)
@pytest.mark.parametrize(
    "begun",
    [CHUNKED_HEAD + chunk(b"half"), CHUNKED_HEAD + b"8\r\nhalf", head(b"content-length: 8") + b"half"],
    ids=["between chunks", "inside a chunk", "short of its length"],
)
async def test_breaking_midway_keeps_what_came_and_is_no_end(
    client: HttpClient, play: Play, begun: bytes, leaves: Step
) -> None:
    server = await play([hears, says(begun), leaves])
    answer = await client.send(server.upstream(), ASK)
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    with pytest.raises(UpstreamBroke, match=r"before the end of its answer \(connection lost\)"):
        await answer.finished()
    assert b"".join(pieces) == b"half"


async def test_a_reset_is_no_end_of_an_answer_that_ends_by_closing(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(head() + b"half"), resets])
    answer = await client.send(server.upstream(), ASK)
    with pytest.raises(UpstreamBroke, match="reset the connection"):
        await body_of(answer)


async def test_a_framing_that_breaks_midway_breaks_the_answer(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half") + b"zz\r\n"), sees_the_client_leave])
    answer = await client.send(server.upstream(), ASK)
    with pytest.raises(UpstreamBroke, match="not an HTTP answer") as caught:
        await body_of(answer)
    assert caught.value.outcome == "malformed"
    await server.sees_the_client_gone()


async def test_endless_trailers_break_the_answer(client: HttpClient, play: Play) -> None:
    trailers = b"".join(b"x-%d: y\r\n" % number for number in range(20_000))
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), says(b"0\r\n" + trailers), sees_the_client_leave])
    answer = await client.send(server.upstream(), ASK)
    with pytest.raises(UpstreamBroke):
        await body_of(answer)
    await server.sees_the_client_gone()


async def test_breaking_while_the_request_is_sent_is_being_unreachable(client: HttpClient, play: Play) -> None:
    server = await play([hears_the_head, resets])
    with pytest.raises(UpstreamUnreachable):
        await client.send(server.upstream(), UpstreamRequest(path="/x", headers=HeaderLines(), body=b"x" * 50_000_000))


async def test_what_breaks_one_answer_leaves_the_others_alone(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), resets], [hears, says(plain(b"ok"))])
    broken = await client.send(server.upstream(), ASK)
    with pytest.raises(UpstreamBroke):
        await body_of(broken)
    assert await ask(client, server.upstream()) == (200, b"ok")


async def test_messages_name_the_upstream_and_no_secret(client: HttpClient, play: Play) -> None:
    server = await play([hears, hangs_up])
    upstream = server.upstream(headers=(("authorization", "Bearer s3cret"),), path="/v1?key=s3cret")
    with pytest.raises(UpstreamUnreachable) as caught:
        await client.send(upstream, ASK)
    assert "'inducta'" in caught.value.message
    assert "s3cret" not in caught.value.message


async def test_an_abandoned_answer_closes_the_connection_at_once(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    answer = await client.send(server.upstream(), ASK)
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    answer.abandon()
    answer.abandon()
    await server.sees_the_client_gone()
    with pytest.raises(UpstreamBroke, match="abandoned"):
        await answer.finished()


async def test_an_answer_may_be_abandoned_before_or_while_it_is_poured(client: HttpClient, play: Play) -> None:
    begun = [hears, says(CHUNKED_HEAD + chunk(b"a") + chunk(b"b")), sees_the_client_leave]
    server = await play(begun, begun)
    unread = await client.send(server.upstream(), ASK)
    unread.abandon()
    await server.sees_the_client_gone()
    server.gone.clear()
    answer = await client.send(server.upstream(), ASK)
    answer.deliver_to(lambda piece: answer.abandon())
    await server.sees_the_client_gone()


async def test_whoever_waits_for_an_abandoned_answer_is_told(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half"))])
    answer = await client.send(server.upstream(), ASK)
    reading = asyncio.create_task(body_of(answer))
    asyncio.get_running_loop().call_soon(answer.abandon)
    with pytest.raises(UpstreamBroke):
        await reading


async def test_abandoning_a_whole_answer_keeps_the_connection(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"one")), hears, says(plain(b"two"))])
    answer = await client.send(server.upstream(), ASK)
    assert await body_of(answer) == b"one"
    answer.abandon()
    await answer.finished()
    assert await ask(client, server.upstream()) == (200, b"two")
    assert server.connections == 1


async def test_cancelling_a_request_closes_the_connection_at_once(client: HttpClient, play: Play) -> None:
    heard = asyncio.Event()
    server = await play([hears, sets(heard), sees_the_client_leave])
    sending = asyncio.create_task(client.send(server.upstream(), ASK))
    await heard.wait()
    sending.cancel()
    await server.sees_the_client_gone()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_closing_the_wire_ends_what_is_on_its_way(play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    client = new_client()
    answer = await client.send(server.upstream(), ASK)
    await client.close()
    with pytest.raises(UpstreamBroke, match="disconnected by the gateway"):
        await body_of(answer)
    await server.sees_the_client_gone()
