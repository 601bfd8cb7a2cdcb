"""One connection to one Redis server, kept up for good.

Calls of one turn of the event loop leave together, answers come in their order. A call that is not
answered by its deadline breaks the line: every call that waits fails, and from then on calls fail at
once, until the server has answered again. Nobody waits for a server that is known to be out.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

Command = tuple[Any, ...]
"""A command and its arguments: strings, bytes and numbers."""

Dial = Callable[[], Awaitable[AbstractConnection]]
"""Gives a connection that is ready for use. Raises RedisError, OSError."""

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


class Line:
    """`greeting` are commands that each new connection begins with; it is in use once they are answered."""

    def __init__(self, dial: Dial, timeout_s: float, greeting: Sequence[Command] = ()) -> None:
        self._dial = dial
        self._timeout_s = timeout_s
        self._greeting = greeting
        self._outbox: list[tuple[bytes, asyncio.Future[Any], float]] = []
        self._sent: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._mail = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        # Not asked of the handle: uvloop gives one without `when` for a time that is due at once.
        self._alarm_at = math.inf
        self._life: asyncio.Task[None] | None = None
        self._talk: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        """Why calls fail at once; None while they do not."""

    def call(self, command: Command, deadline: float) -> asyncio.Future[Any]:
        """The answer to come. Fails with LineDown, or with the ResponseError that the server gives."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.trouble is not None:
            answer.set_exception(LineDown(self.trouble))
            return answer
        self._outbox.append((pack_command(command), answer, deadline))
        self._mail.set()
        if deadline < self._alarm_at:
            self._ring_at(deadline)
        if self._life is None:
            self._life = asyncio.get_running_loop().create_task(self._live())
        return answer

    def redial(self) -> None:
        """Leave this connection for a new one: the server is not what it was."""
        if self._talk is not None:
            self._talk.cancel()

    async def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
        self._fail("closed")

    async def _live(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(max(_DIAL_S, self._timeout_s)):
                    connection = await self._dial()
                    await self._greet(connection)
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
            letters, self._outbox = self._outbox, []
            self._sent.extend([(answer, deadline) for _, answer, deadline in letters])
            await connection.send_packed_command([b"".join([command for command, _, _ in letters])], check_health=False)

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            try:
                reply: Any = await connection.read_response(timeout=math.inf)
            except ResponseError as error:
                reply = error
            answer, _ = self._sent.popleft()
            if answer.done():
                continue
            if isinstance(reply, ResponseError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def _ring_at(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = asyncio.get_running_loop().call_at(deadline, self._ring)

    def _ring(self) -> None:
        """Look whether somebody's time is over."""
        self._alarm, self._alarm_at = None, math.inf
        waiting = [deadline for _, answer, deadline in self._outbox if not answer.done()]
        waiting += [deadline for answer, deadline in self._sent if not answer.done()]
        if not waiting:
            return
        earliest = min(waiting)
        if earliest > asyncio.get_running_loop().time():
            self._ring_at(earliest)
            return
        self._fail("does not answer")
        self.redial()

    def _fail(self, trouble: str) -> None:
        """From now on every call fails at once, as do those that wait."""
        self.trouble = trouble
        letters, self._outbox = self._outbox, []
        self._lose_sent()
        for _, answer, _ in letters:
            if not answer.done():
                answer.set_exception(LineDown(trouble))

    def _lose_sent(self) -> None:
        """What was sent and not answered is lost; what still lies in the outbox goes out on the next connection."""
        while self._sent:
            answer, _ = self._sent.popleft()
            if not answer.done():
                answer.set_exception(LineDown(self.trouble or "broke the connection", sent=True))
