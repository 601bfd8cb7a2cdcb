"""One connection to one Redis server, kept up for good.

Calls of one turn of the event loop leave together, answers come in their order. A server that is silent for too long
while calls wait breaks the line: every call that waits fails, and from then on calls fail at once, until the server
has answered again. Nobody waits for a server that is known to be out.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from gateway.store.in_redis.loop_time import LoopTime

Command = tuple[Any, ...]
"""A command and its arguments: strings, bytes and numbers."""

Spoken = Command | Callable[[], Command]
"""A command, or what makes it in the moment in which it is sent."""

Dial = Callable[[], Awaitable[AbstractConnection]]
"""Gives a connection that is ready for use. Raises RedisError, OSError."""

_STEPS = 10
"""A time-out is counted in so many steps."""

_SLOWEST = 10
"""A server that answers others, but not a call, is out after so many time-outs: whatever it does, it is not serving."""

_DIAL_S = 2.0
"""For a connection, its TLS and its greeting: several turns over a long way. Calls do not wait for it any longer
than for an answer."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class LineDown(Exception):
    """The server does not answer. `sent` says that the call may have been carried out all the same."""

    def __init__(self, trouble: str, sent: bool = False) -> None:
        super().__init__(trouble)
        self.sent = sent


class _Call(NamedTuple):
    """`made` is when, in steps of the line's time."""

    command: bytes | Callable[[], Command]
    answer: asyncio.Future[Any]
    made: float


class Line:
    """`greeting` are commands that each new connection begins with; it is in use once they are answered."""

    def __init__(self, dial: Dial, timeout_s: float, greeting: Sequence[Command] = ()) -> None:
        self._dial = dial
        self._timeout_s = timeout_s
        self._greeting = greeting
        self._outbox: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._mail = asyncio.Event()
        self._time = LoopTime(timeout_s / _STEPS, self._look)
        self._heard = 0.0
        """When the server last gave a sign of life, in steps."""
        self._dialling: tuple[asyncio.Timeout, float] | None = None
        """What ends an attempt to connect, and the step at which it does."""
        self._life: asyncio.Task[None] | None = None
        self._talk: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        """Why calls fail at once; None while they do not."""

    def call(self, command: Spoken) -> asyncio.Future[Any]:
        """The answer to come. Fails with LineDown, or with the ResponseError that the server gives."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.trouble is not None:
            answer.set_exception(LineDown(self.trouble))
            return answer
        self._outbox.append(_Call(command if callable(command) else pack_command(command), answer, self._time.steps))
        self._mail.set()
        self._time.run()
        if self._life is None:
            self._life = asyncio.get_running_loop().create_task(self._live())
        return answer

    def redial(self) -> None:
        """Leave this connection for a new one: the server is not what it was."""
        if self._talk is not None:
            self._talk.cancel()

    async def close(self) -> None:
        self._time.stop()
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
        self._fail("closed")

    async def _live(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                connection = await self._connect()
            except (RedisError, OSError, TimeoutError) as error:
                self._fail(f"cannot be reached: {str(error) or type(error).__name__}")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            self.trouble = None
            self._talk = asyncio.get_running_loop().create_task(self._converse(connection))
            try:
                await asyncio.wait([self._talk])
            finally:
                self._talk.cancel()
                await asyncio.wait([self._talk])
                await connection.disconnect(nowait=True)
            self._lose_sent()

    async def _connect(self) -> AbstractConnection:
        """A connection that has been greeted. Raises RedisError, OSError, TimeoutError."""
        async with asyncio.timeout(None) as limit:
            self._dialling = limit, self._time.steps + _STEPS * max(_DIAL_S / self._timeout_s, 1)
            self._time.run()
            try:
                connection = await self._dial()
                self._heard = self._time.steps
                await self._greet(connection)
                self._heard = self._time.steps
            finally:
                self._dialling = None
        return connection

    async def _greet(self, connection: AbstractConnection) -> None:
        try:
            await connection.send_packed_command([pack_command(command) for command in self._greeting])
            for _ in self._greeting:
                await connection.read_response()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _converse(self, connection: AbstractConnection) -> None:
        """Until the connection breaks: whoever of the two ends first ends the other."""
        listening = asyncio.get_running_loop().create_task(self._listen(connection))
        speaking = asyncio.get_running_loop().create_task(self._speak(connection))
        try:
            await asyncio.wait([listening, speaking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
            speaking.cancel()
            await asyncio.gather(listening, speaking, return_exceptions=True)

    async def _speak(self, connection: AbstractConnection) -> None:
        while True:
            await self._mail.wait()
            self._mail.clear()
            calls, self._outbox = self._outbox, []
            self._sent.extend(calls)
            await connection.send_packed_command([b"".join([_packed(call) for call in calls])], check_health=False)

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            try:
                reply: Any = await connection.read_response(timeout=math.inf)
            except ResponseError as error:
                reply = error
            self._heard = self._time.steps
            answer = self._sent.popleft().answer
            if answer.done():
                continue
            if isinstance(reply, ResponseError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def _look(self) -> bool:
        """Judge the server, and say whether anything is still to come from it."""
        now = self._time.steps
        waiting = self._sent or self._outbox
        if waiting:
            # Answers come in their order, so no call waits for longer than the first.
            made = waiting[0].made
            if now - max(made, self._heard) > _STEPS or now - made > _SLOWEST * _STEPS:
                self._fail("does not answer")
                self.redial()
        if self._dialling is not None and now > self._dialling[1]:
            self._dialling[0].reschedule(asyncio.get_running_loop().time())
            self._dialling = None
        return bool(self._sent or self._outbox or self._dialling)

    def _fail(self, trouble: str) -> None:
        """From now on every call fails at once, as do those that wait."""
        self.trouble = trouble
        calls, self._outbox = self._outbox, []
        self._lose_sent()
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(LineDown(trouble))

    def _lose_sent(self) -> None:
        """What was sent and not answered is lost; what still lies in the outbox goes out on the next connection."""
        while self._sent:
            answer = self._sent.popleft().answer
            if not answer.done():
                answer.set_exception(LineDown(self.trouble or "broke the connection", sent=True))


def _packed(call: _Call) -> bytes:
    packed: bytes = pack_command(call.command()) if callable(call.command) else call.command
    return packed
