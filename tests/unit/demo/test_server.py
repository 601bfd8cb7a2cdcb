"""The demo upstream over a loopback socket: timing, halts, account."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from http import HTTPStatus
from typing import Any

import pytest

from gateway.demo import DemoScript, DemoUpstream
from gateway.demo.truth import KEEP_REQUESTS, ServedRequest, Truth
from tests.unit.demo.asking import answer, events, head_and_body, request, unchunked


async def told(upstream: DemoUpstream, sent: bytes) -> Any:
    return json.loads(head_and_body(await answer(upstream, sent))[1])


async def test_an_answer_is_accounted_for_by_model_and_bearer() -> None:
    async with DemoUpstream(DemoScript(chunks=4)) as upstream:
        await answer(upstream, request())
        await answer(upstream, request(stream=True))
        tally = upstream.truth.tallies["m", "k"]
        assert (tally.requests, tally.completed) == (2, 2)
        assert (tally.reported.answers, tally.reported.prompt, tally.reported.completion) == (1, 3, 4)
        assert (tally.unreported.answers, tally.unreported.prompt, tally.unreported.completion) == (1, 3, 4)


async def test_the_request_is_kept_as_it_arrived() -> None:
    async with DemoUpstream() as upstream:
        sent = request(odd="  spaces  ")
        await answer(upstream, sent)
        (served,) = upstream.truth.requests
        assert (served.body, served.number) == (head_and_body(sent)[1], 1)
        assert served.header("Authorization") == "Bearer k"


@pytest.mark.parametrize("delay_ms", [0, 5])
async def test_one_connection_serves_one_request_after_the_other_even_if_they_come_together(delay_ms: int) -> None:
    async with DemoUpstream(DemoScript(chunks=2, first_delay_ms=delay_ms)) as upstream:
        raw = await answer(upstream, request(close=False) + request(close=False, stream=True) + request())
        plain, stream, last = raw.split(b"HTTP/1.1 200 OK")[1:]
        assert json.loads(head_and_body(plain)[1])["id"].endswith("1")
        assert stream.endswith(b"0\r\n\r\n")
        assert json.loads(head_and_body(last)[1])["id"].endswith("3")
        assert upstream.truth.connections_made == 1


async def test_a_peer_that_leaves_is_noticed_with_what_it_got() -> None:
    async with DemoUpstream(DemoScript(chunks=100, halt="hang", halt_after=4)) as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        writer.write(request(stream=True))
        await reader.readuntil(b' is"},')
        left_at = time.monotonic()
        writer.close()
        await upstream.truth.when(lambda truth: truth.total.cancelled == 1)
        (served,) = upstream.truth.requests
        assert (served.outcome, served.completion_tokens) == ("cancelled", 3)
        assert served.ended_at is not None
        assert 0 <= served.ended_at - left_at < 1
        assert upstream.truth.total.partial.completion == 3


@pytest.mark.parametrize("place", ["before_headers", "after_headers", "between_events", "inside_event"])
async def test_a_close_ends_the_connection_where_the_script_says(place: str) -> None:
    async with DemoUpstream(DemoScript(halt="close").changed({"halt_at": place})) as upstream:
        raw = await answer(upstream, request(stream=True))
        assert (raw == b"") == (place == "before_headers")
        assert b"[DONE]" not in raw
        await upstream.truth.when(lambda truth: truth.connections_open == 0)
        assert (upstream.truth.total.halted, upstream.truth.total.cancelled) == (1, 0)


async def test_a_reset_is_a_reset() -> None:
    async with DemoUpstream(DemoScript(halt="reset")) as upstream:
        with pytest.raises(ConnectionResetError):
            await answer(upstream, request(stream=True))


@pytest.mark.parametrize("halt", ["close", "reset"])
async def test_a_connection_can_end_as_soon_as_it_is_made(halt: str) -> None:
    async with DemoUpstream(DemoScript(halt_at="on_connect").changed({"halt": halt})) as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        if halt == "reset":
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert await reader.read() == b""
        writer.close()


async def test_a_stopped_upstream_refuses_and_comes_back_on_its_port() -> None:
    async with DemoUpstream() as upstream:
        port = upstream.port
        reader, writer = await asyncio.open_connection(upstream.host, port)
        await upstream.truth.when(lambda truth: truth.connections_open == 1)
        await upstream.stop()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await answer(upstream, request())
        await upstream.start()
        assert upstream.port == port
        assert (await told(upstream, request()))["model"] == "m"


@pytest.mark.parametrize("turns", range(6))
async def test_what_is_accepted_as_it_stops_is_closed(turns: int) -> None:
    upstream = DemoUpstream()
    await upstream.start()
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await upstream.stop()
        client.setblocking(False)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


async def test_scripts_in_line_serve_one_request_each_and_the_last_one_stands() -> None:
    async with DemoUpstream() as upstream:
        upstream.queue_scripts([DemoScript(status=503), DemoScript(status=429), DemoScript(chunks=1)])
        statuses = [(await answer(upstream, request())).split(b" ")[1] for _ in range(4)]
        assert statuses == [b"503", b"429", b"200", b"200"]
        assert upstream.truth.total.failed == 2


async def test_tokens_come_at_their_pace() -> None:
    async with DemoUpstream(DemoScript(chunks=5, chunk_delay_ms=20)) as upstream:
        began = time.monotonic()
        await answer(upstream, request(stream=True))
        assert 0.08 <= time.monotonic() - began < 1


@pytest.mark.parametrize("delay_ms", [0, 0.001])
async def test_a_slow_reader_holds_the_answer_back(delay_ms: float) -> None:
    script = DemoScript(chunks=1_000, chunk_bytes=20_000, chunk_delay_ms=delay_ms)
    async with DemoUpstream(script) as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        writer.write(request(stream=True))
        await reader.readuntil(b"data: ")
        with pytest.raises(TimeoutError):
            await upstream.truth.when(lambda truth: truth.total.completed == 1, timeout_s=0.3)
        (served,) = upstream.truth.requests
        assert served.completion_tokens < 800
        rest = await reader.read()
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert served.outcome == "completed"
        writer.close()


async def test_an_early_answer_comes_before_the_body() -> None:
    async with DemoUpstream(DemoScript(status=413, early_answer=True)) as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        head, body = head_and_body(request())
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n") == f"HTTP/1.1 413 {HTTPStatus(413).phrase}\r\n".encode()
        writer.write(body)
        writer.close()


async def test_after_an_early_answer_the_body_is_no_request_of_its_own() -> None:
    async with DemoUpstream(DemoScript(chunks=1, early_answer=True)) as upstream:
        raw = await answer(upstream, request(close=False) + request())
        assert raw.count(b"HTTP/1.1 200 OK") == 2
        assert upstream.truth.total.completed == 2


async def test_a_peer_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async with DemoUpstream(DemoScript(chunks=1)) as upstream:
        head, body = head_and_body(request())
        raw = await answer(upstream, head + b"\r\nexpect: 100-continue\r\n\r\n" + body)
        assert raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("afterwards", ["close", "vanish"])
async def test_a_connection_can_end_with_the_answer(afterwards: str) -> None:
    async with DemoUpstream(DemoScript(chunks=1).changed({"afterwards": afterwards})) as upstream:
        head, body = head_and_body(await answer(upstream, request(close=False)))
        assert json.loads(body)["object"] == "chat.completion"
        assert (b"connection: close" in head) == (afterwards == "close")


async def test_models_are_listed_and_unknown_paths_are_not_found() -> None:
    async with DemoUpstream(models=("a/b", "c")) as upstream:
        listed = await told(upstream, request("/v1/models", "GET"))
        assert [row["id"] for row in listed["data"]] == ["a/b", "c"]
        assert (await answer(upstream, request("/v1/nothing"))).startswith(b"HTTP/1.1 404 ")
        assert upstream.truth.total.requests == 0
        assert [served.status for served in upstream.truth.requests] == [200, 404]


async def test_a_request_that_makes_no_sense_is_a_failure() -> None:
    async with DemoUpstream() as upstream:
        assert "demo" in (await told(upstream, request(demo={"chunkz": 1})))["error"]["message"]
        assert upstream.truth.total.failed == 1


async def test_bytes_that_are_not_http_end_the_connection() -> None:
    async with DemoUpstream() as upstream:
        assert await answer(upstream, b"\x16\x03\x01 hello\r\n\r\n") == b""


async def test_truth_and_script_can_be_had_over_http() -> None:
    async with DemoUpstream() as upstream:
        script = json.dumps([{"status": 500}, {"chunks": 2}]).encode()
        head = b"POST /__script HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(script)
        assert (await answer(upstream, head + script)).startswith(b"HTTP/1.1 200 OK")
        await answer(upstream, request())
        await answer(upstream, request(stream=True))
        truth = await told(upstream, request("/__truth", "GET"))
        assert (truth["total"]["failed"], truth["total"]["completed"], truth["total"]["open"]) == (1, 1, 0)
        assert truth["tallies"][0]["unreported"] == {"answers": 1, "prompt": 3, "completion": 2}
        assert [served["outcome"] for served in truth["requests"]] == ["failed", "completed"]
        await answer(upstream, request("/__truth", "DELETE"))
        assert upstream.truth.total.requests == 0


async def test_a_script_that_makes_no_sense_is_refused_and_the_old_one_stays() -> None:
    async with DemoUpstream(DemoScript(chunks=2)) as upstream:
        assert (await answer(upstream, request("/__script", demo={}))).startswith(b"HTTP/1.1 400 ")
        assert upstream.script.chunks == 2


async def test_a_reset_of_the_truth_forgets_what_is_running() -> None:
    async with DemoUpstream(DemoScript(halt="hang")) as upstream:
        _, writer = await asyncio.open_connection(upstream.host, upstream.port)
        writer.write(request())
        await upstream.truth.when(lambda truth: truth.total.open == 1)
        upstream.truth.reset()
        writer.close()
        await upstream.truth.when(lambda truth: truth.connections_open == 0)
        assert (upstream.truth.total.requests, upstream.truth.total.cancelled) == (0, 0)


async def test_waiting_for_what_never_comes_times_out() -> None:
    with pytest.raises(TimeoutError):
        await Truth(time.monotonic).when(lambda truth: truth.total.requests == 1, timeout_s=0.01)


def test_only_the_last_requests_are_kept() -> None:
    truth = Truth(time.monotonic)
    for index in range(KEEP_REQUESTS + 5):
        truth.begin(ServedRequest("POST", str(index), [], b""), metered=True)
    assert (len(truth.requests), truth.requests[0].path, truth.total.requests) == (
        KEEP_REQUESTS,
        "5",
        KEEP_REQUESTS + 5,
    )


async def test_a_stream_over_a_socket_is_what_the_script_says() -> None:
    async with DemoUpstream(DemoScript(chunks=3, pieces="byte")) as upstream:
        chunks, rest = unchunked(head_and_body(await answer(upstream, request(stream=True)))[1])
        assert len(events(b"".join(chunks))) == 6
        assert rest == b"0\r\n\r\n"
