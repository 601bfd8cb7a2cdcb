"""Brings calls to whichever server keeps their keys, whatever that server has forgotten or given away.

A script that the server does not know is loaded and called again, a slot that has moved is followed;
nothing is repeated that may have been carried out. Errors of redis end here, as StoreUnavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import AskError, MovedError, NoScriptError, ReadOnlyError, RedisError, TryAgainError

from gateway.core.errors import StoreUnavailable
from gateway.store.in_redis.line import Command, Line, LineDown
from gateway.store.in_redis.script import Script
from gateway.store.in_redis.servers import Servers

Observer = Callable[[str, str, float], None]
"""Told of each call: its name, "ok" or "unavailable", and the seconds that it took."""

_ATTEMPTS = 20
_PAUSE_S = 0.01
_RETRY_MS = 1_000


class Courier:
    def __init__(self, servers: Servers, timeout_s: float, observe: Observer) -> None:
        self._servers = servers
        self._timeout_s = timeout_s
        self._observe = observe

    def deadline(self) -> float:
        """For a promise that begins now, however many calls it takes."""
        return asyncio.get_running_loop().time() + self._timeout_s

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int], deadline: float) -> Any:
        """What the script returns. Raises StoreUnavailable."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        return await self._observed(script.name, self._run(script, command, keys[0], deadline))

    async def ask(self, key: str, command: Command, deadline: float) -> Any:
        """The answer to a plain command about this key. Raises StoreUnavailable."""
        return await self._observed(str(command[0]).lower(), self._run(None, command, key, deadline))

    async def _observed(self, name: str, call: Any) -> Any:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            reply = await call
        except (LineDown, RedisError) as error:
            self._observe(name, "unavailable", loop.time() - began)
            raise StoreUnavailable(
                "The gateway's store does not answer. Nothing was forwarded; try again soon.", retry_after_ms=_RETRY_MS
            ) from error
        self._observe(name, "ok", loop.time() - began)
        return reply

    async def _run(self, script: Script | None, command: Command, key: str, deadline: float) -> Any:
        line = await self._servers.line_of(key, deadline)
        asking = False
        for _ in range(_ATTEMPTS):
            try:
                return await _call(line, command, deadline, asking)
            except NoScriptError:
                if script is None:
                    raise
                await _call(line, ("SCRIPT", "LOAD", script.text), deadline, False)
            except AskError as error:
                line = self._servers.moved(error)
                asking = not isinstance(error, MovedError)
            except TryAgainError:
                # A slot is on its way to another node, and its keys are on both: it takes a moment.
                await asyncio.sleep(_PAUSE_S)
                line, asking = await self._servers.line_of(key, deadline), False
            except ReadOnlyError:
                # A master that was demoted: whoever is master now is found by connecting anew.
                line.redial()
                raise
        raise LineDown("sends calls in a circle")


async def _call(line: Line, command: Command, deadline: float, asking: bool) -> Any:
    if not asking:
        return await line.call(command, deadline)
    _, reply = await asyncio.gather(line.call(("ASKING",), deadline), line.call(command, deadline))
    return reply
