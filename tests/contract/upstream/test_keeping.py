"""Which connections are kept, for how many, and who gets them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import ShuttingDown, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.snapshot import Timeouts
from gateway.upstream.client import HttpClient
from tests.contract.upstream.asking import ASK, CHUNKED_HEAD, LAST_CHUNK, ask, body_of, chunk, chunked, head, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import Peer, hangs_up, hears, resets, says, sees_the_client_leave, sets, waits_for

OK = plain(b"ok")


async def test_a_connection_serves_one_request_after_another(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears, says(chunked(b"ok")), hears, says(OK)])
    for _ in range(3):
        assert await ask(wire, server.upstream()) == (200, b"ok")
    assert server.connections == 1


async def test_the_connection_used_last_is_used_first(wire: HttpClient, play: Play) -> None:
    heard, both_asked = asyncio.Event(), asyncio.Event()
    late = [hears, sets(heard), waits_for(both_asked), says(plain(b"late")), hears, says(plain(b"from the late one"))]
    server = await play(late, [hears, says(plain(b"early"))])
    first = asyncio.create_task(ask(wire, server.upstream()))
    await heard.wait()
    assert await ask(wire, server.upstream()) == (200, b"early")
    both_asked.set()
    assert await first == (200, b"late")
    assert await ask(wire, server.upstream()) == (200, b"from the late one")


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"ok", b"connection: close"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"more than was promised",
        OK + OK,
        chunked(b"ok") + b"\r\n0\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "bytes after", "an answer after", "chunks after"],
)
async def test_a_connection_in_doubt_is_not_used_again(wire: HttpClient, play: Play, answer: bytes) -> None:
    server = await play([hears, says(answer), sees_the_client_leave], [hears, says(OK)])
    assert await ask(wire, server.upstream()) == (200, b"ok")
    await server.sees_the_client_gone()
    assert await ask(wire, server.upstream()) == (200, b"ok")
    assert server.connections == 2


async def test_a_connection_on_which_the_server_speaks_unasked_is_dropped(wire: HttpClient, play: Play) -> None:
    unasked = asyncio.Event()
    timeout = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"
    server = await play([hears, says(OK), waits_for(unasked), says(timeout), sees_the_client_leave], [hears, says(OK)])
    await ask(wire, server.upstream())
    unasked.set()
    await server.sees_the_client_gone()
    assert await ask(wire, server.upstream()) == (200, b"ok")


@pytest.mark.parametrize("leaves", [hangs_up, resets])
async def test_a_kept_connection_that_closes_under_a_request_is_replaced_unseen(
    wire: HttpClient, play: Play, leaves: object
) -> None:
    server = await play([hears, says(OK), hears, leaves], [hears, says(plain(b"second"))])
    assert await ask(wire, server.upstream()) == (200, b"ok")
    assert await ask(wire, server.upstream()) == (200, b"second")
    assert server.requests[1] == server.requests[2]


async def test_it_is_replaced_once_only(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears, hangs_up], [hears, hangs_up], [hears, says(OK)])
    await ask(wire, server.upstream())
    with pytest.raises(UpstreamUnreachable, match="before it answered") as caught:
        await ask(wire, server.upstream())
    assert caught.value.outcome == "hung_up"
    assert server.connections == 2


async def test_once_a_byte_has_come_nothing_is_sent_again(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears, says(b"HTTP/1.1 200"), hangs_up], [hears, says(OK)])
    await ask(wire, server.upstream())
    with pytest.raises(UpstreamUnreachable):
        await ask(wire, server.upstream())
    assert server.connections == 1


async def test_a_kept_connection_that_hangs_is_not_replaced(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears], [hears, says(OK)])
    upstream = server.upstream(timeouts=Timeouts(first_byte=0.05))
    await ask(wire, upstream)
    with pytest.raises(UpstreamTimedOut):
        await ask(wire, upstream)
    assert server.connections == 1


async def test_a_connection_that_closed_meanwhile_is_not_tried(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hangs_up], [hears, says(OK)])
    await ask(wire, server.upstream())
    assert await ask(wire, server.upstream()) == (200, b"ok")


async def test_there_are_never_more_connections_than_allowed(wire: HttpClient, play: Play) -> None:
    kept = [hears, says(OK)] * 10
    server = await play(kept, kept, kept)
    upstream = server.upstream(max_connections=2)
    assert await asyncio.gather(*(ask(wire, upstream) for _ in range(10))) == [(200, b"ok")] * 10
    assert server.connections <= 2


async def test_whoever_waits_longest_is_served_first(wire: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    server = await play([hears, waits_for(go), says(OK), *[hears, says(OK)] * 3])
    upstream = server.upstream(max_connections=1)
    served: list[int] = []

    async def one(number: int) -> None:
        await ask(wire, upstream)
        served.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await asyncio.wait(tasks, timeout=0.05)
    go.set()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3]


async def test_waiting_for_a_connection_ends_with_the_time_to_connect(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    upstream = server.upstream(max_connections=1, timeouts=Timeouts(connect=0.05))
    first = await wire.send(upstream, ASK)
    with pytest.raises(UpstreamUnreachable, match=r"had none of its 1 connections free within 0.05 s") as caught:
        await wire.send(upstream, ASK)
    assert caught.value.outcome == "no_connection_free"
    first.abandon()
    await server.sees_the_client_gone()


async def test_a_broken_connection_makes_room_for_who_waits(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half"))], [hears, says(OK)])
    upstream = server.upstream(max_connections=1)
    first = await wire.send(upstream, ASK)
    second = asyncio.create_task(ask(wire, upstream))
    await asyncio.wait([second], timeout=0.05)
    first.abandon()
    assert await second == (200, b"ok")


async def test_who_gives_up_as_it_is_served_passes_the_connection_on(wire: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    first_part = says(CHUNKED_HEAD + chunk(b"half"))
    server = await play([hears, first_part, waits_for(go), says(chunk(b"end") + LAST_CHUNK), hears, says(OK)])
    upstream = server.upstream(max_connections=1)
    first = await wire.send(upstream, ASK)
    second, third = (asyncio.create_task(ask(wire, upstream)) for _ in range(2))
    await asyncio.wait([second, third], timeout=0.05)
    # The last piece is handed over just before the connection is: the cancellation lands in between.
    loop = asyncio.get_running_loop()
    first.deliver_to(lambda piece: loop.call_soon(second.cancel) if piece == b"end" else None)
    go.set()
    await first.finished()
    assert await third == (200, b"ok")
    assert second.cancelled()
    assert server.connections == 1


async def test_a_new_connection_is_made_though_all_are_idle_and_stale(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears, hangs_up], [hears, says(OK)])
    upstream = server.upstream(max_connections=1)
    await ask(wire, upstream)
    assert await ask(wire, upstream) == (200, b"ok")


async def test_changed_settings_get_connections_of_their_own(wire: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    server = await play(
        [hears, says(CHUNKED_HEAD + chunk(b"o")), waits_for(go), says(chunk(b"k") + LAST_CHUNK)], [hears, says(OK)]
    )
    answer = await wire.send(server.upstream(headers=(("authorization", "Bearer old"),)), ASK)
    assert await ask(wire, server.upstream(headers=(("authorization", "Bearer new"),))) == (200, b"ok")
    go.set()
    assert await body_of(answer) == b"ok"
    assert [request.header("authorization") for request in server.requests] == ["Bearer old", "Bearer new"]


async def test_closing_the_wire_closes_the_idle_connections(play: Play) -> None:
    server = await play([hears, says(OK), sees_the_client_leave])
    wire = HttpClient()
    await ask(wire, server.upstream())
    await wire.close()
    await server.sees_the_client_gone()
    with pytest.raises(ShuttingDown):
        await ask(wire, server.upstream())


async def test_an_answer_still_held_keeps_nobody_from_the_connection(wire: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"unread")), hears, says(OK)])
    unread = await wire.send(server.upstream(), ASK)
    unread.pause()
    assert await ask(wire, server.upstream()) == (200, b"ok")
    unread.resume()
    assert await body_of(unread) == b"unread"
    assert server.connections == 1


async def test_a_paused_answer_that_ended_leaves_a_connection_that_reads(wire: HttpClient, play: Play) -> None:
    async def says_slowly(peer: Peer) -> None:
        for piece in (head(b"content-length: 2") + b"o", b"k"):
            peer.writer.write(piece)
            await peer.writer.drain()

    server = await play([hears, says_slowly, hears, says(OK)])
    answer = await wire.send(server.upstream(), ASK)
    answer.deliver_to(lambda piece: answer.pause())
    answer.resume()
    await answer.finished()
    assert await ask(wire, server.upstream()) == (200, b"ok")


async def test_an_idle_connection_is_closed_after_a_while(play: Play) -> None:
    server = await play([hears, says(OK), hears, says(OK), sees_the_client_leave])
    wire = HttpClient(idle_seconds=0.05)
    assert await ask(wire, server.upstream()) == (200, b"ok")
    assert await ask(wire, server.upstream()) == (200, b"ok")
    await server.sees_the_client_gone()
    assert server.connections == 1


async def test_a_connection_in_use_is_not_idle(play: Play) -> None:
    go = asyncio.Event()
    server = await play([hears, says(OK), hears, waits_for(go), says(OK)])
    wire = HttpClient(idle_seconds=0.02)
    await ask(wire, server.upstream())
    second = asyncio.create_task(ask(wire, server.upstream()))
    assert not (await asyncio.wait([second], timeout=0.1))[0]
    go.set()
    assert await second == (200, b"ok")
    await wire.close()
