"""Which connections are kept, for how many, and who gets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.core.errors import ShuttingDown, UpstreamBusy, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.snapshot import Model, Target, Timeouts, Upstream
from gateway.upstream.client import HttpClient
from gateway.upstream.contract import UpstreamRequest
from gateway.upstream.pool import LINE_MIN
from tests.contract.upstream.asking import (
    ASK,
    CHUNKED_HEAD,
    LAST_CHUNK,
    ask,
    body_of,
    chunk,
    chunked,
    head,
    new_client,
    plain,
)
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    Peer,
    Step,
    closes_under_a_request,
    hangs_up,
    hears,
    hears_the_head,
    notes,
    resets,
    says,
    sees_the_client_leave,
    sets,
    speaks_under_a_request,
    waits_for,
)

OK = plain(b"ok")


async def test_a_connection_serves_one_request_after_another(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears, says(chunked(b"ok")), hears, says(OK)])
    for _ in range(3):
        assert await ask(client, server.upstream()) == (200, b"ok")
    assert server.connections == 1


async def test_idle_connections_to_one_upstream_make_room_for_those_to_others(play: Play) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()
    first = await play([hears, says(OK), sees_the_client_leave], [hears, says(OK)])
    second = await play([hears, sets(asked), waits_for(may_answer), says(OK)])
    client = new_client(max_connections=1)
    assert await ask(client, first.upstream()) == (200, b"ok")
    waiting = asyncio.create_task(ask(client, second.upstream()))
    await first.sees_the_client_gone()
    await asked.wait()
    # None is idle now: a request is never refused for it.
    assert await ask(client, first.upstream()) == (200, b"ok")
    may_answer.set()
    assert await waiting == (200, b"ok")
    assert first.connections == 2
    await client.close()
    assert client._pools == {}


async def test_the_connection_used_last_is_used_first(client: HttpClient, play: Play) -> None:
    heard, both_asked = asyncio.Event(), asyncio.Event()
    late = [hears, sets(heard), waits_for(both_asked), says(plain(b"late")), hears, says(plain(b"from the late one"))]
    server = await play(late, [hears, says(plain(b"early"))])
    first = asyncio.create_task(ask(client, server.upstream()))
    await heard.wait()
    assert await ask(client, server.upstream()) == (200, b"early")
    both_asked.set()
    assert await first == (200, b"late")
    assert await ask(client, server.upstream()) == (200, b"from the late one")


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
async def test_a_connection_in_doubt_is_not_used_again(client: HttpClient, play: Play, answer: bytes) -> None:
    server = await play([hears, says(answer), sees_the_client_leave], [hears, says(OK)])
    assert await ask(client, server.upstream()) == (200, b"ok")
    await server.sees_the_client_gone()
    assert await ask(client, server.upstream()) == (200, b"ok")
    assert server.connections == 2


@pytest.fixture
async def unrequested() -> list[tuple[str, bool]]:
    """The upstreams that sent bytes that answer no request, and whether they were trusted until then."""
    return []


@pytest.fixture
async def noting(unrequested: list[tuple[str, bool]]) -> AsyncIterator[HttpClient]:
    made = new_client(report_unrequested_bytes=lambda *told: unrequested.append(told))
    yield made
    await made.close()


TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"


async def test_a_server_that_speaks_unasked_loses_all_its_idle_connections(
    noting: HttpClient, unrequested: list[tuple[str, bool]], play: Play
) -> None:
    heard, both, speaks = asyncio.Event(), asyncio.Event(), asyncio.Event()
    server = await play(
        [hears, sets(heard), waits_for(both), says(OK), waits_for(speaks), says(TIMEOUT)],
        [hears, says(OK), sees_the_client_leave],
        [hears, says(plain(b"new"))],
    )
    first = asyncio.create_task(ask(noting, server.upstream()))
    await heard.wait()
    assert await ask(noting, server.upstream()) == (200, b"ok")
    both.set()
    await first
    speaks.set()
    await server.sees_the_client_gone()
    assert await ask(noting, server.upstream()) == (200, b"new")
    assert unrequested == [("inducta", True)]


async def test_bytes_that_wait_on_an_idle_connection_answer_no_request(
    noting: HttpClient, unrequested: list[tuple[str, bool]], play: Play
) -> None:
    peers: list[Peer] = []
    server = await play([hears, says(OK), notes(peers)], [hears, says(plain(b"right"))])
    assert await ask(noting, server.upstream()) == (200, b"ok")
    speaks_under_a_request(peers[0], plain(b"another caller's"))
    assert await ask(noting, server.upstream()) == (200, b"right")
    assert unrequested == [("inducta", True)]


@pytest.mark.parametrize("answer", [OK + b"more", OK + OK, chunked(b"ok") + OK])
async def test_bytes_behind_an_answer_are_reported(
    noting: HttpClient, unrequested: list[tuple[str, bool]], play: Play, answer: bytes
) -> None:
    server = await play([hears, says(answer)], [hears, says(plain(b"new"))])
    assert await ask(noting, server.upstream()) == (200, b"ok")
    assert await ask(noting, server.upstream()) == (200, b"new")
    assert unrequested == [("inducta", True)]


async def test_a_server_that_always_says_too_much_is_trusted_before_the_first_time_alone(
    noting: HttpClient, unrequested: list[tuple[str, bool]], play: Play
) -> None:
    server = await play(*[[hears, says(OK + OK)]] * 3)
    for _ in range(3):
        assert await ask(noting, server.upstream()) == (200, b"ok")
    assert unrequested == [("inducta", True), ("inducta", False), ("inducta", False)]


async def test_a_server_that_spoke_unasked_gets_each_request_on_a_new_connection(
    noting: HttpClient, play: Play
) -> None:
    """A late second answer, on a connection that is used again, would be another request's."""
    server = await play(
        [hears, says(OK + OK)], [hears, says(OK), sees_the_client_leave], [hears, says(OK), sees_the_client_leave]
    )
    for _ in range(3):
        assert await ask(noting, server.upstream()) == (200, b"ok")
    assert server.connections == 3


async def test_a_server_that_spoke_unasked_is_trusted_again_after_a_while(play: Play) -> None:
    client = new_client(distrust_seconds=0)
    server = await play([hears, says(OK + OK)], [hears, says(OK), hears, says(OK)])
    for _ in range(3):
        assert await ask(client, server.upstream()) == (200, b"ok")
    assert server.connections == 2
    await client.close()


async def test_a_kept_connection_that_closed_before_the_request_arrived_is_replaced(
    client: HttpClient, play: Play
) -> None:
    peers: list[Peer] = []
    attempts: list[tuple[str, str]] = []
    server = await play([hears, says(OK), notes(peers)], [hears, says(plain(b"second"))])
    assert await ask(client, server.upstream()) == (200, b"ok")
    closes_under_a_request(peers[0])
    request = msgspec.structs.replace(ASK, note_attempt=lambda *attempt: attempts.append(attempt))
    assert await ask(client, server.upstream(), request) == (200, b"second")
    assert attempts == [(server.upstream().name, "stale_connection")]
    assert server.requests[0] == server.requests[1]


async def test_a_kept_connection_that_closes_before_it_has_the_whole_request_is_replaced(
    client: HttpClient, play: Play
) -> None:
    server = await play([hears, says(OK), hears_the_head, hangs_up], [hears, says(plain(b"second"))])
    assert await ask(client, server.upstream()) == (200, b"ok")
    large = msgspec.structs.replace(ASK, body=bytes(30_000_000))
    assert await ask(client, server.upstream(), large) == (200, b"second")


@pytest.mark.parametrize("leaves", [hangs_up, resets])
async def test_a_server_that_heard_the_whole_request_is_not_asked_again(
    client: HttpClient, play: Play, leaves: Step
) -> None:
    attempts: list[tuple[str, str]] = []
    server = await play([hears, says(OK), hears, leaves], [hears, says(OK)])
    assert await ask(client, server.upstream()) == (200, b"ok")
    with pytest.raises(UpstreamUnreachable, match="before it answered") as caught:
        await ask(
            client,
            server.upstream(),
            msgspec.structs.replace(ASK, note_attempt=lambda *attempt: attempts.append(attempt)),
        )
    assert caught.value.outcome == "hung_up"
    assert attempts == []
    assert len(server.requests) == 2
    assert server.connections == 1


async def test_it_is_replaced_once_only(client: HttpClient, play: Play) -> None:
    peers: list[Peer] = []
    server = await play([hears, says(OK), notes(peers)], [hears, hangs_up], [hears, says(OK)])
    await ask(client, server.upstream())
    closes_under_a_request(peers[0])
    with pytest.raises(UpstreamUnreachable, match="before it answered") as caught:
        await ask(client, server.upstream())
    assert caught.value.outcome == "hung_up"
    assert server.connections == 2


async def test_once_a_byte_has_come_nothing_is_sent_again(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears, says(b"HTTP/1.1 200"), hangs_up], [hears, says(OK)])
    await ask(client, server.upstream())
    with pytest.raises(UpstreamUnreachable):
        await ask(client, server.upstream())
    assert server.connections == 1


async def test_a_kept_connection_that_hangs_is_not_replaced(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hears], [hears, says(OK)])
    upstream = server.upstream(timeouts=Timeouts(first_byte=0.5))
    await ask(client, upstream)
    with pytest.raises(UpstreamTimedOut):
        await ask(client, upstream)
    assert server.connections == 1


async def test_a_connection_that_closed_meanwhile_is_not_tried(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK), hangs_up], [hears, says(OK)])
    await ask(client, server.upstream())
    assert await ask(client, server.upstream()) == (200, b"ok")


async def test_there_are_never_more_connections_than_allowed(client: HttpClient, play: Play) -> None:
    kept = [hears, says(OK)] * 10
    server = await play(kept, kept, kept)
    upstream = server.upstream(max_connections=2)
    assert await asyncio.gather(*(ask(client, upstream) for _ in range(10))) == [(200, b"ok")] * 10
    assert server.connections <= 2


async def test_whoever_waits_longest_is_served_first(client: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    server = await play([hears, waits_for(go), says(OK), *[hears, says(OK)] * 3])
    upstream = server.upstream(max_connections=1)
    served: list[int] = []

    async def one(number: int) -> None:
        await ask(client, upstream)
        served.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await asyncio.wait(tasks, timeout=0.05)
    go.set()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3]


def of_model(name: str) -> UpstreamRequest:
    return msgspec.structs.replace(ASK, model=name, team="t")


def models_at(upstream: Upstream, *names: str) -> list[Model]:
    return [Model(name, (Target(upstream, name),)) for name in names]


async def test_a_model_that_hangs_leaves_connections_to_the_others_of_its_upstream(
    client: HttpClient, play: Play
) -> None:
    hangs, serves = [hears, sees_the_client_leave], [hears, says(OK)] * 20
    server = await play(*[hangs] * 6, serves, serves)
    upstream = server.upstream(max_connections=8)
    client.keep(models_at(upstream, "hangs", "works"), teams=1)
    hanging = [asyncio.create_task(ask(client, upstream, of_model("hangs"))) for _ in range(50)]
    async with asyncio.timeout(10):
        while server.connections < 6:
            await asyncio.sleep(0)
        for _ in range(20):
            assert await ask(client, upstream, of_model("works")) == (200, b"ok")
    assert server.connections == 7
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)


async def test_who_holds_fewer_connections_is_served_before_who_waits_longer(client: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    server = await play([hears, waits_for(go), says(OK), *[hears, says(OK)] * 5], [hears, sees_the_client_leave])
    upstream = server.upstream(max_connections=2)
    client.keep(models_at(upstream, "busy", "rare"), teams=1)
    served: list[str] = []

    async def one(model: str) -> None:
        await ask(client, upstream, of_model(model))
        served.append(model)

    holding = [asyncio.create_task(one("busy")) for _ in range(2)]
    await asyncio.wait(holding, timeout=0.05)
    waiting = [asyncio.create_task(one(model)) for model in ("busy", "rare", "busy")]
    await asyncio.wait(waiting, timeout=0.05)
    go.set()
    await asyncio.gather(*waiting)
    assert served == ["busy", "rare", "busy", "busy"]
    holding[1].cancel()


async def test_a_team_that_waits_leaves_what_comes_free_to_one_that_holds_less(client: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    server = await play([hears, waits_for(go), says(OK), *[hears, says(OK)] * 6], [hears, sees_the_client_leave])
    upstream = server.upstream(max_connections=2)
    client.keep(models_at(upstream, "m"), teams=2)
    served: list[str] = []

    async def one(team: str) -> None:
        await ask(client, upstream, msgspec.structs.replace(ASK, model="m", team=team))
        served.append(team)

    holding = [asyncio.create_task(one("busy")) for _ in range(2)]
    await asyncio.wait(holding, timeout=0.05)
    waiting = [asyncio.create_task(one(team)) for team in ("busy", "busy", "busy", "rare")]
    await asyncio.wait(waiting, timeout=0.05)
    go.set()
    await asyncio.gather(*waiting)
    assert served.index("rare") <= 1
    holding[1].cancel()


async def test_a_line_that_is_full_is_told_at_once(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    upstream = server.upstream(max_connections=1, timeouts=Timeouts(connect=60))
    client.keep(models_at(upstream, "m"), teams=2)
    first = await client.send(upstream, of_model("m"))
    waiting = [asyncio.create_task(client.send(upstream, of_model("m"))) for _ in range(LINE_MIN)]
    await asyncio.wait(waiting, timeout=0.05)
    with pytest.raises(UpstreamBusy, match="100 requests of this team wait already") as caught:
        await client.send(upstream, of_model("m"))
    assert (caught.value.status, caught.value.retry_after_ms) == (503, 1_000)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    first.abandon()


async def test_a_model_is_told_that_it_had_no_connection_free(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    upstream = server.upstream(max_connections=1, timeouts=Timeouts(connect=0.3))
    first = await client.send(upstream, of_model("m"))
    with pytest.raises(UpstreamBusy, match=r"had none of its 1 connections free for the model 'm' within"):
        await client.send(upstream, of_model("m"))
    first.abandon()


async def test_waiting_for_a_connection_ends_with_the_time_to_connect(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    upstream = server.upstream(max_connections=1, timeouts=Timeouts(connect=0.3))
    first = await client.send(upstream, ASK)
    with pytest.raises(UpstreamBusy, match=r"had none of its 1 connections free within 0.3 s") as caught:
        await client.send(upstream, ASK)
    assert caught.value.outcome == "no_connection_free"
    first.abandon()
    await server.sees_the_client_gone()


async def test_a_broken_connection_makes_room_for_who_waits(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half"))], [hears, says(OK)])
    upstream = server.upstream(max_connections=1)
    first = await client.send(upstream, ASK)
    second = asyncio.create_task(ask(client, upstream))
    await asyncio.wait([second], timeout=0.05)
    first.abandon()
    assert await second == (200, b"ok")


async def test_who_gives_up_as_it_is_served_passes_the_connection_on(client: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    first_part = says(CHUNKED_HEAD + chunk(b"half"))
    server = await play([hears, first_part, waits_for(go), says(chunk(b"end") + LAST_CHUNK), hears, says(OK)])
    upstream = server.upstream(max_connections=1)
    first = await client.send(upstream, ASK)
    second, third = (asyncio.create_task(ask(client, upstream)) for _ in range(2))
    await asyncio.wait([second, third], timeout=0.05)
    # The last piece is handed over just before the connection is: the cancellation lands in between.
    loop = asyncio.get_running_loop()

    def cancel_at_the_end(piece: bytes) -> None:
        if piece == b"end":
            loop.call_soon(second.cancel)

    first.deliver_to(cancel_at_the_end)
    go.set()
    await first.finished()
    assert await third == (200, b"ok")
    assert second.cancelled()
    assert server.connections == 1


async def test_a_new_connection_is_made_though_all_are_idle_and_stale(client: HttpClient, play: Play) -> None:
    peers: list[Peer] = []
    server = await play([hears, says(OK), notes(peers)], [hears, says(OK)])
    upstream = server.upstream(max_connections=1)
    await ask(client, upstream)
    closes_under_a_request(peers[0])
    assert await ask(client, upstream) == (200, b"ok")


async def test_changed_settings_get_connections_of_their_own(client: HttpClient, play: Play) -> None:
    go = asyncio.Event()
    server = await play(
        [hears, says(CHUNKED_HEAD + chunk(b"o")), waits_for(go), says(chunk(b"k") + LAST_CHUNK)], [hears, says(OK)]
    )
    answer = await client.send(server.upstream(headers=(("authorization", "Bearer old"),)), ASK)
    assert await ask(client, server.upstream(headers=(("authorization", "Bearer new"),))) == (200, b"ok")
    go.set()
    assert await body_of(answer) == b"ok"
    assert [request.header("authorization") for request in server.requests] == ["Bearer old", "Bearer new"]


async def test_closing_the_wire_closes_the_idle_connections(play: Play) -> None:
    server = await play([hears, says(OK), sees_the_client_leave])
    client = new_client()
    await ask(client, server.upstream())
    await client.close()
    await server.sees_the_client_gone()
    with pytest.raises(ShuttingDown):
        await ask(client, server.upstream())


async def test_an_answer_still_held_keeps_nobody_from_the_connection(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"unread")), hears, says(OK)])
    unread = await client.send(server.upstream(), ASK)
    unread.pause()
    assert await ask(client, server.upstream()) == (200, b"ok")
    unread.resume()
    assert await body_of(unread) == b"unread"
    assert server.connections == 1


async def test_a_paused_answer_that_ended_leaves_a_connection_that_reads(client: HttpClient, play: Play) -> None:
    async def says_slowly(peer: Peer) -> None:
        for piece in (head(b"content-length: 2") + b"o", b"k"):
            peer.writer.write(piece)
            await peer.writer.drain()

    server = await play([hears, says_slowly, hears, says(OK)])
    answer = await client.send(server.upstream(), ASK)
    answer.deliver_to(lambda piece: answer.pause())
    answer.resume()
    await answer.finished()
    assert await ask(client, server.upstream()) == (200, b"ok")


async def test_an_idle_connection_is_closed_after_a_while(play: Play) -> None:
    server = await play([hears, says(OK), hears, says(OK), sees_the_client_leave])
    client = new_client(idle_seconds=0.05)
    assert await ask(client, server.upstream()) == (200, b"ok")
    assert await ask(client, server.upstream()) == (200, b"ok")
    await server.sees_the_client_gone()
    assert server.connections == 1


async def test_a_connection_in_use_is_not_idle(play: Play) -> None:
    go = asyncio.Event()
    server = await play([hears, says(OK), hears, waits_for(go), says(OK)])
    client = new_client(idle_seconds=0.02)
    await ask(client, server.upstream())
    second = asyncio.create_task(ask(client, server.upstream()))
    assert not (await asyncio.wait([second], timeout=0.1))[0]
    go.set()
    assert await second == (200, b"ok")
    await client.close()
