"""The control channel: each test is a conversation between a supervisor and a worker, and what goes wrong with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.runtime.control_channel import (
    MAX_BODY_BYTES,
    MAX_FRAME_BYTES,
    MAX_UNSENT_BYTES,
    PART_BYTES,
    BodyParts,
    ControlChannel,
    ControlClient,
    ControlReply,
    ControlRequest,
    ControlServer,
    Handler,
    InvalidMessage,
    NoReply,
    Order,
    WorkerOrder,
    WorkerReady,
    frame,
    in_parts,
)
from gateway.runtime.tasks import BackgroundTasks

PATIENCE_S = 10.0


class Worker:
    """A worker's end, with what it was ordered to do and what it logged; `socket` is the supervisor's end, in bytes."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.orders: list[Order] = []
        self.logged: list[str] = []

    def log_error(self, event: str, error: BaseException) -> None:
        self.logged.append(f"{event}: {error}")


async def echo(body: bytes) -> bytes:
    return body


async def fail(body: bytes) -> bytes:
    raise KeyError(body)


async def hang(body: bytes) -> bytes:
    await asyncio.Event().wait()
    return body


HANDLERS: Mapping[str, Handler] = {"echo": echo, "fail": fail, "hang": hang}


@asynccontextmanager
async def a_worker() -> AsyncIterator[Worker]:
    ours, its = socket.socketpair()
    ours.setblocking(False)
    worker = Worker(ours)
    tasks = BackgroundTasks(worker.log_error, first_pause_s=0.001)
    channel = await ControlChannel.over(its)
    orders = {order: lambda order=order: worker.orders.append(order) for order in Order}
    server = ControlServer(channel, orders, HANDLERS, tasks, worker.log_error)
    server.ready()
    tasks.keep_running("follow", server.run)
    yield worker
    await tasks.close()
    channel.close()
    ours.close()


class Supervisor:
    def __init__(self, client: ControlClient, logged: list[str]) -> None:
        self.client = client
        self.logged = logged


@asynccontextmanager
async def supervising(end: socket.socket) -> AsyncIterator[Supervisor]:
    logged: list[str] = []

    def log_error(event: str, error: BaseException) -> None:
        logged.append(f"{event}: {error}")

    tasks = BackgroundTasks(log_error)
    client = ControlClient(await ControlChannel.over(end), log_error)
    tasks.keep_running("read", client.run)
    yield Supervisor(client, logged)
    await tasks.close()


async def until_ordered(worker: Worker, *orders: Order) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while worker.orders != list(orders):
            await asyncio.sleep(0)


async def said(worker: Worker, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(worker.socket, data)


async def test_a_worker_says_that_it_serves_and_does_what_it_is_ordered() -> None:
    async with a_worker() as worker, supervising(worker.socket) as supervisor:
        assert await asyncio.wait_for(supervisor.client.ready, PATIENCE_S)
        for order in (Order.RELOAD, Order.DRAIN, Order.ABORT):
            supervisor.client.order(order)
        await until_ordered(worker, Order.RELOAD, Order.DRAIN, Order.ABORT)


async def test_replies_find_their_requests_whatever_order_they_come_in() -> None:
    async with a_worker() as worker, supervising(worker.socket) as supervisor:
        hanging = asyncio.ensure_future(supervisor.client.request("hang", b"", PATIENCE_S))
        bodies = [b"%d" % number for number in range(50)]
        replies = await asyncio.gather(*[supervisor.client.request("echo", body, PATIENCE_S) for body in bodies])
        assert replies == bodies
        assert not hanging.done()
        hanging.cancel()


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 5 * 1024 * 1024])
async def test_a_body_of_any_size_comes_whole_both_ways(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with a_worker() as worker, supervising(worker.socket) as supervisor:
        assert await supervisor.client.request("echo", body, PATIENCE_S) == body


async def test_an_order_does_not_wait_for_a_long_body() -> None:
    async with a_worker() as worker, supervising(worker.socket) as supervisor:
        long = asyncio.ensure_future(supervisor.client.request("echo", b"x" * MAX_UNSENT_BYTES * 2, PATIENCE_S))
        await asyncio.sleep(0)
        supervisor.client.order(Order.DRAIN)
        await until_ordered(worker, Order.DRAIN)
        assert not long.done()
        assert len(await long) == MAX_UNSENT_BYTES * 2


@pytest.mark.parametrize("kind", ["fail", "no such kind"])
async def test_a_request_that_fails_in_the_worker_fails_at_once_and_is_logged_there(kind: str) -> None:
    async with a_worker() as worker, supervising(worker.socket) as supervisor:
        with pytest.raises(NoReply, match="failed to answer"):
            await supervisor.client.request(kind, b"", PATIENCE_S)
        assert worker.logged[0].startswith(f"control request {kind} failed")
        assert await supervisor.client.request("echo", b"on", PATIENCE_S) == b"on"


async def test_a_worker_that_is_busy_is_given_up_and_its_late_reply_is_nobodys() -> None:
    release = asyncio.Event()
    ours, its = socket.socketpair()
    async with supervising(ours) as supervisor:
        channel = await ControlChannel.over(its)
        with pytest.raises(NoReply, match="in time"):
            await supervisor.client.request("metrics", b"", 0.001)
        channel.send(ControlReply(1, b"late"))
        second = asyncio.ensure_future(supervisor.client.request("metrics", b"", PATIENCE_S))
        assert isinstance(await channel.receive(), ControlRequest)
        assert await channel.receive() == ControlRequest(2, "metrics")
        channel.send(ControlReply(2, b"now"))
        assert await second == b"now"
        assert supervisor.logged == []
        release.set()
        channel.close()


async def test_a_worker_that_dies_fails_all_of_its_requests_at_once() -> None:
    ours, its = socket.socketpair()
    async with supervising(ours) as supervisor:
        channel = await ControlChannel.over(its)
        waiting = [asyncio.ensure_future(supervisor.client.request("hang", b"", 3600)) for _ in range(3)]
        await channel.receive()
        channel.close()
        for reply in waiting:
            with pytest.raises(NoReply, match="has ended"):
                await asyncio.wait_for(reply, PATIENCE_S)
        assert not await supervisor.client.ready
        with pytest.raises(NoReply, match="has ended"):
            await supervisor.client.request("echo", b"", PATIENCE_S)


async def test_a_worker_that_does_not_read_is_asked_no_more_once_much_waits_for_it() -> None:
    ours, its = socket.socketpair()
    with its:
        async with supervising(ours) as supervisor:
            body = b"x" * PART_BYTES
            many = MAX_UNSENT_BYTES // PART_BYTES + 8
            asked = [asyncio.ensure_future(supervisor.client.request("echo", body, PATIENCE_S)) for _ in range(many)]
            await asyncio.sleep(0)
            with pytest.raises(NoReply, match="does not read"):
                await supervisor.client.request("echo", b"", PATIENCE_S)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"drain\n",
        msgspec.msgpack.encode({"type": "retire"}),
        msgspec.msgpack.encode({"type": "order", "order": "dance"}),
        msgspec.msgpack.encode(WorkerReady()),
    ],
)
async def test_an_unknown_message_is_logged_and_the_next_one_is_followed(payload: bytes) -> None:
    async with a_worker() as worker:
        await said(worker, len(payload).to_bytes(4, "big") + payload + frame(WorkerOrder(Order.RELOAD)))
        await until_ordered(worker, Order.RELOAD)
        assert len(worker.logged) == 1
        assert worker.logged[0].startswith("invalid message from the supervisor")


async def test_a_frame_may_come_in_any_pieces() -> None:
    async with a_worker() as worker:
        for byte in frame(WorkerOrder(Order.RELOAD)):
            await said(worker, bytes([byte]))
            await asyncio.sleep(0)
        await until_ordered(worker, Order.RELOAD)
        assert worker.logged == []


@pytest.mark.parametrize("cut", [1, 4, 6])
async def test_a_stream_that_ends_within_a_frame_is_logged_and_the_worker_drains(cut: int) -> None:
    async with a_worker() as worker:
        await said(worker, frame(WorkerOrder(Order.RELOAD))[:cut])
        worker.socket.shutdown(socket.SHUT_WR)
        await until_ordered(worker, Order.DRAIN)
        assert worker.logged == ["the control channel is broken: the stream ended within a frame"]


async def test_a_frame_longer_than_any_is_logged_and_the_worker_drains() -> None:
    async with a_worker() as worker:
        await said(worker, (MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        await until_ordered(worker, Order.DRAIN)
        assert len(worker.logged) == 1


async def test_a_supervisor_that_is_gone_is_no_error_and_the_worker_drains() -> None:
    async with a_worker() as worker:
        worker.socket.close()
        await until_ordered(worker, Order.DRAIN)
        assert worker.logged == []


async def test_an_order_whose_carrying_out_fails_does_not_end_the_following() -> None:
    ours, its = socket.socketpair()
    failures: list[str] = []
    followed = asyncio.Event()

    def broken() -> None:
        raise RuntimeError("no")

    def log_error(event: str, error: BaseException) -> None:
        failures.append(event)

    tasks = BackgroundTasks(log_error, failures.append, first_pause_s=0.001)
    orders = {Order.RELOAD: broken, Order.DRAIN: followed.set, Order.ABORT: broken}
    channel = await ControlChannel.over(its)
    server = ControlServer(channel, orders, {}, tasks, log_error)
    tasks.keep_running("follow the supervisor", server.run)
    ours.sendall(frame(WorkerOrder(Order.RELOAD)) + frame(WorkerOrder(Order.DRAIN)))
    await asyncio.wait_for(followed.wait(), PATIENCE_S)
    assert failures == ["follow the supervisor", "background task follow the supervisor failed"]
    await tasks.close()
    channel.close()
    ours.close()


async def test_what_a_worker_says_that_is_no_message_is_logged_and_its_next_reply_is_heard() -> None:
    ours, its = socket.socketpair()
    async with supervising(ours) as supervisor:
        channel = await ControlChannel.over(its)
        asked = asyncio.ensure_future(supervisor.client.request("echo", b"", PATIENCE_S))
        await channel.receive()
        channel.send(WorkerOrder(Order.DRAIN))
        channel.send(ControlReply(1, b"heard"))
        assert await asked == b"heard"
        assert supervisor.logged == ["invalid message from a worker: a message that only supervisors send"]
        channel.close()


def test_a_body_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    parts = BodyParts()
    part = b"x" * PART_BYTES
    for _ in range(MAX_BODY_BYTES // PART_BYTES):
        assert parts.add(ControlReply(1, part, last=False)) is None
    with pytest.raises(InvalidMessage):
        parts.add(ControlReply(1, part, last=False))
    assert parts.add(ControlReply(1, part, last=False)) is None
    assert parts.add(ControlReply(1, b"the end")) is None
    assert parts.add(ControlReply(1, b"another")) == b"another"


async def test_a_request_with_too_long_a_body_fails_and_the_next_one_is_answered() -> None:
    async with a_worker() as worker, supervising(worker.socket) as supervisor:
        with pytest.raises(NoReply, match="failed to answer"):
            await supervisor.client.request("echo", b"x" * (MAX_BODY_BYTES + 3 * PART_BYTES), PATIENCE_S)
        assert await supervisor.client.request("echo", b"short", PATIENCE_S) == b"short"
        assert worker.logged == [f"invalid message from the supervisor: a body of more than {MAX_BODY_BYTES} bytes"]


async def test_a_reply_with_too_long_a_body_fails_its_request_alone() -> None:
    ours, its = socket.socketpair()
    async with supervising(ours) as supervisor:
        channel = await ControlChannel.over(its)
        asked = asyncio.ensure_future(supervisor.client.request("metrics", b"", PATIENCE_S))
        await channel.receive()
        for part, last in in_parts(b"x" * (MAX_BODY_BYTES + 3 * PART_BYTES)):
            await channel.send_in_turn(ControlReply(1, part, last))
        with pytest.raises(NoReply, match="more than"):
            await asked
        again = asyncio.ensure_future(supervisor.client.request("metrics", b"", PATIENCE_S))
        await channel.receive()
        channel.send(ControlReply(2, b"short"))
        assert await again == b"short"
        channel.close()


async def test_a_request_given_up_within_its_body_says_so_and_its_parts_are_forgotten() -> None:
    ours, its = socket.socketpair()
    async with supervising(ours) as supervisor:
        channel = await ControlChannel.over(its)
        with pytest.raises(NoReply, match="in time"):
            await supervisor.client.request("echo", b"x" * MAX_UNSENT_BYTES, 0.05)
        parts = BodyParts()
        while True:
            message = await asyncio.wait_for(channel.receive(), PATIENCE_S)
            assert isinstance(message, ControlRequest)
            if message.abandoned:
                break
            assert parts.add(message) is None
        parts.forget(message.id)
        assert parts.add(ControlRequest(message.id, "echo", b"another")) == b"another"
        channel.close()


def test_parts_are_what_they_are_parts_of() -> None:
    for size in (0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES):
        parts = list(in_parts(b"x" * size))
        assert b"".join(part for part, _ in parts) == b"x" * size
        assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
        assert all(len(frame(ControlReply(2**60, part, last))) <= MAX_FRAME_BYTES + 4 for part, last in parts)
