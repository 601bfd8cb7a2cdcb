"""One pipelined connection to a Redis server, which reconnects by itself.

A `RedisConnection` sends the first call of a turn of the event loop at once, so that it is answered while the turn goes
on, and packs those that follow into one write at its end. Replies come in the order of the calls: `data_received`
parses them and resolves their futures, without a task in between.

A silent server counts as out. If calls wait and nothing comes for `timeout_s`, or one call waits for ten times as long,
all waiting calls fail, and further calls fail at once until the server has answered again: no request waits for a
server that is known to be out. Only the time in which the event loop could have read a reply counts as silence
(`LoopTime`), so that a pause of this process is not taken for one of the server.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

import msgspec
from hiredis import ProtocolError, Reader, pack_command

from gateway.runtime.backoff import Backoff
from gateway.runtime.eager_future import EagerFuture
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.scripts import LOADING

Command = tuple[Any, ...] | bytes
"""A command and its arguments: strings, bytes and numbers. Or its bytes, as they are sent."""

CommandMaker = Callable[[], Command]
"""Makes the command at the moment at which it is sent."""

_STEPS = 10
"""A time-out is counted in so many steps."""

_LATE_STEPS = 2.5
_LATE_COUNTS = 0.1

_SLOWEST = 10
"""A server that answers others, but not a call, is out after so many time-outs: whatever it does, it is not serving."""

_CONNECT_S = 2.0
"""For a connection, its TLS and its first commands: several turns over a long way. Calls wait no longer than for
a reply."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0

_INCOMPLETE: Any = object()


_OF_A_SCRIPT = re.compile(r"ERR Error running script [^\n]*?: -([A-Z]+) ")
"""How Redis 6.2 reports that it did not carry out a command of a script; later versions begin with that error."""


class ErrorReply(Exception):
    """The server answered that it did not carry a call out. `code` is the first word, such as `NOSCRIPT`; of an error
    within a script it is that of the error."""

    @property
    def code(self) -> str:
        within = _OF_A_SCRIPT.match(str(self))
        return within[1] if within else str(self).partition(" ")[0]


class ConnectionDown(Exception):
    """The server does not answer. `sent` says that the call may have been carried out all the same."""

    def __init__(self, trouble: str, sent: bool = False) -> None:
        super().__init__(trouble)
        self.sent = sent


class LoopTime:
    """Time in which the event loop could have read what is in its sockets.

    A busy loop fires a timer late, and often before it reads: by the clock alone, its own pause looks like a server's
    silence. So time is counted in steps, each by a timer of its own: at most one in a turn of the loop, and sockets are
    read between two turns. A step that ends far too late says little about others, and counts as a tenth. Steps are
    counted as long as `look`, called after each, says that a call waits."""

    def __init__(self, step_s: float, look: Callable[[], bool]) -> None:
        self._step_s = step_s
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.steps = 0.0

    def run(self) -> None:
        if self._timer is None:
            # Not the loop's own clock, which may not advance within a turn.
            self._due = time.monotonic() + self._step_s
            self._timer = asyncio.get_running_loop().call_later(self._step_s, self._count)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self) -> None:
        self._timer = None
        late = time.monotonic() - self._due > _LATE_STEPS * self._step_s
        self.steps += _LATE_COUNTS if late else 1
        if self._look():
            self.run()


class ReplyTaker(Protocol):
    """What takes a reply where it arrives, as a future does. Neither way of taking it raises anything."""

    def done(self) -> bool:
        """Whether it does not wait any more."""
        ...

    def set_result(self, reply: Any, /) -> None: ...

    def set_exception(self, error: Any, /) -> None:
        """ErrorReply or ConnectionDown, or why the command could not be made."""
        ...


class _PendingCall(msgspec.Struct, gc=False):
    """`made` is when, in steps of the connection's time."""

    command: Command | CommandMaker
    taker: ReplyTaker
    made: float


class RedisStream(asyncio.Protocol):
    """One socket: commands out, replies to their futures in order. `on_message` gets what was not asked for."""

    def __init__(self, on_message: Callable[[Any], None] | None = None) -> None:
        self._reader = Reader(replyError=ErrorReply, notEnoughData=_INCOMPLETE)
        self.on_message = on_message
        self._transport: asyncio.Transport | None = None
        self.sent: deque[_PendingCall] = deque()
        self.paused = False
        """Whether the socket takes no more for now."""
        self.on_data: Callable[[], None] = _ignored
        self.on_writable: Callable[[], None] = _ignored
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, *commands: Command) -> list[Any]:
        """Their replies. Raises ErrorReply, ConnectionDown."""
        loop = asyncio.get_running_loop()
        replies: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        self.send([_PendingCall(command, reply, 0) for command, reply in zip(commands, replies, strict=True)])
        return await asyncio.gather(*replies)

    def takes_more(self) -> bool:
        """Whether anything can be sent now: no more from before the end is reported."""
        transport = self._transport
        return not self.paused and transport is not None and not transport.is_closing()

    def send_one(self, call: _PendingCall) -> None:
        """Send it, though it may not be waited for. What cannot be made fails."""
        assert self._transport is not None
        command = call.command
        try:
            packed = command if type(command) is bytes else _packed(command)
        except Exception as defect:  # noqa: BLE001 # Whatever it is, it is for who has called.
            call.taker.set_exception(defect)
            return
        self.sent.append(call)
        self._transport.write(packed)

    def send(self, calls: Sequence[_PendingCall]) -> None:
        """Send those that are still waited for. One whose command cannot be made fails alone: replies belong to what is
        in `sent`, one by one."""
        assert self._transport is not None
        commands: list[bytes] = []
        for call in calls:
            if not call.taker.done():
                command = call.command
                try:
                    commands.append(command if type(command) is bytes else _packed(command))
                except Exception as defect:  # noqa: BLE001 # Whatever it is, it is for who has called.
                    call.taker.set_exception(defect)
                    continue
                self.sent.append(call)
        self._transport.write(b"".join(commands))

    def abort(self, why: str = "was closed") -> None:
        """Fail what was sent, and close at once."""
        if self._transport is not None:
            self._transport.abort()
        self._fail_sent(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reader, sent = self._reader, self.sent
        self.on_data()
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                if not sent:
                    self._deliver(reply)
                    continue
                taker = sent.popleft().taker
                if taker.done():
                    continue
                if type(reply) is ErrorReply:
                    taker.set_exception(reply)
                else:
                    taker.set_result(reply)
        except ProtocolError as error:
            self.abort(f"does not speak the protocol of Redis: {error}")

    def connection_lost(self, _error: Exception | None) -> None:
        self._fail_sent("broke the connection")
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.on_writable()

    def _deliver(self, message: Any) -> None:
        if self.on_message is None:
            self.abort("sent data that was not requested")
        else:
            self.on_message(message)

    def _fail_sent(self, why: str) -> None:
        while self.sent:
            taker = self.sent.popleft().taker
            if not taker.done():
                taker.set_exception(ConnectionDown(why, sent=True))


Connect = Callable[[], Awaitable[RedisStream]]
"""Gives a stream that is logged in. Raises OSError, ErrorReply, ConnectionDown."""


class RedisConnection:
    """Every new stream begins with loading the scripts; it is in use once they are loaded. It belongs to the event loop
    in which it is made."""

    def __init__(self, connect: Connect, timeout_s: float, tasks: BackgroundTasks) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._timeout_s = timeout_s
        self._tasks = tasks
        self._pending: list[_PendingCall] = []
        self._end_of_turn: asyncio.Handle | None = None
        """Where the turn of the loop has had a call: those that follow go together then."""
        self._stream: RedisStream | None = None
        self._time = LoopTime(timeout_s / _STEPS, self._look)
        self._heard = 0.0
        """When the server last gave a sign of life, in steps."""
        self._connecting: asyncio.Timeout | None = None
        self._connect_by = 0.0
        """What ends an attempt to connect, and the step at which it does."""
        self._running: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        """Why calls fail at once; None while they do not."""

    def call(self, command: Command | CommandMaker) -> asyncio.Future[Any]:
        """The reply to come. Fails with ConnectionDown, or with the ErrorReply that the server gives."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self.begin(command, reply)
        return reply

    def send(self, command: Command | CommandMaker) -> asyncio.Future[Any]:
        """The same, for one task to await. Where no other call is on its way, that goes on in the callback that brings
        the reply; several go on together, a turn of the event loop later."""
        stream = self._stream
        if self._pending or (stream is not None and stream.sent):
            return self.call(command)
        reply = EagerFuture()
        self.begin(command, reply)
        return reply

    def begin(self, command: Command | CommandMaker, taker: ReplyTaker) -> None:
        """The same as `call`, where something else takes the reply: now, where the server is known to be out."""
        if self.trouble is not None:
            taker.set_exception(ConnectionDown(self.trouble))
            return
        call = _PendingCall(command, taker, self._time.steps)
        if self._end_of_turn is not None:
            self._pending.append(call)
            return
        self._time.run()
        if self._running is None:
            self._running = self._tasks.keep_running("connect to Redis", self._stay_connected)
        stream = self._stream
        if self._pending or stream is None or not stream.takes_more():
            self._pending.append(call)
        else:
            stream.send_one(call)
        self._end_of_turn = self._loop.call_soon(self._end_turn)

    def reconnect(self, why: str) -> None:
        """Another server is the one to use.

        An attempt to connect ends, too: the server before, if it stood still, answers it when it goes on, and would be
        used.
        """
        self.leave(why)
        self._end_attempt()

    def leave(self, why: str) -> None:
        """Leave this stream for a new one: the server is not what it was."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort(why)

    def close(self) -> None:
        self._time.stop()
        if self._running is not None:
            self._running.cancel()
        self._fail("was closed")

    async def _stay_connected(self) -> None:
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while True:
            try:
                stream = await self._connected()
            except (OSError, ErrorReply, ConnectionDown) as error:
                self._fail(f"cannot be reached: {str(error) or type(error).__name__}")
                await asyncio.sleep(backoff.next_s())
                continue
            except Exception as error:
                self._fail(f"cannot be reached: {error!r}")
                raise
            backoff.reset()
            self.trouble = None
            self._stream = stream
            self._send_pending()
            try:
                await stream.ended
            finally:
                self._stream = None
                stream.abort()

    async def _connected(self) -> RedisStream:
        """A stream that knows the scripts. Raises OSError, ErrorReply, ConnectionDown."""
        async with asyncio.timeout(None) as attempt:
            self._connecting = attempt
            self._connect_by = self._time.steps + _STEPS * max(_CONNECT_S / self._timeout_s, 1)
            self._time.run()
            try:
                stream = await self._connect()
                self._note_data()
                stream.on_data, stream.on_writable = self._note_data, self._send_pending
                try:
                    await stream.ask(*LOADING)
                    if attempt.when() is not None:
                        raise ConnectionDown("the attempt was given up")
                except BaseException:
                    stream.abort()
                    raise
            finally:
                self._connecting = None
        return stream

    def _end_turn(self) -> None:
        self._end_of_turn = None
        if self._pending:
            self._send_pending()

    def _send_pending(self) -> None:
        stream = self._stream
        if self._pending and stream is not None and stream.takes_more():
            calls, self._pending = self._pending, []
            stream.send(calls)

    def _note_data(self) -> None:
        self._heard = self._time.steps

    def _look(self) -> bool:
        """Judge the server, and say whether anything is still to come from it."""
        now = self._time.steps
        waiting = (self._stream.sent if self._stream is not None else None) or self._pending
        if waiting:
            # Replies come in the order of the calls, so no call waits for longer than the first.
            made = waiting[0].made
            if now - max(made, self._heard) > _STEPS or now - made > _SLOWEST * _STEPS:
                self._fail("does not answer")
        if now > self._connect_by:
            self._end_attempt()
        return bool(self._pending or self._connecting or (self._stream is not None and self._stream.sent))

    def _end_attempt(self) -> None:
        """To connect; it fails in the next turn of the loop."""
        if self._connecting is not None:
            self._connecting.reschedule(self._loop.time())
            self._connecting = None

    def _fail(self, trouble: str) -> None:
        """From now on every call fails at once, as do those that wait."""
        self.trouble = trouble
        self.leave(trouble)
        calls, self._pending = self._pending, []
        for call in calls:
            if not call.taker.done():
                call.taker.set_exception(ConnectionDown(trouble))


def _packed(command: Command | CommandMaker) -> bytes:
    if callable(command):
        command = command()
    return command if isinstance(command, bytes) else cast(bytes, pack_command(command))


def _ignored() -> None:
    """Until a connection takes the stream over."""
