from __future__ import annotations

import asyncio
import gzip
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.content_coding import SLICE_BYTES, CodingDamaged
from gateway.runtime.relay_queue import RelayQueue
from gateway.runtime.turn import Turn
from gateway.upstream.response_stream import (
    TURN_BYTES,
    Buffer,
    DecodingBuffer,
    PlainBuffer,
    ResponseStream,
    buffer_for,
)
from tests.unit.upstream.splitting import cuts, split
from tests.zstd_of_python import zstd


def decoding(how: str = "gzip") -> Buffer:
    buffer = buffer_for(how if how in ("br", "zstd") else "deflate" if "deflate" in how else "gzip")
    assert buffer is not None
    return buffer


def drained(buffer: Buffer) -> bytes:
    pieces = []
    while piece := buffer.get():
        pieces.append(piece)
    assert buffer.size == 0
    return b"".join(pieces)


def pack(text: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(text)
    if how == "gzip of two members":
        return gzip.compress(text[: len(text) // 2]) + gzip.compress(text[len(text) // 2 :])
    if how == "br":
        packed: bytes = brotli.compress(text)
        return packed
    if how == "zstd":
        return zstd.compress(text)
    return zlib.compress(text, wbits=15 if how == "deflate" else -15)


PACKINGS = ["gzip", "gzip of two members", "deflate", "bare deflate", "br", "zstd"]


@given(text=st.binary(max_size=400), how=st.sampled_from(PACKINGS), at=cuts)
def test_any_splitting_unpacks_to_the_same(text: bytes, how: str, at: list[int]) -> None:
    buffer = decoding(how)
    unpacked = b""
    for piece in split(pack(text, how), at):
        buffer.put(piece)
        unpacked += drained(buffer)
    buffer.check_whole()
    assert unpacked == text


@given(text=st.binary(min_size=1, max_size=400), how=st.sampled_from(PACKINGS), data=st.data())
def test_what_is_cut_is_never_whole(text: bytes, how: str, data: st.DataObject) -> None:
    packed = pack(text, how)
    buffer = decoding(how)
    buffer.put(packed[: data.draw(st.integers(1, len(packed) - 1))])
    unpacked = drained(buffer)
    assert text.startswith(unpacked)
    # Between two members the first is whole, and what is missing cannot be told.
    if how != "gzip of two members":
        with pytest.raises(CodingDamaged):
            buffer.check_whole()


@pytest.mark.parametrize("how", ["gzip", "br", "zstd"])
def test_no_piece_is_larger_than_its_bound_however_much_is_packed(how: str) -> None:
    buffer = decoding(how)
    buffer.put(pack(bytes(10 * SLICE_BYTES), how))
    sizes = [len(piece) for piece in iter(buffer.get, b"")]
    assert max(sizes) <= SLICE_BYTES
    assert sum(sizes) == 10 * SLICE_BYTES
    buffer.check_whole()


@pytest.mark.parametrize("size", [SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 2 * SLICE_BYTES])
def test_sizes_about_the_bound_unpack_whole(size: int) -> None:
    buffer = decoding()
    buffer.put(gzip.compress(b"x" * size))
    assert len(drained(buffer)) == size
    buffer.check_whole()


def test_what_is_inside_comes_out_though_all_input_is_taken() -> None:
    packed = gzip.compress(b'data: {"index":1}\n\n' * 8_000)
    for cut in range(150, 300):
        buffer = decoding()
        buffer.put(packed[:cut])
        assert drained(buffer) == zlib.decompressobj(31).decompress(packed[:cut])


@given(st.binary(min_size=1, max_size=100))
def test_any_bytes_unpack_or_are_undecodable(junk: bytes) -> None:
    buffer = decoding()
    buffer.put(junk)
    try:
        drained(buffer)
        buffer.check_whole()
    except CodingDamaged:
        pass


def test_what_is_gzip_or_zlib_is_read_by_either_name() -> None:
    for name, packed in (("deflate", gzip.compress(b"text")), ("gzip", zlib.compress(b"text"))):
        buffer = buffer_for(name)
        assert buffer is not None
        buffer.put(packed)
        assert drained(buffer) == b"text"
        buffer.check_whole()


def test_an_empty_body_is_whole_whatever_its_encoding() -> None:
    decoding().check_whole()


def test_plain_pieces_come_back_as_they_were() -> None:
    buffer = PlainBuffer()
    buffer.put(b"one")
    buffer.put(b"two")
    assert buffer.size == 6
    assert [buffer.get(), buffer.get(), buffer.get()] == [b"one", b"two", b""]
    assert buffer.size == 0


@pytest.mark.parametrize(
    ("encoding", "kind"),
    [
        ("", PlainBuffer),
        ("identity", PlainBuffer),
        ("gzip", DecodingBuffer),
        ("x-gzip", DecodingBuffer),
        ("deflate", DecodingBuffer),
        ("br", DecodingBuffer),
        ("zstd", DecodingBuffer),
        ("GZIP , br", DecodingBuffer),
    ],
)
def test_each_known_encoding_has_its_buffer(encoding: str, kind: type) -> None:
    assert type(buffer_for(encoding)) is kind


@pytest.mark.parametrize("encoding", ["compress", "foo", "gzip, foo"])
def test_an_unknown_encoding_has_none(encoding: str) -> None:
    assert buffer_for(encoding) is None


class HeldConnection:
    """A connection whose reading is paused and resumed."""

    reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def passed_on(self, cost_s: float) -> None:
        """Nothing else waits."""

    def abort(self) -> None:
        self.reads = False


async def packed_response(body: bytes) -> tuple[ResponseStream, HeldConnection, list[int]]:
    """A compressed answer that has come in one read, and what its reader was given of it, by turns of the loop."""
    connection, given = HeldConnection(), [0]
    response = ResponseStream("up1", connection, RelayQueue(Turn()))  # type: ignore[arg-type]  # Paused and resumed.

    def take(piece: bytes) -> None:
        given[-1] += len(piece)

    response.head(200, {"content-encoding": "gzip"}, 1.0)
    response.deliver_to(take)
    response.feed(gzip.compress(body))
    response.complete()
    return response, connection, given


async def test_others_run_between_two_parts_of_what_a_bomb_becomes() -> None:
    response, _, given = await packed_response(bytes(5_000_000))
    while not response.is_over:
        given.append(0)
        await asyncio.sleep(0)
    await response.finished()
    assert sum(given) == 5_000_000
    assert max(given) <= TURN_BYTES
    assert len(given) > 5_000_000 // TURN_BYTES


async def test_a_reader_that_pauses_or_leaves_between_two_parts_gets_no_more() -> None:
    response, _, given = await packed_response(bytes(5_000_000))
    response.pause()
    taken = sum(given)
    for _ in range(3):
        await asyncio.sleep(0)
    assert sum(given) == taken
    response.resume()
    while sum(given) == taken:
        await asyncio.sleep(0)
    response.abandon()
    assert response.is_over
    taken = sum(given)
    for _ in range(3):
        await asyncio.sleep(0)
    assert sum(given) == taken


def response_with(*pieces: bytes, **headers: str) -> ResponseStream:
    response = ResponseStream("up1", HeldConnection(), RelayQueue(Turn()))  # type: ignore[arg-type]  # Paused and resumed.
    response.head(200, {name.replace("_", "-"): value for name, value in headers.items()}, 1.0)
    for piece in pieces:
        response.feed(piece)
    return response


@pytest.mark.parametrize("pieces", [(b'{"a":1}',), (b'{"a"', b":1}"), ()])
async def test_a_short_answer_that_has_come_whole_is_available_and_over(pieces: tuple[bytes, ...]) -> None:
    response = response_with(*pieces)
    response.complete()
    assert (response.available(), response.is_over) == (b"".join(pieces), True)
    response.end()
    late: list[bytes] = []
    response.deliver_to(late.append)
    assert late == []


async def test_what_is_still_to_come_or_to_be_decoded_is_long_or_broke_is_not_available() -> None:
    coming = response_with(b"{")
    packed, long, broken = (
        response_with(gzip.compress(b"{}"), content_encoding="gzip"),
        response_with(),
        response_with(),
    )
    long.feed(bytes(TURN_BYTES + 1))
    packed.complete()
    long.complete()
    broken.fail_with(ValueError("it broke"))
    assert [each.available() for each in (coming, packed, long, broken)] == [None] * 4
    received: list[bytes] = []
    coming.deliver_to(received.append)
    packed.deliver_to(received.append)
    assert received == [b"{", b"{}"]
