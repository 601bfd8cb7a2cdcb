from __future__ import annotations

import gc
import weakref
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.framing import BODILESS_BYTES, BodyPieces, Framing
from tests.unit.upstream.splitting import cuts, split

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKS = HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx-trailer: 1\r\n\r\n"
LENGTH = HEAD + b"content-length: 11\r\n\r\nhello world"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


class FramingThatIsWatched(Framing):
    """It can be asked whether it is still there."""


def read(stream: bytes, at: list[int]) -> tuple[Framing, bytes]:
    framing = Framing(BodyPieces())
    return framing, b"".join(framing.feed(piece) for piece in split(stream, at))


@given(at=cuts, stream=st.sampled_from([CHUNKS, LENGTH, INTERIM + CHUNKS, INTERIM * 3 + LENGTH]))
def test_any_splitting_reads_the_same(at: list[int], stream: bytes) -> None:
    framing, body = read(stream, at)
    assert body == b"hello world"
    assert (framing.status, framing.complete, framing.keeps_alive, framing.fault) == (200, True, True, "")
    assert framing.headers["content-type"] == "text/event-stream"
    assert "link" not in framing.headers


@given(at=cuts, stream=st.sampled_from([CHUNKS, LENGTH]), data=st.data())
def test_what_is_cut_is_never_complete(at: list[int], stream: bytes, data: st.DataObject) -> None:
    framing, body = read(stream[: data.draw(st.integers(0, len(stream) - 1))], at)
    assert not framing.complete
    assert not framing.close()
    assert b"hello world".startswith(body)


@given(at=cuts, rest=st.binary(min_size=1, max_size=40), stream=st.sampled_from([CHUNKS, LENGTH]))
def test_bytes_after_the_end_are_no_body_and_spoil_the_connection(at: list[int], rest: bytes, stream: bytes) -> None:
    framing, body = Framing(BodyPieces()), b""
    for piece in split(stream + rest, at):
        # Once the answer is complete, the connection feeds no more of what it reads.
        body += framing.feed(piece) if not framing.complete else b""
    assert body == b"hello world"
    assert framing.complete
    assert framing.fault == ""


def test_what_is_let_go_needs_no_search_for_garbage() -> None:
    framing = FramingThatIsWatched(BodyPieces())
    framing.feed(CHUNKS)
    held = weakref.ref(framing)
    gc.collect()
    gc.disable()
    try:
        framing.let_go()
        del framing
        assert held() is None
    finally:
        gc.enable()


@given(at=cuts, other_at=cuts)
def test_framings_that_share_their_pieces_read_their_own_bodies(at: list[int], other_at: list[int]) -> None:
    pieces = BodyPieces()
    framing, other = Framing(pieces), Framing(pieces)
    body = other_body = b""
    for piece, other_piece in zip_longest(split(CHUNKS, at), split(LENGTH.upper(), other_at), fillvalue=b""):
        body += framing.feed(piece)
        other_body += other.feed(other_piece)
    assert (body, other_body) == (b"hello world", b"HELLO WORLD")


def test_pieces_of_bytes_that_could_not_be_read_get_into_no_other_body() -> None:
    pieces = BodyPieces()
    pieces.put(b"of another")
    with pytest.raises(TypeError):
        Framing(pieces).feed("no bytes")  # type: ignore[arg-type]
    assert Framing(pieces).feed(LENGTH) == b"hello world"


def test_an_answer_glued_to_the_end_spoils_the_connection() -> None:
    framing, body = read(LENGTH + LENGTH, [])
    assert (body, framing.complete, framing.keeps_alive) == (b"hello world", True, False)


def test_one_answer_after_another_is_read() -> None:
    framing = Framing(BodyPieces())
    for stream in (CHUNKS, LENGTH, CHUNKS):
        framing.expect_response()
        assert framing.status == 0
        assert framing.feed(stream) == b"hello world"
        assert framing.keeps_alive


@pytest.mark.parametrize("trailer", [b"openai-organization: x", b"content-length: 3", b"content-encoding: gzip"])
@given(at=cuts)
def test_a_trailer_is_no_header_of_the_next_answer(trailer: bytes, at: list[int]) -> None:
    framing, _ = read(CHUNKS.replace(b"x-trailer: 1", trailer), at)
    if framing.complete and framing.keeps_alive:
        framing.expect_response()
        assert framing.feed(LENGTH) == b"hello world"
        assert framing.headers.keys() == {"content-type", "content-length"}


@pytest.mark.parametrize("trailer", [b"connection: close", b"transfer-encoding: gzip"])
@given(at=cuts)
def test_a_trailer_can_end_the_connection(trailer: bytes, at: list[int]) -> None:
    framing, body = read(CHUNKS.replace(b"x-trailer: 1", trailer), at)
    assert (body, framing.complete, framing.keeps_alive) == (b"hello world", True, False)


def test_an_answer_without_framing_ends_with_the_connection() -> None:
    framing, body = read(HEAD + b"\r\nhello", [])
    assert (body, framing.complete, framing.keeps_alive) == (b"hello", False, False)
    assert framing.close()


def test_a_closed_connection_ends_no_answer_that_never_began() -> None:
    assert not Framing(BodyPieces()).close()
    framing, _ = read(INTERIM, [])
    assert not framing.close()


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\n\r\n", True),
    ],
)
def test_a_connection_is_kept_as_its_head_says(head: bytes, keeps: bool) -> None:
    framing, body = read(head, [])
    assert (body, framing.complete, framing.keeps_alive) == (b"", True, keeps)


def test_of_repeated_headers_the_last_counts() -> None:
    framing, _ = read(b"HTTP/1.1 200 OK\r\nx-a: 1\r\nX-A: 2\r\ncontent-length: 0\r\n\r\n", [])
    assert framing.headers["x-a"] == "2"


@given(st.binary(min_size=1, max_size=60), cuts)
def test_no_bytes_raise(junk: bytes, at: list[int]) -> None:
    read(junk, at)
    read(CHUNKS[:90] + junk, at)


def test_bytes_without_a_body_are_not_taken_for_ever() -> None:
    framing = Framing(BodyPieces())
    framing.feed(HEAD + b"x: ")
    for _ in range(BODILESS_BYTES // 1_000 + 1):
        framing.feed(b"y" * 1_000)
    assert framing.fault == "its head is too large"


def test_a_long_stream_in_small_chunks_is_no_barren_one() -> None:
    framing = Framing(BodyPieces())
    framing.feed(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(BODILESS_BYTES // 2):
        framing.feed(b"1\r\n")
        assert framing.feed(b"x\r\n") == b"x"
    assert framing.fault == ""
