"""A request that cannot be served as it stands: each gets the error that names what to mend, and harms nobody."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from gateway.demo import DemoUpstream
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import KEY, MODEL, WholeGateway, chat_body, key_settings, whole_gateway

MESSAGES = '"messages":[{"role":"user","content":"Say hello."}]'
BEARER = {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("place", ["before", "inside"])
async def test_nesting_of_any_depth_is_answered(place: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        replies = [await gateway.post(_nested(depth, place)) for depth in (10, *range(900, 1100, 3), 10_000, 400_000)]
        assert {reply.status for reply in replies} == {200, 400}
        assert replies[-1].error["code"] == "invalid_json"
        assert "deep" in replies[-1].error["message"]


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, max_body="2KiB") as gateway:
        body = json.dumps(chat_body(pad="x" * 3000)).encode()
        async with raw_client(gateway.port) as client:
            client.send(http_chat(body))
            await _assert_too_large(client)
            client.send(_chunked([body]))
            await _assert_too_large(client)
            client.send(http_chat())
            assert (await client.answer()).status == 200
        exact = json.dumps(chat_body(pad="")).encode()
        fitting = json.dumps(chat_body(pad="x" * (2048 - len(exact)))).encode()
        assert (await gateway.post(fitting)).status == 200
        assert (await gateway.post(fitting + b" ")).status == 413


async def test_a_refusal_of_a_large_body_does_not_wait_for_it() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, max_body="2KiB") as gateway:
        async with raw_client(gateway.port) as client:
            client.send(http_chat(b"", headers={"content-length": str(10**9), "expect": "100-continue"}))
            await _assert_too_large(client)
        async with raw_client(gateway.port) as client:
            client.send(http_chat(b"", headers={"content-length": str(10**30)}))
            assert (await client.answer()).status in (400, 413)


async def test_a_compressed_body_counts_by_what_it_unpacks_to() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, max_body="64KiB") as gateway:
        plain = json.dumps(chat_body(pad="x" * 10_000)).encode()
        packed = {"content-encoding": "gzip"}
        reply = await gateway.post(gzip.compress(plain), headers=packed)
        assert reply.status == 200
        assert upstream.truth.requests[0].body == plain
        assert upstream.truth.requests[0].header("content-encoding") is None

        bomb = gzip.compress(b'{"pad":"' + b"x" * 20_000_000)
        assert len(bomb) < 64 * 1024
        assert (await gateway.post(bomb, headers=packed)).status == 413
        broken = await gateway.post(b"this is no gzip", headers=packed)
        assert (broken.status, broken.error["type"]) == (400, "invalid_request_error")
        assert (await gateway.post(gzip.compress(plain)[:-20], headers=packed)).status == 400
        assert (await gateway.chat()).status == 200


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        head, _, body = http_chat(headers={"expect": "100-continue"}).partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert (await client.head())[0] == 100
        client.send(body)
        assert (await client.answer()).status == 200


async def test_a_client_that_waits_for_leave_learns_of_a_bad_key_at_once() -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        given = http_chat(headers={"expect": "100-continue", "authorization": "Bearer wrong"})
        client.send(given.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await client.answer()).status == 401


async def test_an_unknown_model_and_a_forbidden_one_get_the_same_answer() -> None:
    models = {"openai/gpt-oss-120b": {"routes": [{"upstream": "up1"}]}, "secret": {"routes": [{"upstream": "up1"}]}}
    team = {"models": ["openai/*"], "keys": [key_settings()]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, models=models, team=team) as gateway:
        forbidden, unknown = await gateway.chat(model="secret"), await gateway.chat(model="absent")
        assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (404, "model_not_found", "model")
        assert unknown.error["type"] == "invalid_request_error"
        assert forbidden.status == 404
        assert forbidden.body.replace(b"secret", b"absent") == unknown.body
        listed = await gateway.request("GET", "/v1/models", headers=BEARER)
        assert [row["id"] for row in listed.json["data"]] == [MODEL]
        assert (await gateway.request("GET", "/v1/models/secret", headers=BEARER)).status == 404
        assert upstream.truth.total.requests == 0
        told = [(line["asked_model"], line["refused_because"]) for line in gateway.lines if "asked_model" in line]
        assert told[:2] == [("secret", "model_forbidden"), ("absent", "model_unknown")]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-DEF_1.2", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ("ümlaut", False),
        ("a;b", False),
    ],
)
async def test_a_request_id_of_the_client_is_kept_if_it_is_harmless(given: str, kept: bool) -> None:
    async with (
        DemoUpstream() as upstream,
        whole_gateway(upstream.base_url) as gateway,
        raw_client(gateway.port) as client,
    ):
        client.send(http_chat(headers={"x-request-id": given}))
        shown = (await client.answer()).headers["x-request-id"]
        assert (shown == given) is kept
        assert upstream.truth.requests[0].header("x-request-id") == shown
        assert gateway.lines[-1]["request_id"] == shown


async def _assert_too_large(client: Any) -> None:
    reply = await client.answer()
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert reply.error["type"] == "invalid_request_error"
    assert "2,048 bytes" in reply.error["message"]


def _nested(depth: int, place: str) -> bytes:
    nest = "[" * depth + "]" * depth
    before, inside = (nest, "0") if place == "before" else ("0", nest)
    message = f'{{"role":"user","content":"x","deep":{inside}}}'
    return f'{{"deep":{before},"model":"{MODEL}","messages":[{message}]}}'.encode()


def _chunked(pieces: list[bytes]) -> bytes:
    head = http_chat(b"", headers={"transfer-encoding": "chunked"}).replace(b"content-length: 0\r\n", b"")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def test_every_answer_names_its_request_and_its_type() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        replies = [await gateway.chat(), await gateway.chat(model="absent"), await gateway.request("GET", "/nowhere")]
        ids = {reply.headers["x-request-id"] for reply in replies}
        assert len(ids) == 3
        assert {reply.headers["content-type"] for reply in replies} == {"application/json"}
        assert [line["request_id"] for line in gateway.lines] == [reply.headers["x-request-id"] for reply in replies]
        await _assert_metrics_stay_bounded(gateway)


async def _assert_metrics_stay_bounded(gateway: WholeGateway) -> None:
    before = (await gateway.metrics()).count("\n")
    for number in range(50):
        await gateway.chat(model=f"junk-{number}")
        await gateway.request("GET", f"/junk/{number}")
    assert (await gateway.metrics()).count("\n") <= before
