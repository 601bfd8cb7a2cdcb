"""Each wait has its bound and its own message; one who hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest

from gateway.core.errors import UpstreamTimedOut, UpstreamUnreachable
from gateway.core.header_rules import HeaderLines
from gateway.core.snapshot import Timeouts, Upstream
from gateway.upstream.client import HttpClient
from gateway.upstream.contract import UpstreamRequest
from tests.contract.upstream.asking import ASK, CHUNKED_HEAD, ask, body_of, chunk, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    Peer,
    hears,
    hears_the_head,
    says,
    sees_the_client_leave,
    talks_until_the_client_leaves,
    waits_for,
)

SHORT = 0.05


async def test_an_upstream_that_says_nothing_times_out(client: HttpClient, play: Play) -> None:
    server = await play([hears, sees_the_client_leave])
    upstream = server.upstream(timeouts=Timeouts(first_byte=SHORT))
    with pytest.raises(
        UpstreamTimedOut, match=r"^Upstream 'inducta' sent no byte of an answer for 0.05 s\.$"
    ) as caught:
        await client.send(upstream, ASK)
    assert caught.value.outcome == "first_byte_timeout"
    await server.sees_the_client_gone()


async def test_a_head_alone_is_no_first_byte(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD), sees_the_client_leave])
    with pytest.raises(UpstreamTimedOut, match="no byte of an answer"):
        await client.send(server.upstream(timeouts=Timeouts(first_byte=SHORT)), ASK)
    await server.sees_the_client_gone()


async def test_an_answer_that_stops_midway_times_out(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    answer = await client.send(server.upstream(timeouts=Timeouts(idle=SHORT)), ASK)
    with pytest.raises(UpstreamTimedOut, match=r"sent nothing more for 0.05 s"):
        await body_of(answer)
    await server.sees_the_client_gone()


async def test_an_answer_that_never_ends_times_out(client: HttpClient, play: Play) -> None:
    talks_on = partial(talks_until_the_client_leaves, piece=chunk(b"on and on"), rest_s=SHORT / 10)
    server = await play([hears, says(CHUNKED_HEAD), talks_on])
    answer = await client.send(server.upstream(timeouts=Timeouts(total=4 * SHORT, idle=3 * SHORT)), ASK)
    with pytest.raises(UpstreamTimedOut, match=r"did not end its answer within 0.2 s in all"):
        await body_of(answer)


async def test_an_upstream_that_takes_no_request_times_out(client: HttpClient, play: Play) -> None:
    server = await play([hears_the_head])
    endless = UpstreamRequest(path="/x", headers=HeaderLines(), body=b"x" * 100_000_000)
    with pytest.raises(UpstreamTimedOut, match="read no byte of the request"):
        await client.send(server.upstream(timeouts=Timeouts(idle=SHORT, first_byte=9)), endless)


async def test_a_pause_of_the_reader_is_not_the_upstream_being_idle(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    answer = await client.send(server.upstream(timeouts=Timeouts(idle=SHORT)), ASK)
    reading = asyncio.create_task(body_of(answer))
    answer.pause()
    assert not (await asyncio.wait([reading], timeout=4 * SHORT))[0]
    answer.resume()
    with pytest.raises(UpstreamTimedOut, match="sent nothing more"):
        await reading


async def test_the_total_time_binds_a_paused_reader_too(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"half")), sees_the_client_leave])
    # Long enough for the answer to begin on a busy machine.
    answer = await client.send(server.upstream(timeouts=Timeouts(total=1.0)), ASK)
    answer.pause()
    with pytest.raises(UpstreamTimedOut, match="in all"):
        await body_of(answer)
    await server.sees_the_client_gone()


async def test_the_time_to_the_first_byte_runs_from_the_end_of_the_request(client: HttpClient, play: Play) -> None:
    read_on = asyncio.Event()

    async def reads_late(peer: Peer) -> None:
        await read_on.wait()
        await hears(peer)

    server = await play([reads_late, says(plain(b"ok"))])
    # Long enough for a busy machine to read what is in the sockets' buffers.
    upstream = server.upstream(timeouts=Timeouts(first_byte=10 * SHORT))
    large = UpstreamRequest(path="/x", headers=HeaderLines(), body=b"x" * 30_000_000)
    sending = asyncio.create_task(client.send(upstream, large))
    assert not (await asyncio.wait([sending], timeout=14 * SHORT))[0]
    read_on.set()
    assert await body_of(await sending) == b"ok"


async def test_a_server_that_does_not_accept_is_unreachable(client: HttpClient) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        # Once its backlog is full, Linux drops what would be one more: the connector hears nothing.
        for _ in range(4):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(address)
            waiting.append(caller)
        upstream = Upstream("full", f"http://127.0.0.1:{address[1]}", timeouts=Timeouts(connect=SHORT))
        with pytest.raises(UpstreamUnreachable, match=r"'full' did not accept a connection within 0.05 s") as caught:
            await client.send(upstream, ASK)
        assert caught.value.outcome == "connect_timeout"
        for caller in waiting:
            caller.close()


async def test_one_that_hangs_holds_up_nobody_else(client: HttpClient, play: Play) -> None:
    never = asyncio.Event()
    hung = await play(*[[hears, waits_for(never)]] * 4)
    well = await play([hears, says(plain(b"ok"))])
    stuck = [asyncio.create_task(client.send(hung.upstream("hung", max_connections=2), ASK)) for _ in range(4)]
    assert await ask(client, well.upstream()) == (200, b"ok")
    for task in stuck:
        task.cancel()
    await asyncio.wait(stuck)
