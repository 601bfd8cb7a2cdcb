"""The listener asks for a key: who has none, or one that is not good, gets a 401 that says so, and nothing else."""

from __future__ import annotations

from hashlib import sha256

import pytest

from gateway.core.endpoints import FORWARDED, Endpoint
from gateway.demo import DemoUpstream
from tests.apis import SmallestRequest
from tests.contract.store.keepers import FalseClock
from tests.raw_client import http_chat, raw_client
from tests.whole_gateway import KEY, key_settings, whole_gateway

OTHER = "gw_another00000000000000000000000000000000000"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer "}, "invalid_api_key"),
        ({"authorization": "Bearer"}, "invalid_api_key"),
        ({"authorization": f"Basic {KEY}"}, "invalid_api_key"),
        ({"authorization": KEY}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEY.lower()}"}, "invalid_api_key"),
        ({"authorization": "Bearer \udcff\udcfe"}, "invalid_api_key"),
        ({"authorization": "Bearer ключ"}, "invalid_api_key"),
        ({"x-api-key": "nonsense"}, "invalid_api_key"),
        ({"x-api-key": ""}, "missing_api_key"),
        ({"api-key": "nonsense"}, "invalid_api_key"),
    ],
)
async def test_a_key_that_is_not_good_is_refused_with_its_code(headers: dict[str, str], code: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            given = http_chat(headers=headers) if "authorization" in headers else _without_key(headers)
            client.send(given)
            reply = await client.answer()
            assert reply.status == 401
            assert reply.error["code"] == code
            assert reply.error["type"] == "invalid_request_error"
            assert reply.error["param"] is None
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.headers["x-request-id"]

            client.send(http_chat())
            assert (await client.answer()).status == 200
        assert upstream.truth.total.requests == 1
        assert [line["status"] for line in gateway.lines] == [401, 200]


@pytest.mark.parametrize(
    "lines", [f"authorization: Bearer {OTHER}", f"Authorization: bearer {OTHER}", f"x-api-key: {OTHER}", "api-key: x"]
)
async def test_a_second_key_that_differs_is_refused(lines: str) -> None:
    team = {"keys": [key_settings(), key_settings("other", OTHER)]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        async with raw_client(gateway.port) as client:
            for sent in (
                http_chat().replace(b"host:", lines.encode() + b"\r\nhost:", 1),
                http_chat().replace(b"content-type:", lines.encode() + b"\r\ncontent-type:", 1),
            ):
                client.send(sent)
                reply = await client.answer()
                assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
                assert "differ" in reply.error["message"]
        assert upstream.truth.total.requests == 0


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "X-Api-Key", "x-goog-api-key"])
async def test_a_key_may_come_in_the_headers_of_azure_and_anthropic(name: str) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        async with raw_client(gateway.port) as client:
            client.send(_without_key({name: KEY}))
            assert (await client.answer()).status == 200
        assert KEY not in str(upstream.truth.as_json())


@pytest.mark.parametrize("endpoint", FORWARDED, ids=lambda endpoint: endpoint.name)
async def test_no_endpoint_is_served_without_a_key(endpoint: Endpoint) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        asked = SmallestRequest.of(endpoint)
        headers = {"content-type": asked.content_type}
        reply = await gateway.request(endpoint.method, asked.path, data=asked.body, headers=headers)
        assert reply.status == 401
        assert not upstream.truth.requests


async def test_a_key_works_until_the_moment_of_its_expiry() -> None:
    clock = FalseClock()
    team = {"keys": [key_settings(expires="2026-11-05T12:00:01Z")]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team, clock=clock) as gateway:
        clock.at_ms += 999
        assert (await gateway.chat()).status == 200
        clock.at_ms += 1
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (401, "expired_api_key")
        assert "search-test" in reply.error["message"]


async def test_a_disabled_key_looks_like_an_unknown_one() -> None:
    team = {"keys": [key_settings(disabled=True), key_settings("other", OTHER)]}
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team=team) as gateway:
        disabled, unknown = await gateway.chat(), await gateway.chat(key="nobody's")
        assert disabled.status == unknown.status == 401
        assert disabled.body == unknown.body
        assert (await gateway.chat(key=OTHER)).status == 200


async def test_no_key_stands_in_the_log_whether_it_is_good_or_not() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        await gateway.chat()
        await gateway.chat(key="gw_mistyped")
        assert KEY not in str(gateway.lines)
        assert "gw_mistyped" not in str(gateway.lines)
        assert "gw_mistyped" not in await gateway.metrics()


async def test_the_line_of_a_refused_key_has_the_beginning_of_its_hash() -> None:
    keys = [key_settings(expires="2001-01-01")]
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url, team={"keys": keys}) as gateway:
        await gateway.chat(key="gw_mistyped")
        await gateway.chat()
        refused = [line["refused_key"] for line in gateway.lines if line["event"] == "request"]
    assert refused == [sha256(key.encode()).hexdigest()[:12] for key in ("gw_mistyped", KEY)]


@pytest.mark.parametrize(
    "headers",
    [{"authorization": KEY}, {"authorization": f"Basic {KEY}"}, {"authorization": "Bearer gw_a", "x-api-key": "gw_b"}],
)
async def test_the_line_of_what_is_no_key_has_the_beginning_of_its_hash_too(headers: dict[str, str]) -> None:
    async with whole_gateway("http://127.0.0.1:1/v1") as gateway:
        assert (await gateway.request("GET", "/v1/models", headers=headers)).status == 401
        (line,) = [line for line in gateway.lines if line["event"] == "request"]
    assert line["refused_key"] == sha256("\n".join(headers.values()).encode()).hexdigest()[:12]


async def test_the_line_of_a_refused_key_has_the_reason_that_its_answer_leaves_out() -> None:
    old = "gw_of_last_year"
    keys = [
        key_settings(networks=["10.0.0.0/8"]),
        key_settings("other", OTHER, disabled=True),
        key_settings("old", old, expires="2001-01-01"),
    ]
    async with whole_gateway("http://127.0.0.1:1/v1", team={"keys": keys}) as gateway:
        replies = [await gateway.chat(key=key) for key in (KEY, OTHER, "gw_mistyped", "", old)]
        replies.append(await gateway.chat(headers={"x-api-key": OTHER}))
        lines = [line for line in gateway.lines if line["event"] == "request"]
    assert len({reply.body for reply in replies[:3]}) == 1
    expected = ["network", "disabled", "unknown", "malformed", "expired", "several"]
    assert [line["refused_because"] for line in lines] == expected


def _without_key(headers: dict[str, str]) -> bytes:
    lines = http_chat(headers=headers).split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"authorization"))
