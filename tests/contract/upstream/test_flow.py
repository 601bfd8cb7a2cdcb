"""How an answer flows: decoded, whole however it is split, and never faster than it is taken."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from gateway.core.errors import UpstreamBroke
from gateway.upstream.client import HttpClient
from tests.contract.upstream.asking import ASK, CHUNKED_HEAD, LAST_CHUNK, ask, body_of, chunk, chunked, head, plain
from tests.contract.upstream.conftest import Play
from tests.contract.upstream.playbook import (
    hangs_up,
    hears,
    says,
    says_in,
    sees_the_client_leave,
    sets,
    waits_for,
)

EVENTS = b"".join(b'data: {"index":%d}\n\n' % number for number in range(40))
MUCH = bytes(50_000_000)


async def test_an_answer_sent_byte_by_byte_is_the_same(client: HttpClient, play: Play) -> None:
    stream = chunked(*EVENTS.splitlines(keepends=True))
    server = await play([hears, says_in(*(stream[i : i + 1] for i in range(len(stream)))), hears, says(stream)])
    assert await ask(client, server.upstream()) == (200, EVENTS)
    assert await ask(client, server.upstream()) == (200, EVENTS)
    assert server.connections == 1


async def test_a_paused_answer_takes_no_more_from_the_upstream(client: HttpClient, play: Play) -> None:
    said = asyncio.Event()
    server = await play([hears, says(head(b"content-length: %d" % len(MUCH))), says(MUCH), sets(said)])
    answer = await client.send(server.upstream(), ASK)
    sizes: list[int] = []
    answer.pause()
    answer.deliver_to(lambda piece: sizes.append(len(piece)))
    reading = asyncio.create_task(answer.finished())
    await asyncio.wait([reading], timeout=0.1)
    assert sizes == []
    assert not said.is_set()
    answer.resume()
    await reading
    assert sum(sizes) == len(MUCH)


async def test_a_reader_that_pauses_midway_gets_no_piece_until_it_resumes(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(head(b"content-length: %d" % len(MUCH))), says(MUCH)])
    answer = await client.send(server.upstream(), ASK)
    sizes: list[int] = []

    def take(piece: bytes) -> None:
        sizes.append(len(piece))
        if len(sizes) % 10 == 0:
            answer.pause()
            before = len(sizes)
            loop.call_later(0.001, resume, before)

    def resume(before: int) -> None:
        assert len(sizes) == before
        answer.resume()

    loop = asyncio.get_running_loop()
    answer.deliver_to(take)
    await answer.finished()
    assert sum(sizes) == len(MUCH)
    assert max(sizes) <= 65_536


async def test_an_answer_that_nobody_pours_is_not_taken_whole(client: HttpClient, play: Play) -> None:
    said = asyncio.Event()
    server = await play([hears, says(head(b"content-length: %d" % len(MUCH))), says(MUCH), sets(said)])
    answer = await client.send(server.upstream(), ASK)
    await asyncio.wait([asyncio.create_task(said.wait())], timeout=0.1)
    assert not said.is_set()
    assert await body_of(answer) == MUCH


async def test_what_is_held_is_handed_over_before_the_end_is_told(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(CHUNKED_HEAD + chunk(b"first")), says(chunk(b"last")), hangs_up])
    answer = await client.send(server.upstream(), ASK)
    answer.pause()
    pieces: list[bytes] = []
    answer.deliver_to(pieces.append)
    reading = asyncio.create_task(answer.finished())
    await asyncio.wait([reading], timeout=0.05)
    answer.resume()
    with pytest.raises(UpstreamBroke):
        await reading
    assert b"".join(pieces) == b"firstlast"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", gzip.compress(EVENTS)),
        (b"GZIP", gzip.compress(EVENTS[:50]) + gzip.compress(EVENTS[50:])),
        (b"deflate", zlib.compress(EVENTS)),
        (b"deflate", zlib.compress(EVENTS, wbits=-15)),
        (b"gzip\r\ncontent-encoding: deflate", zlib.compress(gzip.compress(EVENTS))),
        (b"gzip\r\nContent-Encoding: identity", gzip.compress(EVENTS)),
        (b"GZip, gzip\r\ncontent-encoding:", gzip.compress(gzip.compress(EVENTS))),
    ],
    ids=["gzip", "gzip of two members", "deflate", "bare deflate", "two lines", "a line of nothing", "three"],
)
async def test_a_packed_answer_is_unpacked(client: HttpClient, play: Play, encoding: bytes, packed: bytes) -> None:
    server = await play([hears, says(plain(packed, b"content-encoding: " + encoding)), hears, says(plain(b"next"))])
    answer = await client.send(server.upstream(), ASK)
    assert "content-encoding" not in answer.headers
    assert "content-length" not in answer.headers
    assert await body_of(answer) == EVENTS
    assert await ask(client, server.upstream()) == (200, b"next")
    assert server.connections == 1


async def test_a_packed_stream_is_unpacked_as_it_comes(client: HttpClient, play: Play) -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(b"data: 2\n\n") + packer.flush()
    came, go = asyncio.Event(), asyncio.Event()
    begun = head(b"transfer-encoding: chunked", b"content-encoding: gzip") + chunk(first)
    server = await play([hears, says(begun), waits_for(go), says(chunk(rest) + LAST_CHUNK)])
    answer = await client.send(server.upstream(), ASK)
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        came.set()

    answer.deliver_to(take)
    await came.wait()
    assert pieces == [b"data: 1\n\n"]
    go.set()
    await answer.finished()
    assert pieces == [b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(EVENTS)[:-9], b"not packed at all", gzip.compress(EVENTS) + b"tail", gzip.compress(EVENTS)[:12]],
    ids=["cut", "not packed", "tail", "head only"],
)
async def test_what_cannot_be_unpacked_breaks_the_answer(client: HttpClient, play: Play, packed: bytes) -> None:
    server = await play([hears, says(plain(packed, b"content-encoding: gzip"))])
    answer = await client.send(server.upstream(), ASK)
    with pytest.raises(UpstreamBroke, match="'inducta' sent an answer that cannot be decoded"):
        await body_of(answer)


async def test_an_encoding_unknown_here_is_passed_on_as_it_is(client: HttpClient, play: Play) -> None:
    server = await play([hears, says(plain(b"\x0b\x02\x80ok\x03", b"content-encoding: compress"))])
    answer = await client.send(server.upstream(), ASK)
    assert answer.headers["content-encoding"] == "compress"
    assert await body_of(answer) == b"\x0b\x02\x80ok\x03"


async def test_a_small_answer_that_unpacks_to_much_is_taken_in_small_pieces(client: HttpClient, play: Play) -> None:
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)
    server = await play([hears, says(plain(bomb, b"content-encoding: gzip"))])
    answer = await client.send(server.upstream(), ASK)
    taken, largest = 0, 0

    def take(piece: bytes) -> None:
        nonlocal taken, largest
        taken, largest = taken + len(piece), max(largest, len(piece))
        if taken > 10_000_000:
            answer.pause()

    answer.deliver_to(take)
    reading = asyncio.create_task(answer.finished())
    await asyncio.wait([reading], timeout=0.05)
    assert largest <= 65_536
    assert taken <= 10_000_000 + largest
    answer.abandon()
    with pytest.raises(UpstreamBroke):
        await reading


async def test_a_packed_answer_that_broke_closes_the_connection(client: HttpClient, play: Play) -> None:
    begun = head(b"transfer-encoding: chunked", b"content-encoding: gzip") + chunk(b"not packed")
    server = await play([hears, says(begun), sees_the_client_leave])
    answer = await client.send(server.upstream(), ASK)
    with pytest.raises(UpstreamBroke):
        await body_of(answer)
    await server.sees_the_client_gone()
