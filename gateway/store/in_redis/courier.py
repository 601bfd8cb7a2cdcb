"""Brings calls to whichever server keeps their keys, whatever that server has forgotten or given away.

A script that the server does not know is loaded and called again, a slot that has moved is followed;
nothing is repeated that may have been carried out. Errors of redis end here, as StoreUnavailable.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)  # fmt: skip

from gateway.core.errors import StoreUnavailable
from gateway.store.contract import CallRefused
from gateway.store.in_redis.line import Command, Line, LineDown, Spoken
from gateway.store.in_redis.scripts import LuaScript
from gateway.store.in_redis.servers import ServerClock, Servers

Observer = Callable[[str, str, float], None]
"""Told of each call: its name, "ok" or "unavailable", and the seconds that it took."""

_ATTEMPTS = 20
_PAUSE_S = 0.01
_RETRY_MS = 1_000
_LATELY_S = 3.0
"""For so long an objection counts: whoever looks whether the store is well shall see it, and see it pass."""


Args = Sequence[str | bytes | int]


class Courier:
    def __init__(self, servers: Servers, observe: Observer) -> None:
        self._servers = servers
        self._observe = observe
        self._objection = ""
        self._objected_at = -math.inf

    @property
    def objection(self) -> str | None:
        """What a server answered lately in place of carrying a call out, such as a right that is missing."""
        recent = asyncio.get_running_loop().time() - self._objected_at < _LATELY_S
        return f"answers: {self._objection}" if recent else None

    def clock_of(self, key: str) -> ServerClock:
        """Of the server that keeps this key."""
        return self._servers.clock_of(key)

    async def run(self, script: LuaScript, keys: Sequence[str], args: Args | Callable[[], Args]) -> Any:
        """What the script returns. `args` may be made when the call leaves. Raises StoreUnavailable."""
        head = ("EVALSHA", script.sha, len(keys), *keys)
        command: Spoken = (lambda: (*head, *args())) if callable(args) else (*head, *args)
        return await self._bring(script.name, script, command, keys[0])

    async def ask(self, key: str, command: Command) -> Any:
        """The answer to a plain command about this key. Raises StoreUnavailable."""
        return await self._bring(command[0].lower(), None, command, key)

    async def _bring(self, name: str, script: LuaScript | None, command: Spoken, key: str) -> Any:
        # The event loop's time has whole milliseconds under uvloop; a call takes a part of one.
        began = time.perf_counter()
        try:
            line = await self._servers.line_of(key)
            try:
                reply = await line.call(command)
            except ResponseError as error:
                reply = await self._insist(script, command, (line, error), key)
        except (LineDown, RedisError) as error:
            self._observe(name, "unavailable", time.perf_counter() - began)
            if isinstance(error, ResponseError):
                self._objection, self._objected_at = str(error), asyncio.get_running_loop().time()
            # What is no fault of the call itself has a class of its own: no memory, no rights, no master.
            kind = CallRefused if type(error) is ResponseError else StoreUnavailable
            raise kind(
                "The gateway's store does not answer. Nothing was forwarded; try again soon.", retry_after_ms=_RETRY_MS
            ) from error
        self._observe(name, "ok", time.perf_counter() - began)
        return reply

    async def _insist(
        self, script: LuaScript | None, command: Spoken, refused: tuple[Line, ResponseError], key: str
    ) -> Any:
        """Go on where the server answered that it could not carry the call out."""
        line, error = refused
        for _ in range(_ATTEMPTS):
            asking = False
            if isinstance(error, NoScriptError) and script is not None:
                await line.call(("SCRIPT", "LOAD", script.text))
            elif isinstance(error, AskError | ClusterCrossSlotError):
                line, asking = self._servers.moved(error), not isinstance(error, MovedError)
            elif isinstance(error, TryAgainError):
                # A slot is on its way to another node, and its keys are on both: it takes a moment.
                await asyncio.sleep(_PAUSE_S)
                line = await self._servers.line_of(key)
            else:
                if isinstance(error, ReadOnlyError):
                    # A master that was demoted: whoever is master now is found by connecting anew.
                    line.redial()
                raise error
            try:
                return await _call(line, command, asking)
            except ResponseError as again:
                error = again
        raise LineDown("sends calls in a circle")


async def _call(line: Line, command: Spoken, asking: bool) -> Any:
    if not asking:
        return await line.call(command)
    _, reply = await asyncio.gather(line.call(("ASKING",)), line.call(command))
    return reply
