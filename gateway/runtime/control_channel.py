"""What a supervisor and one of its workers say to each other: framed messages on the pair of sockets between them.

    supervisor                                             worker
       | <---------------------------------- WorkerReady     |  it serves
       | ControlRequest(1, "metrics") ---------------------> |
       | <------------------ ControlReply(1, last=False)     |  a long body comes in parts
       | ControlRequest(2, "readiness") -------------------> |
       | <------------------ ControlReply(2)                 |  replies come in any order
       | <------------------ ControlReply(1)                 |
       | Order.RELOAD, Order.DRAIN, Order.ABORT -----------> |
       | end of the stream --------------------------------> |  the supervisor is gone: the worker drains

A frame is the length of its message (four bytes, network order) and the message in msgpack. A frame has at most
`MAX_FRAME_BYTES`; a body that is longer goes in parts, one frame each, so that an order never waits behind it for long.

What can go wrong:

* A whole frame whose message is unknown or malformed is logged and skipped: the next frame begins where it ends.
* A length above the maximum, or a stream that ends within a frame, breaks the channel: where the next frame begins is
  not known. It is logged, and the channel counts as ended.
* A worker that is busy does not reply in time: the request fails, and its late reply has no request and is dropped.
* A worker that is dead ends the stream: all of its requests fail at once.
* A worker that does not read (it is stopped) fails further requests at once when `MAX_UNSENT_BYTES` wait for it.
* A handler that raises is logged in the worker, and its request fails in the supervisor.
* A body longer than `MAX_BODY_BYTES` is logged, its request fails at once, and the rest of it is dropped.
* A request given up before its body is sent ends with an `abandoned` part, so that the worker keeps none of it.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum

import msgspec

from gateway.runtime.tasks import BackgroundTasks, LogError

PART_BYTES = 256 * 1024
MAX_FRAME_BYTES = PART_BYTES + 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_UNSENT_BYTES = 4 * 1024 * 1024

_LENGTH_BYTES = 4


class Order(StrEnum):
    """What a supervisor has a worker do."""

    DRAIN = "drain"
    ABORT = "abort"
    RELOAD = "reload"


class WorkerReady(msgspec.Struct, tag="ready", frozen=True):
    """The worker serves."""


class WorkerOrder(msgspec.Struct, tag="order", frozen=True):
    order: Order


class ControlRequest(msgspec.Struct, tag="request", frozen=True):
    """A part of a request; `last` says that the body is whole, `abandoned` that the rest of it does not come."""

    id: int
    kind: str
    body: bytes = b""
    last: bool = True
    abandoned: bool = False


class ControlReply(msgspec.Struct, tag="reply", frozen=True):
    """A part of the reply to the request of this id; `failed` says that there is none."""

    id: int
    body: bytes = b""
    last: bool = True
    failed: bool = False


Message = WorkerReady | WorkerOrder | ControlRequest | ControlReply

Handler = Callable[[bytes], Awaitable[bytes]]


class InvalidMessage(Exception):
    """A whole frame that holds no message of this protocol."""


class ChannelBroken(Exception):
    """The stream ended within a frame, or no frame can be as long as this one says."""


class NoReply(Exception):
    """The worker is dead, busy, or failed to answer."""


def frame(message: Message) -> bytes:
    payload: bytes = _ENCODER.encode(message)
    assert len(payload) <= MAX_FRAME_BYTES, "a long body goes in parts"
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def message_in(payload: bytes) -> Message:
    """Raises InvalidMessage."""
    try:
        message: Message = _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise InvalidMessage(str(error)) from None
    return message


class ControlChannel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> ControlChannel:
        return cls(*await asyncio.open_unix_connection(sock=end))

    @property
    def unsent_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """What is sent to an end that is closed is lost."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def send_in_turn(self, message: Message) -> None:
        """Send, and wait until the other end has read most of what was sent. Raises ConnectionError."""
        self.send(message)
        await self._writer.drain()

    async def receive(self) -> Message | None:
        """The next message; None at the end of the stream. Raises InvalidMessage, ChannelBroken."""
        try:
            head = await self._reader.readexactly(_LENGTH_BYTES)
            length = int.from_bytes(head, "big")
            if length > MAX_FRAME_BYTES:
                raise ChannelBroken(f"a frame of {length} bytes, where {MAX_FRAME_BYTES} are the most")
            payload = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as torn:
            if torn.partial or torn.expected != _LENGTH_BYTES:
                raise ChannelBroken("the stream ended within a frame") from None
            return None
        except ConnectionError:
            return None
        return message_in(payload)

    def close(self) -> None:
        self._writer.close()


class _PartialBody:
    """What has come of one body. One that is too long keeps its size, and none of its parts."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0


class BodyParts:
    """Joins the parts of bodies, which come interleaved."""

    def __init__(self) -> None:
        self._bodies: dict[int, _PartialBody] = {}

    def add(self, message: ControlRequest | ControlReply) -> bytes | None:
        """The whole body, once its last part is there. Raises InvalidMessage once for a body that is too long, and
        drops its later parts: they must not be joined to a shorter body."""
        body = self._bodies.setdefault(message.id, _PartialBody())
        if message.last:
            del self._bodies[message.id]
        was_refused = body.size > MAX_BODY_BYTES
        body.size += len(message.body)
        if body.size <= MAX_BODY_BYTES:
            body.parts.append(message.body)
            return b"".join(body.parts) if message.last else None
        body.parts.clear()
        if not was_refused:
            raise InvalidMessage(f"a body of more than {MAX_BODY_BYTES} bytes")
        return None

    def forget(self, body_id: int) -> None:
        """Drop what has come of a body whose rest is not waited for."""
        self._bodies.pop(body_id, None)


class ControlServer:
    """A worker's end: carries out orders and answers requests, which do not wait for one another."""

    def __init__(
        self,
        channel: ControlChannel,
        orders: Mapping[Order, Callable[[], object]],
        handlers: Mapping[str, Handler],
        tasks: BackgroundTasks,
        log_error: LogError,
    ) -> None:
        self._channel = channel
        self._orders = orders
        self._handlers = handlers
        self._tasks = tasks
        self._log_error = log_error
        self._bodies = BodyParts()

    def ready(self) -> None:
        """Report that this worker serves."""
        self._channel.send(WorkerReady())

    async def run(self) -> None:
        """Follow the supervisor to the end of the stream; without a supervisor, drain."""
        while True:
            try:
                message = await self._channel.receive()
                if message is None:
                    break
                self._take(message)
            except InvalidMessage as error:
                self._log_error("invalid message from the supervisor", error)
            except ChannelBroken as error:
                self._log_error("the control channel is broken", error)
                break
        self._orders[Order.DRAIN]()

    def _take(self, message: Message) -> None:
        match message:
            case WorkerOrder(order=order):
                self._orders[order]()
            case ControlRequest(abandoned=True):
                self._bodies.forget(message.id)
            case ControlRequest():
                self._take_part(message)
            case _:
                raise InvalidMessage("a message that only workers send")

    def _take_part(self, message: ControlRequest) -> None:
        try:
            body = self._bodies.add(message)
        except InvalidMessage:
            self._channel.send(ControlReply(message.id, failed=True))
            raise
        if body is not None:
            self._tasks.start("answer the supervisor", self._answer(message, body))

    async def _answer(self, request: ControlRequest, body: bytes) -> None:
        try:
            reply = await self._handlers[request.kind](body)
        except Exception as error:  # noqa: BLE001 # Whatever it is, the supervisor must not wait for the timeout.
            self._log_error(f"control request {request.kind[:40]} failed", error)
            self._channel.send(ControlReply(request.id, failed=True))
            return
        # Where the supervisor is gone, `run` has found the end of the stream.
        with suppress(ConnectionError):
            for part, last in in_parts(reply):
                await self._channel.send_in_turn(ControlReply(request.id, part, last))


class ControlClient:
    """The supervisor's end: `run` reads what the worker sends, for as long as it lives."""

    def __init__(self, channel: ControlChannel, log_error: LogError) -> None:
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether the worker serves: False where it ended without."""

        self._channel = channel
        self._log_error = log_error
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._bodies = BodyParts()
        self._ended = False

    def order(self, order: Order) -> None:
        """A worker that has ended hears nothing."""
        self._channel.send(WorkerOrder(order))

    async def request(self, kind: str, body: bytes, timeout_s: float) -> bytes:
        """Raises NoReply."""
        if self._ended or self._channel.unsent_bytes > MAX_UNSENT_BYTES:
            raise NoReply("it has ended" if self._ended else "it does not read")
        number = next(self._ids)
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        is_whole = False
        try:
            async with asyncio.timeout(timeout_s):
                for part, is_whole in in_parts(body):
                    await self._channel.send_in_turn(ControlRequest(number, kind, part, is_whole))
                    if reply.done():
                        break
                return await reply
        except (TimeoutError, ConnectionError) as error:
            raise NoReply(str(error) or "it does not answer in time") from None
        finally:
            del self._waiting[number]
            self._bodies.forget(number)
            if not is_whole:
                self._channel.send(ControlRequest(number, kind, abandoned=True))

    async def run(self) -> None:
        try:
            while not self._ended:
                await self._step()
        finally:
            self._end()

    async def _step(self) -> None:
        try:
            message = await self._channel.receive()
            self._ended = message is None
            if message is not None:
                self._take(message)
        except InvalidMessage as error:
            self._log_error("invalid message from a worker", error)
        except ChannelBroken as error:
            self._log_error("the control channel is broken", error)
            self._ended = True

    def _take(self, message: Message) -> None:
        match message:
            case WorkerReady():
                if not self.ready.done():
                    self.ready.set_result(True)
            case ControlReply():
                self._take_reply(message)
            case _:
                raise InvalidMessage("a message that only supervisors send")

    def _take_reply(self, message: ControlReply) -> None:
        reply = self._waiting.get(message.id)
        if reply is None or reply.done():
            return
        try:
            body = self._bodies.add(message)
        except InvalidMessage as error:
            reply.set_exception(NoReply(f"it answers with {error}"))
            raise
        if message.failed:
            reply.set_exception(NoReply("it failed to answer"))
        elif body is not None:
            reply.set_result(body)

    def _end(self) -> None:
        self._ended = True
        self._channel.close()
        if not self.ready.done():
            self.ready.set_result(False)
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(NoReply("it has ended"))


def in_parts(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """The parts of a body, each with whether it is the last; an empty body is one part."""
    starts = range(0, len(body) or 1, PART_BYTES)
    for start in starts:
        yield body[start : start + PART_BYTES], start == starts[-1]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
