"""Two nodes of a cluster in front of one real Redis: their clocks can differ, and each can fail at some scripts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from struct import pack
from typing import Any

import msgspec
from hiredis import Reader

from gateway.core.reservation import AdmissionRequest, LimitStatus, Refusal, RefusalReason
from gateway.core.store_url import read_store_url
from gateway.runtime.name_lookup import NameLookups
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_redis.admission import Admissions, SlotReply
from gateway.store.in_redis.arguments import ScriptArguments, Timing, one_by_one
from gateway.store.in_redis.client import Router, ServerClock
from gateway.store.in_redis.connection import Command, CommandMaker, ConnectionDown, ErrorReply, RedisConnection
from gateway.store.in_redis.discovery import RedisConnector
from gateway.store.in_redis.keys import StoreKeys
from gateway.store.in_redis.record_lifetimes import RecordLifetimes
from gateway.store.in_redis.scripts import ADMIT, LuaScript, whole_numbers
from gateway.store.in_redis.uncertain_calls import UncertainCalls
from tests.contract.store.keepers import PATIENCE_S, STEP_MS, UTC

TEAMS, OTHERS = "teams", "others"


@dataclass
class FakeNode:
    """`ahead_ms`: how far its clock is ahead of the real server's. `failing`: scripts that it does not carry out."""

    real: RedisConnection
    ahead_ms: int = 0
    failing: set[str] = field(default_factory=set)
    clock: ServerClock = field(default_factory=ServerClock)
    carried_out: list[str] = field(default_factory=list)

    @property
    def urgent(self) -> FakeNode:
        return self

    background = urgent

    def call(self, command: Command | CommandMaker) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._reply_to(command))

    send = call

    async def _reply_to(self, command: Command | CommandMaker) -> Any:
        made = command() if callable(command) else command
        words = _words(made) if isinstance(made, bytes) else made
        script = words[1] if words[0] == "EVALSHA" else ""
        if script in self.failing:
            raise ConnectionDown("is out")
        if script == ADMIT.sha:
            words = (*words[:-1], _with_earlier_time(words[-1], int(words[2]) - 1, self.ahead_ms))
        reply = await self.real.call(words)
        if script:
            self.carried_out.append(script)
            reply = [*whole_numbers(len(reply) // 8).unpack(reply)] if isinstance(reply, bytes) else reply
            reply[1] += self.ahead_ms
        return reply


def _with_earlier_time(numbers: bytes, charges: int, by_ms: int) -> bytes:
    """What admit.lua gets of so many charges, where the time that the gateway gives is earlier."""
    before, after = 3 + 6 * charges, 6 + 2 * charges
    decoded: list[Any] = msgspec.msgpack.decode(b"\xdc" + pack(">H", before + after) + numbers)
    decoded[before + 1] -= by_ms
    return one_by_one(decoded)


class FakeNodes:
    """One node has the slots of teams, the other those of models and the organisation."""

    by_slot = True

    def __init__(self, url: str, tasks: BackgroundTasks) -> None:
        connector = RedisConnector(read_store_url(url), NameLookups(tasks))
        real = self._real = RedisConnection(connector.to(("", 0)), PATIENCE_S, tasks)
        self.teams, self.others = FakeNode(real), FakeNode(real)

    def node_of(self, key: str) -> Any:
        return self._of(key)

    async def discover(self) -> None:
        """Both are known."""

    def clock_of(self, key: str) -> ServerClock:
        return self._of(key).clock

    def moved(self, error: ErrorReply) -> Any:
        raise error

    def trouble(self) -> str | None:
        return self._real.trouble

    def close(self) -> None:
        self._real.close()

    def _of(self, key: str) -> FakeNode:
        return self.teams if "{t/" in key else self.others

    def fail(self, node: FakeNode, *scripts: LuaScript) -> None:
        node.failing = {script.sha for script in scripts}


class HastyCalls(UncertainCalls):
    PAUSE_S = 0.01


def admissions_over(nodes: FakeNodes, tasks: BackgroundTasks, slack_ms: int = 250) -> Admissions:
    router, keys = Router(nodes, _unobserved), StoreKeys("gw")
    timing = Timing(slack_ms=slack_ms, step_ms=STEP_MS)
    arguments = ScriptArguments(keys, UTC, "one", timing, by_slot=True)
    uncertain = HastyCalls(tasks, 0.001)
    return Admissions(
        router, arguments, timing, uncertain, RecordLifetimes(), keys.teams(), admitted={}, refusal=_refusal
    )


async def _refusal(request: AdmissionRequest, reply: SlotReply) -> Refusal:
    """Of the limit that refuses no more than its name is true."""
    limit = reply.share.batch.limits[0].limit
    return Refusal(LimitStatus(limit, 0, 0, 0, 0), 0, RefusalReason.SPENT, 0, reply.now_ms)


def _words(command: bytes) -> tuple[Any, ...]:
    """The words of a packed command, which is an array like those in replies. The first two are text."""
    reader = Reader()
    reader.feed(command)
    name, script, *others = reader.gets()
    return name.decode(), script.decode(), *others


def _unobserved(call: str, outcome: str, seconds: float) -> None:
    """Nothing is measured."""
