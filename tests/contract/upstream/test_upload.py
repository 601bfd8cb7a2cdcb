"""A request of which only the beginning is at hand: sent piece by piece, at the pace of who is slower."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest

from gateway.core.errors import RequestMalformed, TooLarge, UpstreamTimedOut, UpstreamUnreachable
from gateway.core.header_rules import HeaderLines
from gateway.core.snapshot import Timeouts, Upstream
from gateway.upstream.client import HttpClient
from gateway.upstream.contract import UpstreamRequest
from tests.contract.upstream.asking import ask, body_of, chunk, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    Peer,
    Step,
    hangs_up,
    hears,
    hears_the_head,
    says,
    sees_the_client_leave,
    sets,
    waits_for,
)

PIECE = b"p" * 50_000
OK = plain(b"heard")


class Pieces:
    """What follows the beginning of a request: these pieces, and at their end silence or a failure."""

    def __init__(
        self,
        *pieces: bytes,
        known: bool = True,
        failure: Exception | None = None,
        hangs: bool = False,
        pause_s: float = 0.0,
    ) -> None:
        self.length = sum(map(len, pieces)) if known else None
        self.taken = False
        self.has_come = False
        self.asked = 0
        self.first_asked_at = 0.0
        self.gone = asyncio.Event()
        self._pause_s = pause_s
        self._left = self._through(pieces, failure, hangs)

    async def piece(self) -> bytes:
        self.first_asked_at = self.first_asked_at or monotonic()
        self.taken = True
        self.asked += 1
        return await anext(self._left, b"")

    async def _through(self, pieces: tuple[bytes, ...], failure: Exception | None, hangs: bool) -> AsyncIterator[bytes]:
        try:
            for piece in pieces:
                await asyncio.sleep(self._pause_s)
                yield piece
            if hangs:
                await asyncio.Event().wait()
        finally:
            self.gone.set()
        if failure is not None:
            raise failure


def uploading(rest: Pieces, beginning: bytes = b"begun ") -> UpstreamRequest:
    return UpstreamRequest(
        "/audio/transcriptions", HeaderLines(("content-type",), ("multipart/form-data",)), beginning, rest=rest
    )


def hears_so_much(size: int, into: list[bytes]) -> Step:
    async def step(peer: Peer) -> None:
        into.append(await peer.reader.readexactly(size))

    return step


async def test_beginning_and_rest_arrive_as_one_body_of_the_length_that_was_told(
    client: HttpClient, play: Play
) -> None:
    server = await play([hears, says(OK), hears, says(OK)])
    for _ in range(2):
        assert await ask(client, server.upstream(), uploading(Pieces(PIECE, b"-", PIECE))) == (200, b"heard")
    assert server.connections == 1
    for heard in server.requests:
        assert heard.body == b"begun " + PIECE + b"-" + PIECE
        assert heard.header("content-length") == "100007"
        assert heard.header("transfer-encoding") is None


@pytest.mark.parametrize("beginning", [b"begun ", b""])
async def test_a_body_of_unknown_length_goes_out_in_chunks(client: HttpClient, play: Play, beginning: bytes) -> None:
    said: list[bytes] = []
    expected = (chunk(beginning) if beginning else b"") + chunk(PIECE) + chunk(b"-") + b"0\r\n\r\n"
    server = await play([hears_the_head, hears_so_much(len(expected), said), says(OK), hears, says(OK)])
    rest = Pieces(PIECE, b"-", known=False)
    assert await ask(client, server.upstream(), uploading(rest, beginning)) == (200, b"heard")
    assert said == [expected]
    assert await ask(client, server.upstream(), uploading(Pieces(b""))) == (200, b"heard")
    assert server.connections == 1


async def test_no_more_is_taken_than_the_upstream_takes(client: HttpClient, play: Play) -> None:
    goes_on = asyncio.Event()
    server = await play([hears_the_head, waits_for(goes_on), sees_the_client_leave])
    rest = Pieces(*[PIECE] * 1_000)
    sending = asyncio.create_task(client.send(server.upstream(), uploading(rest)))
    stopped_at = await stalled(rest, sending)
    assert 0 < stopped_at < 400  # What two sockets hold of 1,000 pieces.
    goes_on.set()
    async with asyncio.timeout(10):
        while rest.asked == stopped_at:
            await asyncio.wait([sending], timeout=0.01)
    sending.cancel()
    await server.sees_the_client_gone()


async def stalled(rest: Pieces, sending: asyncio.Task[Any]) -> int:
    """How many pieces were asked for when no more are for a while."""
    async with asyncio.timeout(10):
        asked = 0
        while rest.asked == 0 or rest.asked > asked:
            asked = rest.asked
            await asyncio.wait([sending], timeout=0.1)
    return asked


async def test_an_answer_before_the_end_is_handed_over_and_ends_the_sending(client: HttpClient, play: Play) -> None:
    refusal = plain(b"too much", status=b"413 Content Too Large")
    server = await play([hears_the_head, says(refusal), sees_the_client_leave], [hears, says(OK)])
    rest = Pieces(PIECE, hangs=True)
    answer = await client.send(server.upstream(), uploading(rest))
    assert (answer.status, await body_of(answer)) == (413, b"too much")
    await asyncio.wait_for(rest.gone.wait(), 2)
    await server.sees_the_client_gone()  # After half a request the connection serves no other.
    assert await ask(client, server.upstream(), uploading(Pieces(b"."))) == (200, b"heard")
    assert server.connections == 2


async def test_an_answer_that_begins_early_is_read_to_its_end(client: HttpClient, play: Play) -> None:
    ends = asyncio.Event()
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"
    server = await play([hears_the_head, says(begun), waits_for(ends), says(b"world"), sees_the_client_leave])
    answer = await client.send(server.upstream(), uploading(Pieces(PIECE, hangs=True)))
    ends.set()
    assert await body_of(answer) == b"helloworld"
    await server.sees_the_client_gone()


@pytest.mark.parametrize("failure", [TooLarge("Too large."), ValueError("a defect")])
async def test_what_ends_the_source_ends_the_request(client: HttpClient, play: Play, failure: Exception) -> None:
    server = await play([sees_the_client_leave])
    with pytest.raises(type(failure)):
        await client.send(server.upstream(), uploading(Pieces(PIECE, failure=failure)))
    await server.sees_the_client_gone()


async def test_who_is_cancelled_takes_no_more_and_closes_the_connection(client: HttpClient, play: Play) -> None:
    heard = asyncio.Event()
    server = await play([hears_the_head, sets(heard), sees_the_client_leave])
    rest = Pieces(PIECE, hangs=True)
    sending = asyncio.create_task(client.send(server.upstream(), uploading(rest)))
    await heard.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await server.sees_the_client_gone()
    await asyncio.wait_for(rest.gone.wait(), 2)


async def test_an_upstream_that_hangs_up_midway_is_unreachable(client: HttpClient, play: Play) -> None:
    server = await play([hears_the_head, hangs_up])
    with pytest.raises(UpstreamUnreachable):
        await client.send(server.upstream(), uploading(Pieces(PIECE, hangs=True)))


async def test_a_silent_source_gives_its_connection_back_and_is_not_held_against_the_upstream(
    client: HttpClient, play: Play
) -> None:
    server = await play([sees_the_client_leave], [hears, says(OK)])
    upstream = server.upstream(timeouts=Timeouts(idle=0.3), max_connections=1)
    silent = asyncio.create_task(client.send(upstream, uploading(Pieces(PIECE, hangs=True))))
    await asyncio.sleep(0)
    assert await ask(client, upstream, uploading(Pieces(PIECE))) == (200, b"heard")
    with pytest.raises(RequestMalformed, match=r"No more of the body arrived for 0\.3 seconds"):
        await silent
    await server.sees_the_client_gone()


async def test_a_slow_source_has_the_idle_time_for_each_piece(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK)])
    upstream = server.upstream(timeouts=Timeouts(idle=0.2, first_byte=5))
    slow = Pieces(*[b"."] * 20, pause_s=0.02)
    assert await ask(client, upstream, uploading(slow)) == (200, b"heard")


async def test_an_upstream_that_takes_nothing_is_given_up(client: HttpClient, play: Play) -> None:
    server = await play([waits_for(asyncio.Event())])
    impatient = Timeouts(idle=0.1)
    with pytest.raises(UpstreamTimedOut, match="read no byte of the request"):
        await client.send(server.upstream(timeouts=impatient), uploading(Pieces(*[PIECE] * 1_000)))


async def test_an_upstream_that_took_all_and_says_nothing_is_given_up(client: HttpClient, play: Play) -> None:
    server = await play([hears, sees_the_client_leave])
    with pytest.raises(UpstreamTimedOut, match="sent no byte of an answer"):
        await client.send(server.upstream(timeouts=Timeouts(first_byte=0.05)), uploading(Pieces(PIECE)))


async def test_a_refused_connection_takes_nothing_of_the_source(client: HttpClient) -> None:
    rest = Pieces(PIECE)
    with pytest.raises(UpstreamUnreachable):
        await client.send(Upstream("gone", "http://127.0.0.1:9/v1"), uploading(rest))
    assert not rest.taken


async def test_a_request_of_which_a_piece_was_taken_is_not_sent_twice(client: HttpClient, play: Play) -> None:
    """A used connection may have been closed while it was idle, which only the next request on it notices."""
    server = await play([hears, says(OK), hears_the_head, hangs_up], [hears, says(OK)])
    assert await ask(client, server.upstream(), uploading(Pieces(b"."))) == (200, b"heard")
    with pytest.raises(UpstreamUnreachable):
        await client.send(server.upstream(), uploading(Pieces(PIECE, hangs=True)))
    assert server.connections == 1
    assert await ask(client, server.upstream(), uploading(Pieces(b"."))) == (200, b"heard")


async def test_the_time_of_an_upload_is_not_the_gateways(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(OK)])
    began, rest = monotonic(), Pieces(*[b"."] * 100)
    answer = await client.send(server.upstream(), uploading(rest))
    assert began <= answer.sent_at <= rest.first_asked_at < answer.first_byte_at
