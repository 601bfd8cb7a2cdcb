"""A request's body comes compressed: it is decoded once the key is known, a slice at a time, within `max_body`."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest

from gateway.demo import DemoUpstream
from tests.raw_client import http_chat, http_head, raw_client
from tests.whole_gateway import KEY, chat_body, whole_gateway
from tests.zstd_of_python import zstd

PLAIN = json.dumps(chat_body(pad="x" * 700_000 + "ü")).encode()
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}
BOMB = gzip.compress(bytes(200_000_000))


@pytest.mark.parametrize("name", CODINGS)
async def test_a_body_in_any_coding_reaches_the_upstream_plain(name: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.post(CODINGS[name](PLAIN), headers={"content-encoding": name.upper()})
        assert reply.status == 200
        (asked,) = upstream.truth.requests
        assert asked.body == PLAIN
        assert asked.header("content-encoding") is None
        assert asked.header("content-length") == str(len(PLAIN))


async def test_several_codings_in_a_row_are_undone_last_one_first() -> None:
    packed = zstd.compress(brotli.compress(gzip.compress(PLAIN)))
    lines = b"content-encoding: gzip, identity\r\ncontent-encoding: br\r\nContent-Encoding: zstd\r\n"
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(packed).replace(b"host:", lines + b"host:", 1))
            assert (await client.answer()).status == 200
        assert upstream.truth.requests[0].body == PLAIN


@pytest.mark.parametrize("name", ["compress", "foo", "gzip, foo", "gzip, gzip, gzip, gzip, gzip"])
async def test_another_coding_is_a_415_that_names_those_that_are_decoded(name: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.post(PLAIN, headers={"content-encoding": name})
        assert (reply.status, reply.error["code"]) == (415, "unsupported_encoding")
        assert reply.headers["accept-encoding"] == "gzip, deflate, br, zstd"
        assert upstream.truth.total.requests == 0


@pytest.mark.parametrize("name", CODINGS)
async def test_a_damaged_coding_is_a_400(name: str) -> None:
    packed = CODINGS[name](PLAIN)
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        for body in (packed[:-3], packed + packed[:-3], b"no coding at all", b""):
            reply = await gateway.post(body, headers={"content-encoding": name})
            assert (reply.status, reply.error["code"]) == (400, "invalid_request")
        assert upstream.truth.total.requests == 0


async def test_what_decodes_to_too_much_is_a_413_and_others_run_meanwhile() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.ensure_future(count())
        reply = await gateway.post(BOMB, headers={"content-encoding": "gzip"})
        counting.cancel()
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        assert turns > 32 * 4
        # Between two codings, too, a body has a size: this one is small in the end.
        twice = gzip.compress(gzip.compress(bytes(30_000_000)) * 2)
        assert (await gateway.post(twice, headers={"content-encoding": "gzip, gzip"})).status == 413


async def test_a_refused_body_leaves_nothing_behind_for_a_search_for_garbage() -> None:
    """Those are rare: a body of a few hundred bytes, decoded to megabytes, must be free when its request is over."""
    not_json = b"{" + b"x" * 1_000_000
    sent = [
        (brotli.compress(bytes(50_000_000)), 413),
        (gzip.compress(not_json), 400),
        (zstd.compress(not_json)[:-1], 400),
    ]
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, max_body="2MiB") as gateway:
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for coding, (body, status) in zip(["br", "gzip", "zstd"] * 5, sent * 5, strict=True):
                reply = await gateway.post(body, headers={"content-encoding": coding})
                assert reply.status == status
                await gateway.ended()
            left = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()
        assert left < 3_000_000


@pytest.mark.parametrize("key", ["wrong", None])
@pytest.mark.parametrize("admin", [False, True])
async def test_nothing_is_decoded_for_a_stranger(key: str | None, admin: bool) -> None:
    given = {"host": "gateway", "content-encoding": "gzip", "content-length": str(len(BOMB))}
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    target = "/admin/v1/reload" if admin else "/v1/chat/completions"
    settings = {"listen": "127.0.0.1:0", "token": "token"}
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url, admin=settings) as gateway,
        raw_client(gateway.admin_port if admin else gateway.port) as client,
    ):
        tracemalloc.start()
        client.send(http_head(f"POST {target} HTTP/1.1", given) + BOMB[:100_000])
        reply = await client.answer()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert reply.status == 401
        assert reply.headers["connection"] == "close"
        assert peak < 2**20


@pytest.mark.parametrize(
    "head", [{"content-encoding": "foo"}, {"content-length": str(10**9)}, {"expect": "100-continue"}]
)
async def test_the_key_is_judged_before_anything_that_is_said_of_the_body(head: dict[str, str]) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            given = {"authorization": "Bearer wrong", "content-length": "50", **head}
            client.send(http_chat(b"", headers=given))
            assert (await client.answer()).status == 401
            assert await client.rest() == b""
        assert upstream.truth.total.requests == 0


async def test_a_stranger_that_sends_on_is_cut_off_and_reads_why() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            head = http_chat(b"", headers={"authorization": "Bearer wrong", "content-length": "9000000"})
            client.send(head + bytes(2_000_000))
            assert (await client.answer()).status == 401
            client.send(bytes(7_000_000) + http_chat(headers={"authorization": f"Bearer {KEY}"}))
            assert await client.rest() == b""
        assert upstream.truth.total.requests == 0
