"""The end of a gateway: readiness first, running answers finish, new requests go elsewhere, nothing is unsettled."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.web import http_connection
from tests.gateway_process import gateway_process
from tests.hand_upstream import DONE, Turn, content, event, finish, hand_upstream, usage
from tests.raw_client import RawClient, http_chat, http_head, raw_client
from tests.whole_gateway import PATIENCE_S, WholeGateway, configuration, whole_gateway

ASKING = {"stream_options": {"include_usage": True}}
LONG_DELAY = {"delay": "60s", "timeout": "60s"}
NO_DELAY = {"delay": "0s", "timeout": "60s"}
NO_PATIENCE = {"delay": "0s", "timeout": "0s"}


async def test_readiness_goes_first_and_requests_are_served_on() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, drain=LONG_DELAY) as gateway:
        assert (await gateway.request("GET", "/readyz", admin=True)).status == 200
        draining, abort = _drain(gateway)
        await _until_not_ready(gateway)
        ready = await gateway.request("GET", "/readyz", admin=True)
        assert (ready.status, ready.json["because"]) == (503, ["draining"])
        assert (await gateway.request("GET", "/healthz", admin=True)).status == 200

        async with raw_client(gateway.port) as client:
            client.send(http_chat())
            (await upstream.asked()).answer(b"{}")
            reply = await client.answer()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await client.rest() == b""
        abort.set()
        await draining


async def test_a_running_stream_finishes_while_new_requests_are_turned_away() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, drain=NO_DELAY) as gateway:
        async with raw_client(gateway.port) as streaming, raw_client(gateway.port) as kept:
            turn = await _begun_stream(streaming, upstream)
            kept.send(http_head("GET /nowhere HTTP/1.1", {"host": "gateway"}))
            assert (await kept.answer()).status == 404
            draining, _ = _drain(gateway)
            await _until_refused(gateway)

            kept.send(http_chat())
            refused = await kept.answer()
            assert (refused.status, refused.error["code"], refused.error["type"]) == (
                503,
                "shutting_down",
                "server_error",
            )
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["connection"] == "close"
            assert await kept.rest() == b""

            assert not draining.done()
            turn.send(content("b"))
            turn.send(finish() + event(choices=[], usage=usage(3, 2)) + DONE)
            turn.end_stream()
            reply = await streaming.answer()
            assert reply.body == content("a") + content("b") + finish() + event(choices=[], usage=usage(3, 2)) + DONE
            await draining
        assert (await gateway.ledger()).output == 2


async def test_what_runs_past_the_timeout_is_cut_told_and_settled() -> None:
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, drain=NO_PATIENCE) as gateway:
        async with raw_client(gateway.port) as streaming, raw_client(gateway.port) as plain:
            turn = await _begun_stream(streaming, upstream)
            plain.send(http_chat())
            other = await upstream.asked()
            draining, _ = _drain(gateway)
            told = await streaming.rest()
            assert content("a") in told
            assert b'"code":"shutting_down"' in told
            assert b"\r\n0\r\n" not in told
            refused = await plain.answer()
            assert (refused.status, refused.error["code"]) == (503, "shutting_down")
            assert refused.headers["connection"] == "close"
            await draining
            await turn.left()
            await other.left()
        row = await gateway.ledger()
        assert row.requests == 1
        assert row.estimated == row.input + row.output > 0


async def test_the_end_does_not_wait_for_the_rest_of_a_body_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_LINGER_S", 10 * PATIENCE_S)
    async with whole_gateway("http://127.0.0.1:9", drain=NO_PATIENCE) as gateway, raw_client(gateway.port) as client:
        client.send(http_chat()[:-1])
        while not gateway.gateway.in_flight:
            await asyncio.sleep(0)
        draining, _ = _drain(gateway)
        refused = await client.answer()
        assert (refused.status, refused.error["code"]) == (503, "shutting_down")
        await asyncio.wait_for(draining, PATIENCE_S)


async def test_an_idle_gateway_ends_at_once() -> None:
    async with (
        hand_upstream() as upstream,
        whole_gateway(upstream.base_url, drain=NO_DELAY) as gateway,
        raw_client(gateway.port) as kept,
    ):
        kept.send(http_head("GET /nowhere HTTP/1.1", {"host": "gateway"}))
        await kept.answer()
        draining, _ = _drain(gateway)
        await asyncio.wait_for(draining, 0.5)
        assert await kept.rest() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_stream_finish_and_the_process_exits_with_0(
    number: signal.Signals, tmp_path: Path
) -> None:
    async with hand_upstream() as upstream:
        config = configuration(upstream.base_url, drain=NO_DELAY)
        async with gateway_process(config=config, folder=tmp_path) as gateway, raw_client(gateway.port) as client:
            turn = await _begun_stream(client, upstream)
            gateway.signal(number)
            assert (await gateway.line("signal"))["effect"] == "drain"
            turn.send(finish() + event(choices=[], usage=usage(3, 2)) + DONE)
            turn.end_stream()
            assert (await client.answer()).body.endswith(DONE)
            assert await gateway.exit_status() == 0
        request = next(line for line in gateway.lines if line["event"] == "request")
        assert (request["status"], request["output_tokens"], request["usage_source"]) == (200, 2, "reported")
        assert gateway.lines[-1]["event"] == "stopped"


async def test_a_second_signal_cuts_the_drain_short_and_still_settles(tmp_path: Path) -> None:
    async with hand_upstream() as upstream:
        config = configuration(upstream.base_url, drain=LONG_DELAY)
        async with gateway_process(config=config, folder=tmp_path) as gateway, raw_client(gateway.port) as client:
            await _begun_stream(client, upstream)
            gateway.signal(signal.SIGTERM)
            await gateway.line("signal")
            gateway.signal(signal.SIGINT)
            assert b'"code":"shutting_down"' in await client.rest()
            assert await gateway.exit_status() == 0
        request = next(line for line in gateway.lines if line["event"] == "request")
        assert (request["code"], request["usage_source"]) == ("shutting_down", "estimated")
        assert request["output_tokens"] >= 1


async def test_the_end_waits_for_a_slow_reader_to_have_what_was_written_for_it() -> None:
    body = b'{"text":"' + b"x" * 100_000 + b'"}'
    async with hand_upstream() as upstream, whole_gateway(upstream.base_url, drain=NO_DELAY) as gateway:
        gateway.let_the_kernel_hold_little()
        async with raw_client(gateway.port, receive_bytes=8192) as client:
            client.send(http_chat())
            (await upstream.asked()).answer(body)
            await gateway.ended()
            draining, _ = _drain(gateway)
            assert await asyncio.wait({draining}, timeout=1.5) == (set(), {draining})
            assert (await client.answer()).body == body
            await draining


def _drain(gateway: WholeGateway) -> tuple[asyncio.Task[None], asyncio.Event]:
    abort = asyncio.Event()
    return asyncio.create_task(gateway.gateway.drain(abort)), abort


async def _begun_stream(client: RawClient, upstream: Any) -> Turn:
    """A stream whose upstream has said its first event."""
    client.send(http_chat(stream=True, **ASKING))
    turn: Turn = await upstream.asked()
    turn.begin_stream()
    turn.send(content("a"))
    await turn.taken()
    return turn


async def _until_not_ready(gateway: WholeGateway) -> None:
    while (await gateway.request("GET", "/readyz", admin=True)).status == 200:
        continue


async def _until_refused(gateway: WholeGateway) -> None:
    """Until the listener is closed to new connections."""
    while True:
        try:
            async with raw_client(gateway.port):
                continue
        except ConnectionError:
            return
