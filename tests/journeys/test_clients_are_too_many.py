"""More clients than a gateway can serve, or such as take nothing: others and the operators are still served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from gateway.demo import DemoUpstream
from gateway.web.listener import ClientLimits
from tests.hand_upstream import content, hand_upstream
from tests.raw_client import http_chat, http_head, raw_client
from tests.whole_gateway import WholeGateway, whole_gateway

STALLED_S = 0.2


async def test_a_new_client_takes_the_place_of_the_one_that_was_idle_longest() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(DemoUpstream())
        gateway = await stack.enter_async_context(whole_gateway(upstream.base_url, max_clients=3))
        first, second, third = [await stack.enter_async_context(raw_client(gateway.port)) for _ in range(3)]
        for client in (second, third, first):
            client.send(http_chat())
            assert (await client.answer()).status == 200
        fourth = await stack.enter_async_context(raw_client(gateway.port))
        assert await second.rest() == b""
        for client in (third, first, fourth):
            client.send(http_chat())
            assert (await client.answer()).status == 200
        metrics = await gateway.metrics()
        assert "gateway_client_connections 3" in metrics
        assert "gateway_client_connections_refused_total 1" in metrics


async def test_an_idle_client_that_has_not_taken_its_answer_gives_its_descriptor_back_at_once() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(hand_upstream())
        gateway = await stack.enter_async_context(whole_gateway(upstream.base_url, max_clients=1))
        gateway.let_the_kernel_hold_little()
        idle = await stack.enter_async_context(raw_client(gateway.port, receive_bytes=4096))
        idle.send(http_chat())
        # Less than what pauses a writer, and more than the system holds: the request is over, and some is not sent.
        (await upstream.asked()).answer(b'{"pad":"' + b"x" * 60_000 + b'"}')
        await gateway.ended()
        [connection] = gateway.gateway._open[0].listener._open
        async with asyncio.timeout(5):
            while not connection.is_idle:
                await gateway.request("GET", "/healthz", admin=True)
        assert connection._socket is not None
        assert connection._socket.get_write_buffer_size() > 0
        async with raw_client(gateway.port) as client:
            client.send(http_head("GET /healthz HTTP/1.1", {"host": "gateway"}))
            assert (await client.answer()).status == 200
        assert connection._socket is None


async def test_where_all_are_at_work_the_next_is_refused_and_operators_are_served() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(hand_upstream())
        gateway = await stack.enter_async_context(whole_gateway(upstream.base_url, max_clients=2))
        turns = []
        for _ in range(2):
            client = await stack.enter_async_context(raw_client(gateway.port))
            client.send(http_chat())
            turns.append(await upstream.asked())
        async with raw_client(gateway.port) as refused:
            reply = await refused.answer()
            assert (reply.status, reply.error["code"]) == (503, "overloaded")
            assert reply.headers["retry-after"] == "1"
            assert reply.headers["x-request-id"]
            assert await refused.rest() == b""
        assert (await gateway.request("GET", "/healthz", admin=True)).status == 200
        turns[0].answer(b"{}")
        await gateway.ended()
        assert (await _asked_when_there_is_place(gateway)).startswith(b"HTTP/1.1 200")


async def _asked_when_there_is_place(gateway: WholeGateway) -> bytes:
    """An answer's connection is idle a moment after its answer has ended."""
    async with asyncio.timeout(5):
        while True:
            async with raw_client(gateway.port) as client:
                client.send(http_head("GET /healthz HTTP/1.1", {"host": "gateway"}))
                head = await client.until(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 503"):
                    return head


async def test_clients_are_fewer_than_file_descriptors() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(DemoUpstream())
        with _descriptors(152):
            gateway = await stack.enter_async_context(whole_gateway(upstream.base_url, max_clients=10_000))
        [lowered] = [line for line in gateway.lines if line["event"] == "max_clients lowered"]
        assert (lowered["wanted"], lowered["connections"]) == (10_000, 28)
        for _ in range(100):
            client = await stack.enter_async_context(raw_client(gateway.port))
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert (await gateway.request("GET", "/healthz", admin=True)).status == 200
        assert (await gateway.chat()).status == 200
        assert gateway.gateway._open[0].listener.open_connections <= 28


@contextmanager
def _descriptors(most: int) -> Iterator[None]:
    """As many as a gateway that is started within believes that it may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_client_that_takes_nothing_of_a_stream_is_disconnected_and_its_upstream_left() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(hand_upstream())
        gateway = await stack.enter_async_context(whole_gateway(upstream.base_url))
        _disconnect_soon(gateway)
        client = await stack.enter_async_context(raw_client(gateway.port, receive_bytes=4096))
        client.send(http_chat(stream=True))
        turn = await upstream.asked()
        turn.begin_stream()
        sending = asyncio.create_task(_send_for_ever(turn.send, turn.taken))
        exchange = await gateway.ended()
        assert exchange.error is not None
        assert exchange.error.code == "client_gone"
        await turn.left()
        sending.cancel()
        assert gateway.gateway._open[0].listener.open_connections == 0


async def test_a_client_that_takes_nothing_of_a_plain_answer_is_disconnected() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(hand_upstream())
        gateway = await stack.enter_async_context(whole_gateway(upstream.base_url))
        _disconnect_soon(gateway)
        client = await stack.enter_async_context(raw_client(gateway.port, receive_bytes=4096))
        client.send(http_chat(headers={"connection": "close"}))
        (await upstream.asked()).answer(b'{"pad":"' + b"x" * 100_000 + b'"}')
        await gateway.ended()
        async with asyncio.timeout(5):
            while gateway.gateway._open[0].listener.open_connections:
                await _pass_time(gateway, STALLED_S)


async def test_a_client_that_takes_a_little_now_and_then_gets_all() -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(hand_upstream())
        gateway = await stack.enter_async_context(whole_gateway(upstream.base_url))
        _disconnect_soon(gateway)
        client = await stack.enter_async_context(raw_client(gateway.port, receive_bytes=4096))
        client.send(http_chat(headers={"connection": "close"}))
        body = b'{"pad":"' + b"x" * 120_000 + b'"}'
        (await upstream.asked()).answer(body)
        seen = b""
        while piece := await client.read(8192):
            seen += piece
            await _pass_time(gateway, STALLED_S / 4)
        assert seen.endswith(body)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nhost: g\r\n"])
@pytest.mark.parametrize("listener", [0, 1], ids=["public", "admin"])
async def test_a_connection_on_which_no_request_comes_is_closed(listener: int, sent: bytes) -> None:
    async with DemoUpstream() as upstream, whole_gateway(upstream.base_url) as gateway:
        gateway.gateway._open[listener].listener.limits = ClientLimits(100, idle_s=STALLED_S)
        async with raw_client((gateway.port, gateway.admin_port)[listener]) as client:
            client.send(sent)
            with contextlib.suppress(ConnectionError):  # It may have been closed already.
                assert await client.rest() == b""
        assert (await gateway.request("GET", "/healthz", admin=bool(listener))).status == 200


async def _pass_time(gateway: WholeGateway, seconds: float) -> None:
    """Ask for something else meanwhile."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await gateway.request("GET", "/healthz", admin=True)


def _disconnect_soon(gateway: WholeGateway) -> None:
    gateway.gateway._open[0].listener.limits = ClientLimits(100, stalled_s=STALLED_S)
    gateway.let_the_kernel_hold_little()


async def _send_for_ever(send: object, taken: object) -> None:
    assert callable(send)
    assert callable(taken)
    while True:
        send(content("x" * 4000))
        await taken()
