from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.content_coding import (
    SLICE_BYTES,
    CodingDamaged,
    CodingUnknown,
    ContentDecoder,
    DecodedTooLarge,
    codings_of,
)
from tests.zstd_of_python import zstd


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
    ("zstd", zstd.compress),
]
ENCODED = pytest.mark.parametrize(("name", "encode"), ENCODERS)


def decoded(names: list[str], *pieces: bytes, max_bytes: int = 2**25) -> bytes:
    decoder = ContentDecoder(names, max_bytes)
    output: list[bytes] = []
    for piece in filter(None, pieces):
        assert decoder.needs_input
        decoder.feed(piece)
        while not decoder.needs_input:
            output.append(decoder.read())
            assert len(output[-1]) <= SLICE_BYTES
    decoder.end()
    return b"".join(output)


@given(st.binary(max_size=300), st.sampled_from([1, 3, 10**6]), st.lists(st.sampled_from(ENCODERS), max_size=4))
def test_what_was_encoded_is_decoded_however_it_is_cut(
    data: bytes, step: int, encoders: list[tuple[str, Callable[[bytes], bytes]]]
) -> None:
    packed = data
    for _, encode in encoders:
        packed = encode(packed)
    pieces = [packed[begin : begin + step] for begin in range(0, len(packed), step)]
    assert decoded([name for name, _ in encoders], *pieces) == data or not encoders


@ENCODED
def test_much_output_comes_in_slices(name: str, encode: Callable[[bytes], bytes]) -> None:
    data = b"ab" * 1_500_000
    assert decoded([name], encode(data)) == data


@pytest.mark.parametrize(("name", "encode"), [ENCODERS[0], ENCODERS[5]])
def test_several_frames_are_one_body(name: str, encode: Callable[[bytes], bytes]) -> None:
    assert decoded([name], encode(b"a") + encode(b"") + encode(b"b" * 600_000)) == b"a" + b"b" * 600_000


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_gzip_may_be_padded_with_zeros(step: int) -> None:
    packed = gzip.compress(b"one") + gzip.compress(b" two") + bytes(600)
    pieces = [packed[begin : begin + step] for begin in range(0, len(packed), step)]
    assert decoded(["gzip"], *pieces) == b"one two"
    with pytest.raises(CodingDamaged):
        decoded(["gzip"], packed + b"\0x")


@ENCODED
def test_a_body_that_ends_early_or_late_is_damaged(name: str, encode: Callable[[bytes], bytes]) -> None:
    packed = encode(b"some text " * 50)
    for body in (packed[:-1], packed[:5], packed + b"x", b"", b"\xff" * 40):
        with pytest.raises(CodingDamaged):
            decoded([name], body)
        with pytest.raises(CodingDamaged):
            decoded([name], *(body[place : place + 1] for place in range(len(body))))


@ENCODED
def test_a_bomb_is_given_up_at_the_size_that_is_allowed(name: str, encode: Callable[[bytes], bytes]) -> None:
    packed = encode(bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(DecodedTooLarge):
        decoded([name], packed, max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


EMPTY_FRAMES = [("gzip", gzip.compress(b"")), ("zstd", zstd.compress(b"")), ("zstd", b"\x50\x2a\x4d\x18" + bytes(4))]


@pytest.mark.parametrize(("name", "frame"), EMPTY_FRAMES, ids=["gzip", "zstd", "zstd, skippable"])
@pytest.mark.parametrize("step", [5, 50_000])
def test_a_body_of_very_many_tiny_frames_is_given_up(name: str, frame: bytes, step: int) -> None:
    few, many = frame * 1_000, frame * 4_000
    assert decoded([name], few) == b""
    with pytest.raises(CodingDamaged, match="very many tiny frames"):
        decoded([name], *[many[begin : begin + step] for begin in range(0, len(many), step)])


@pytest.mark.parametrize(("name", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_frames_of_some_length_may_be_as_many_as_they_like(name: str, encode: Callable[[bytes], bytes]) -> None:
    event = random.Random(1).randbytes(50)
    assert decoded([name], encode(event) * 5_000) == event * 5_000


def test_between_two_codings_a_body_has_a_size_too() -> None:
    stored_blocks = b"\x00\x00\x00\xff\xff" * 400_000
    empty = gzip.compress(b"")[:10] + stored_blocks + b"\x01\x00\x00\xff\xff" + bytes(8)
    assert decoded(["gzip"], empty) == b""
    with pytest.raises(DecodedTooLarge):
        decoded(["gzip", "gzip"], gzip.compress(empty), max_bytes=1_000_000)


def test_a_window_of_more_than_8_mib_is_refused() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    with pytest.raises(CodingDamaged):
        decoded(["zstd"], zstd.compress(b"abc" * 10_000_000, options=options), max_bytes=2**30)


ZSTD_MAGIC = bytes.fromhex("28b52ffd")


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        pytest.param("20 02 110000 6869", b"hi", id="the size that it says"),
        pytest.param("20 fa 010000", None, id="250 bytes announced, an empty block"),
        pytest.param("24 fa 010000 99e9d851", None, id="250 bytes announced, an empty block and a checksum"),
        pytest.param("20 01 110000 6869", None, id="one byte announced, two there"),
        pytest.param("40 88 0000 03 0800 61", None, id="a window of 128 MiB"),
        pytest.param("40 68 0000 03 0800 61", b"a" * 256, id="a window of 8 MiB"),
    ],
)
def test_a_frame_is_taken_or_refused_however_it_is_cut(rest: str, expected: bytes | None) -> None:
    packed = ZSTD_MAGIC + bytes.fromhex(rest)
    for step in range(1, len(packed) + 1):
        pieces = [packed[begin : begin + step] for begin in range(0, len(packed), step)]
        if expected is None:
            with pytest.raises(CodingDamaged):
                decoded(["zstd"], *pieces)
        else:
            assert decoded(["zstd"], *pieces) == expected, step


@given(st.binary(max_size=80), st.sampled_from(["gzip", "deflate", "br", "zstd"]))
def test_no_bytes_raise_anything_else(data: bytes, name: str) -> None:
    try:
        decoded([name], data)
    except CodingDamaged:
        return


@pytest.mark.parametrize("names", [["compress"], ["gzip", "x"], ["gzip"] * 5])
def test_a_coding_that_is_not_known_is_refused(names: list[str]) -> None:
    with pytest.raises(CodingUnknown):
        ContentDecoder(names, 1)


def test_the_names_are_read_as_a_list() -> None:
    assert codings_of(" GZIP ,, identity,br") == codings_of("GZIP\nbr") == ["gzip", "br"]
    assert codings_of("identity") == codings_of("") == []
