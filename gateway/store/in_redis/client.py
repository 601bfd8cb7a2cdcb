"""A Redis client for many small calls, which sends each to the node that has its key.

A script that the node does not know is loaded and called again, and a slot that has moved is followed. Nothing is
repeated that may have been carried out. Errors become StoreUnavailable. Every node has two connections: one for what
requests wait for, and one for reports, renewals, replays and look-ups, so that these delay no request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CallRefused
from gateway.store.in_redis.connection import (
    Command,
    CommandMaker,
    Connect,
    ConnectionDown,
    ErrorReply,
    RedisConnection,
    RedisStream,
)
from gateway.store.in_redis.scripts import LuaScript, whole_numbers

Observer = Callable[[str, str, float], None]
"""Gets each call: its name, "ok" or "unavailable", and the seconds that it took."""

_monotonic = time.monotonic

_ATTEMPTS = 20
_PAUSE_S = 0.01
_SUBSCRIBE_S = 5.0
"""For a connection and its first reply."""

_SCANNED_AT_ONCE = 500
"""Elements that one reply has, more or less."""

_RETRY_MS = 1_000
_RECENT_S = 3.0
"""For so long a refusal counts: a check of the store's health shall see it, and see it pass."""

_ABOUT_SERVER = frozenset(
    {
        "ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM",
        "NOREPLICAS", "NOSCRIPT", "OOM", "READONLY", "TRYAGAIN", "WRONGPASS",
    }
)  # fmt: skip
"""Codes of errors that say nothing about the call itself: it may be carried out another time."""


class ServerClock:
    """One server's time as this process knows it: its own monotonic clock, set by each reply.

    It only says at what time to ask: every decision is made by the server, by its own clock."""

    def __init__(self) -> None:
        self._ahead_ms = (time.time() - time.monotonic()) * 1000

    @staticmethod
    def moment() -> float:
        """Now, for `learn`."""
        return time.monotonic()

    def now_ms(self) -> int:
        return round(_monotonic() * 1000 + self._ahead_ms)

    def learn(self, now_ms: int, asked_at: float, read_at: float) -> None:
        """The server gave this time in reply to a call of the moment `asked_at`, which was read at `read_at`.

        The reply may have waited for a busy event loop to read it. So the server's clock showed `now_ms` at some
        moment since `asked_at`, and what is believed of it changes only where it cannot be true.
        """
        least, most = now_ms - read_at * 1000, now_ms - asked_at * 1000
        if self._ahead_ms < least:
            self._ahead_ms = least
        elif self._ahead_ms > most:
            self._ahead_ms = most


class RedisNode:
    """A server: its clock, and its connections for what requests wait for and for the rest."""

    def __init__(self, connect: Connect, timeout_s: float, tasks: BackgroundTasks) -> None:
        self.clock = ServerClock()
        self.connect = connect
        self.urgent = RedisConnection(connect, timeout_s, tasks)
        self.background = RedisConnection(connect, timeout_s, tasks)

    @property
    def trouble(self) -> str | None:
        return self.urgent.trouble or self.background.trouble

    def reconnect(self, why: str) -> None:
        self.urgent.reconnect(why)
        self.background.reconnect(why)

    def close(self) -> None:
        self.urgent.close()
        self.background.close()


class RedisServers(Protocol):
    """Which node has a key."""

    by_slot: bool
    """Whether one call may only speak of keys of one slot."""

    def node_of(self, key: str) -> RedisNode | None:
        """None until `discover` was awaited. Raises ConnectionDown where no node is known to have it."""
        ...

    async def discover(self) -> None:
        """Raises ConnectionDown."""
        ...

    def clock_of(self, key: str) -> ServerClock:
        """Of the node that has it, as far as that is known."""
        ...

    def moved(self, error: ErrorReply) -> RedisNode:
        """The node that another one points to. Raises ErrorReply where it points to none."""
        ...

    def trouble(self) -> str | None:
        """Why the store counts as out, None while it answers."""
        ...

    def close(self) -> None: ...


class SentCall(msgspec.Struct, frozen=True):
    """A call on its way: where to, the reply to come, which one task may await, and since when."""

    node: RedisNode
    reply: asyncio.Future[Any]
    began: float


class BegunCall(msgspec.Struct, eq=False):
    """A call of a script that nothing awaits: a `ReplyTaker`, which gives itself to `then` once it has ended. What
    `then` raises is for the event loop to report: the connection serves others, too. `numbers` are those that the
    script gave, None where it was not carried out."""

    _router: Router
    _script: LuaScript
    _then: Callable[[BegunCall], None]
    node: RedisNode
    began: float
    numbers: Sequence[int] | None = None
    _error: Exception = ConnectionDown("has not answered")

    def done(self) -> bool:
        return False

    def set_result(self, reply: Sequence[int] | bytes) -> None:
        try:
            self.numbers = self._router.carried_out(self._script, self, reply)
        except Exception as error:  # noqa: BLE001 # Whatever it is, it must not end the connection of all calls.
            self._error = error
        self._end()

    def set_exception(self, error: Exception) -> None:
        self._error = error
        self._end()

    def _end(self) -> None:
        try:
            self._then(self)
        except Exception as defect:  # noqa: BLE001 # As above; a future's callbacks are reported in the same way.
            doing = f"what follows a call of {self._script.name}"
            asyncio.get_running_loop().call_exception_handler({"message": doing, "exception": defect})

    def result(self) -> Any:
        """Its numbers. Raises ErrorReply, ConnectionDown."""
        if self.numbers is None:
            raise self._error
        return self.numbers


class Router:
    def __init__(self, servers: RedisServers, observe: Observer, background: bool = False) -> None:
        self._servers = servers
        self.clock_of = servers.clock_of
        """Gives the clock of the server that has a key."""
        self._observe = observe
        self._background = background
        self._refusal = ""
        self._refused_at = -math.inf

    @property
    def refusal(self) -> str | None:
        """What a server answered lately instead of carrying a call out, such as a right that is missing."""
        recent = time.monotonic() - self._refused_at < _RECENT_S
        return f"answers: {self._refusal}" if recent else None

    def send(self, key: str, command: Command | CommandMaker) -> SentCall | None:
        """Send a call, without waiting for its reply; None where it is not known where to. It goes on with
        `carried_out`, and where the reply is an error, with `run`."""
        try:
            node = self._servers.node_of(key)
        except ConnectionDown:
            return None
        if node is None:
            return None
        connection = node.background if self._background else node.urgent
        # The event loop's time has whole milliseconds under uvloop; a call takes a part of one.
        began = _monotonic()
        return SentCall(node, connection.send(command), began)

    def begin(
        self, script: LuaScript, key: str, command: Command | CommandMaker, then: Callable[[BegunCall], None]
    ) -> bool:
        """Call a script that nothing awaits: `then` gets the call once it has ended, now or later. Where it was not
        carried out it goes on with `run`. False where it is not known where to, and nothing was done."""
        try:
            node = self._servers.node_of(key)
        except ConnectionDown:
            return False
        if node is None:
            return False
        connection = node.background if self._background else node.urgent
        connection.begin(command, BegunCall(self, script, then, node, _monotonic()))
        return True

    def carried_out(self, script: LuaScript, sent: SentCall | BegunCall, reply: Sequence[int] | bytes) -> Sequence[int]:
        """The numbers of a reply of the script, which has just come."""
        ended, began = _monotonic(), sent.began
        self._observe(script.name, "ok", ended - began)
        if type(reply) is bytes:
            reply = whole_numbers(len(reply) // 8).unpack_from(reply)
        # The second number of every script is the server's time.
        sent.node.clock.learn(reply[1], began, ended)
        return reply

    async def run(
        self,
        script: LuaScript | None,
        key: str,
        command: Command | CommandMaker,
        ended: SentCall | BegunCall | None = None,
    ) -> Any:
        """The numbers that the script gives, or the reply to a plain command. `key` is one of its keys; `command` may
        be made when the call leaves. Where the call has `ended`, this goes on from there. Raises StoreUnavailable."""
        began = time.monotonic() if ended is None else ended.began
        try:
            sent = ended or self.send(key, command) or await self._send_when_known(key, command)
            try:
                reply = await sent.reply if isinstance(sent, SentCall) else sent.result()
            except ErrorReply as error:
                reply = await self._insist(script, command, key, sent.node, error)
        except (ConnectionDown, ErrorReply) as error:
            self._observe(_name_of(script, command), "unavailable", time.monotonic() - began)
            raise self._unavailable(error) from error
        if script is not None:
            return self.carried_out(script, sent, reply)
        self._observe(_name_of(script, command), "ok", time.monotonic() - began)
        return reply

    async def time(self, key: str) -> int:
        """Of the server that has this key, in milliseconds: its clock is set by it. Raises StoreUnavailable."""
        clock = self.clock_of(key)
        asked_at = clock.moment()
        seconds, microseconds = await self.ask(key, ("TIME",))
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        clock.learn(now_ms, asked_at, clock.moment())
        return now_ms

    def ask(self, key: str, command: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        """The reply to a plain command about this key. Raises StoreUnavailable."""
        return self.run(None, key, command)

    async def scan(self, command: str, key: str) -> AsyncIterator[Sequence[bytes]]:
        """What a set, a sorted set or a hash has, piece by piece. Raises StoreUnavailable."""
        cursor = b"0"
        while True:
            cursor, batch = await self.ask(key, (command, key, cursor, "COUNT", _SCANNED_AT_ONCE))
            yield batch
            if cursor == b"0":
                return

    async def subscribe(self, key: str, channel: str, on_message: Callable[[Any], None]) -> RedisStream:
        """A connection of its own to the node that has this key; what it publishes on the channel goes to `on_message`
        until the stream has ended. Raises StoreUnavailable."""
        try:
            async with asyncio.timeout(_SUBSCRIBE_S):
                node = self._servers.node_of(key) or await self._discovered(key)
                stream = await node.connect()
                stream.on_message = on_message
                try:
                    await stream.ask(("SUBSCRIBE", channel))
                except BaseException:
                    stream.abort()
                    raise
        except (OSError, ConnectionDown, ErrorReply) as error:
            raise StoreUnavailable("The gateway's store does not take a subscription.") from error
        return stream

    def _unavailable(self, error: ConnectionDown | ErrorReply) -> StoreUnavailable:
        if isinstance(error, ConnectionDown):
            return StoreUnavailable("The gateway's store does not answer.", retry_after_ms=_RETRY_MS)
        self._refusal, self._refused_at = str(error), time.monotonic()
        kind = StoreUnavailable if error.code in _ABOUT_SERVER else CallRefused
        return kind(f"The gateway's store answers with the error {error.code}.", retry_after_ms=_RETRY_MS)

    async def _send_when_known(self, key: str, command: Command | CommandMaker) -> SentCall:
        if self._servers.node_of(key) is None:
            await self._servers.discover()
        sent = self.send(key, command)
        if sent is None:
            raise ConnectionDown("has no node that is known")
        return sent

    async def _discovered(self, key: str) -> RedisNode:
        await self._servers.discover()
        node = self._servers.node_of(key)
        if node is None:
            raise ConnectionDown("has no node that is known")
        return node

    async def _insist(
        self,
        script: LuaScript | None,
        command: Command | CommandMaker,
        key: str,
        node: RedisNode,
        error: ErrorReply,
    ) -> Any:
        """Go on where the server answered that it could not carry the call out."""
        for _ in range(_ATTEMPTS):
            connection, asking = node.background if self._background else node.urgent, False
            if error.code == "NOSCRIPT" and script is not None:
                await connection.call(("SCRIPT", "LOAD", script.text))
            elif error.code in ("MOVED", "ASK", "CROSSSLOT"):
                node, asking = self._servers.moved(error), error.code == "ASK"
            elif error.code == "TRYAGAIN":
                # A slot is on its way to another node, and its keys are on both: it takes a moment.
                await asyncio.sleep(_PAUSE_S)
                node = self._servers.node_of(key) or node
            else:
                if error.code == "READONLY":
                    # A master that was demoted: a new connection finds the one that is master now.
                    connection.leave("is no longer the master")
                raise error
            try:
                return await self._ask_node(node, command, asking)
            except ErrorReply as again:
                error = again
        raise ConnectionDown("redirects calls in a circle")

    async def _ask_node(self, node: RedisNode, command: Command | CommandMaker, asking: bool) -> Any:
        connection = node.background if self._background else node.urgent
        if not asking:
            return await connection.call(command)
        _, reply = await asyncio.gather(connection.call(("ASKING",)), connection.call(command))
        return reply


def _name_of(script: LuaScript | None, command: Command | CommandMaker) -> str:
    """What a call is observed as."""
    if script is not None:
        return script.name
    assert isinstance(command, tuple), "a plain command is a tuple"
    name: str = command[0].lower()
    return name
