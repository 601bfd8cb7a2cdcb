"""An upstream that fails before its first byte: the next route is tried, and the last failure is told."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.reservation import AdmissionRequest, Refusal, Reservation
from gateway.core.snapshot import Model
from gateway.demo import DemoScript, DemoUpstream
from tests.hand_upstream import hand_upstream
from tests.whole_gateway import MODEL, Json, whole_gateway

PATIENT = {"connect": "30s", "first_byte": "30s", "idle": "30s", "total": "60s"}
IMPATIENT = PATIENT | {"first_byte": "1s"}
"""Where nothing but this timeout can end the request: a reset may take long on a busy machine."""
FAILURES: list[dict[str, Any]] = [
    {"halt": "reset", "halt_at": "on_connect"},
    {"halt": "reset", "halt_at": "before_headers"},
    {"halt": "close", "halt_at": "before_headers"},
    {"halt": "close", "halt_at": "after_headers"},
    {"halt": "hang", "halt_at": "before_headers"},
    {"status": 429},
    {"status": 500},
    {"status": 503},
]


def upstreams(*servers: DemoUpstream, **changes: Any) -> Json:
    return {f"up{number}": {"base_url": server.base_url, **changes} for number, server in enumerate(servers, 1)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ({"halt": "reset", "halt_at": "on_connect"}, 502, "upstream_unreachable"),
        ({"halt": "reset", "halt_at": "before_headers"}, 502, "upstream_unreachable"),
        ({"halt": "close", "halt_at": "before_headers"}, 502, "upstream_unreachable"),
        ({"halt": "close", "halt_at": "after_headers"}, 502, "upstream_unreachable"),
        ({"halt": "hang", "halt_at": "before_headers"}, 504, "upstream_timeout"),
        ({"halt": "hang", "halt_at": "after_headers"}, 504, "upstream_timeout"),
        ({"status": 401}, 502, "upstream_auth_failed"),
        ({"status": 403}, 502, "upstream_auth_failed"),
        ({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}, 502, "upstream_unreachable"),
    ],
)
async def test_a_failure_before_the_first_byte_gets_an_answer_of_the_gateway(
    script: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    timeouts = IMPATIENT if status == 504 else PATIENT
    async with (
        DemoUpstream(DemoScript(**script)) as upstream,
        whole_gateway(upstream.base_url, upstreams=upstreams(upstream, timeouts=timeouts)) as gateway,
    ):
        reply = await gateway.chat(stream=stream)
        assert (reply.status, reply.error["code"], reply.error["type"]) == (status, code, "server_error")
        assert reply.headers["content-type"] == "application/json"
        assert "up1" in reply.error["message"]
        exchange = await gateway.ended()
        assert exchange.usage is None
        assert (await gateway.ledger()).requests == 0
        upstream.script = DemoScript()
        assert (await gateway.chat(stream=stream)).status == 200


async def test_a_server_that_is_not_there_gets_a_502() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        await upstream.stop()
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
        await upstream.start()
        assert (await gateway.chat()).status == 200


async def test_a_whole_answer_that_takes_too_long_gets_a_504() -> None:
    patient = {"first_byte": "5s", "idle": "5s", "total": "60ms"}
    async with hand_upstream() as upstream:
        told = {"up1": {"base_url": upstream.base_url, "timeouts": patient}}
        async with whole_gateway(upstream.base_url, upstreams=told) as gateway:
            asking = asyncio.create_task(gateway.chat())
            turn = await upstream.asked()
            turn.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
            reply = await asking
            assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")
            assert "0.06 s in all" in reply.error["message"]
            await turn.left()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429, 500, 503, 529])
async def test_an_error_of_the_only_upstream_reaches_the_client_as_it_is(status: int, stream: bool) -> None:
    body = '{"error":{"message":"context too long","type":"x","code":"own"},"and":  "more"}'
    script = DemoScript(status=status, body=body, headers={"retry-after": "7", "x-internal": "1"})
    async with DemoUpstream(script) as upstream, whole_gateway(upstream.base_url) as gateway:
        reply = await gateway.chat(stream=stream)
        assert (reply.status, reply.body.decode()) == (status, body)
        assert reply.headers["retry-after"] == "7"
        assert "x-internal" not in reply.headers
        assert (await gateway.ledger()).requests == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", FAILURES, ids=str)
async def test_the_next_route_answers_for_one_that_fails(script: dict[str, Any], stream: bool) -> None:
    async with DemoUpstream(DemoScript(**script)) as first, DemoUpstream(DemoScript(chunks=4)) as second:
        both = upstreams(first, second, timeouts=PATIENT)
        both["up1"]["timeouts"] = IMPATIENT
        async with whole_gateway(first.base_url, second.base_url, upstreams=both) as gateway:
            reply = await gateway.chat(stream=stream)
            assert reply.status == 200
            exchange = await gateway.ended()
            assert [name for name, _ in exchange.attempts] == ["up1", "up2"]
            assert exchange.usage is not None
            assert exchange.usage.output == second.truth.total.reported.completion == 4
            assert (await gateway.ledger()).requests == 1
            assert gateway.lines[-1]["attempts"][1] == "up2: 200"


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_what_the_next_route_would_refuse_as_well_is_not_tried_again(status: int) -> None:
    async with (
        DemoUpstream(DemoScript(status=status)) as first,
        DemoUpstream() as second,
        whole_gateway(first.base_url, second.base_url) as gateway,
    ):
        assert (await gateway.chat()).status == (502 if status == 401 else status)
        assert second.truth.total.requests == 0


async def test_at_most_two_more_routes_are_tried_and_the_last_failure_is_told() -> None:
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(DemoUpstream(DemoScript(status=500 + number))) for number in range(5)
        ]
        gateway = await stack.enter_async_context(whole_gateway(*(server.base_url for server in servers)))
        assert (await gateway.chat()).status == 502
        assert [server.truth.total.requests for server in servers] == [1, 1, 1, 0, 0]


async def test_each_route_gets_the_body_with_its_own_name_of_the_model() -> None:
    routes = [{"upstream": "up1", "model": "first-name"}, {"upstream": "up2", "priority": 2}]
    async with DemoUpstream(DemoScript(status=503)) as first, DemoUpstream() as second:
        changes = {"model": {"routes": routes}, "upstreams": upstreams(first, second)}
        async with whole_gateway(first.base_url, second.base_url, **changes) as gateway:
            assert (await gateway.chat()).status == 200
        assert json.loads(first.truth.requests[0].body)["model"] == "first-name"
        assert json.loads(second.truth.requests[0].body)["model"] == MODEL


async def test_no_other_route_is_tried_once_a_byte_has_reached_the_client() -> None:
    broken = DemoScript(chunks=6, halt="reset", halt_after=3)
    async with (
        DemoUpstream(broken) as first,
        DemoUpstream() as second,
        whole_gateway(first.base_url, second.base_url) as gateway,
    ):
        reply = await gateway.chat(stream=True)
        assert reply.broken
        assert second.truth.total.requests == 0


async def test_a_connection_that_the_upstream_closed_meanwhile_is_replaced_unseen() -> None:
    async with DemoUpstream(DemoScript(afterwards="vanish")) as upstream, whole_gateway(upstream.base_url) as gateway:
        assert [(await gateway.chat()).status for _ in range(5)] == [200] * 5
        assert upstream.truth.total.requests == 5


async def test_who_finds_no_connection_free_in_time_is_told() -> None:
    async with hand_upstream() as upstream:
        told = {"up1": {"base_url": upstream.base_url, "max_connections": 1, "timeouts": {"connect": "50ms"}}}
        async with whole_gateway(upstream.base_url, upstreams=told) as gateway:
            running = asyncio.create_task(gateway.chat())
            turn = await upstream.asked()
            reply = await gateway.chat()
            assert (reply.status, reply.error["code"]) == (503, "upstream_busy")
            assert reply.headers["retry-after"] == "1"
            assert "none of its 1 connections free" in reply.error["message"]
            turn.answer(b"{}")
            assert (await running).status == 200


async def test_a_model_without_a_target_gets_a_503() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        gateway.gateway.services.snapshot.models[MODEL] = Model(MODEL, ())
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (503, "no_upstream_available")
        assert reply.headers["retry-after"] == "1"


async def test_while_the_store_is_out_nothing_is_forwarded() -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        gateway.gateway.services.store = _Out()  # type: ignore[assignment]
        reply = await gateway.chat()
        assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
        assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("1", "1000")
        assert upstream.truth.total.requests == 0
        assert [line["event"] for line in gateway.lines] == ["request"]


class _Out:
    """A store that does not answer."""

    def repeated_refusal(self, _ask: AdmissionRequest) -> None:
        return None

    async def admit(self, _ask: AdmissionRequest) -> Reservation | Refusal:
        raise StoreUnavailable("The store does not answer.", retry_after_ms=1000)
