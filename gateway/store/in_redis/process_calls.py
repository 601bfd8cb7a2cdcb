"""Questions to every gateway process by way of Redis: published on one channel, answered into one list.

    asker                        Redis                        every process
    PUBLISH calls "ID question" ───► to all subscribers ───►  answer(question)
    LRANGE replies:ID           ◄─── a list, 10 s long  ◄───  RPUSH replies:ID, PEXPIRE

PUBLISH returns how many processes got the question, so the asker knows how many replies to expect; a process that does
not reply is stuck. Nothing is written while no process asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any

from gateway.core.errors import StoreUnavailable
from gateway.runtime.backoff import Backoff
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import ASKED_S, ProcessReplies
from gateway.store.in_redis.client import Router
from gateway.store.in_redis.keys import StoreKeys

_REPLIES_MS = 10_000
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class ProcessChannel:
    def __init__(self, client: Router, keys: StoreKeys, tasks: BackgroundTasks) -> None:
        self._client = client
        self._keys = keys
        self._tasks = tasks
        self._channel = keys.process_calls()

    def answer(self, answer: Callable[[bytes], bytes]) -> None:
        """Answer what is asked on the channel, for as long as the process lives."""

        def take(message: Any) -> None:
            # A message comes as a list: its kind, the channel, the data.
            question_id, _, question = message[2].partition(b" ")
            self._tasks.start("reply to a process", self._reply(question_id.decode(), answer, question))

        async def listen() -> None:
            backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            while True:
                try:
                    stream = await self._client.subscribe(self._channel, self._channel, take)
                except StoreUnavailable:
                    await asyncio.sleep(backoff.next_s())
                    continue
                backoff.reset()
                try:
                    await stream.ended
                finally:
                    stream.abort()

        self._tasks.keep_running("listen to questions of processes", listen)

    async def ask(self, question: bytes) -> ProcessReplies:
        """Raises StoreUnavailable."""
        question_id = token_hex(8)
        key = self._keys.process_replies(question_id)
        message = question_id.encode() + b" " + question
        asked: int = await self._client.ask(self._channel, ("PUBLISH", self._channel, message))
        replies: list[bytes] = []
        look_s = _FIRST_LOOK_S
        with suppress(TimeoutError):
            async with asyncio.timeout(ASKED_S):
                while len(replies) < asked:
                    await asyncio.sleep(look_s)
                    replies = await self._client.ask(key, ("LRANGE", key, "0", "-1"))
                    look_s = min(2 * look_s, _LONGEST_LOOK_S)
        return ProcessReplies(replies, asked)

    async def _reply(self, question_id: str, answer: Callable[[bytes], bytes], question: bytes) -> None:
        key = self._keys.process_replies(question_id)
        reply = answer(question)
        # No process waits for a reply that cannot be written: the asker sees that it is missing.
        with suppress(StoreUnavailable):
            await asyncio.gather(
                self._client.ask(key, ("RPUSH", key, reply)), self._client.ask(key, ("PEXPIRE", key, _REPLIES_MS))
            )
