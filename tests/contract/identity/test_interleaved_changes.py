"""Any interleaving of changes and requests gives what a simple model gives: over both stores, seen by three processes.

A process follows changes whenever it is let to. Until then it may judge a key by anything that was true since it last
did; from then on by what is true now, and by nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import FieldInvalid, KeyExpired, KeyUnknown
from gateway.core.request import IncomingRequest
from gateway.core.snapshot import Caller, ConfigSnapshot, Model, TeamTerms
from gateway.identity.administration import KeyAdministration
from gateway.identity.contract import KeyStore
from gateway.identity.directory import KeyDirectory
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.identity.requests import AdministrationRequest
from gateway.runtime.system_clock import SystemClock
from gateway.runtime.tasks import BackgroundTasks
from gateway.stages.authenticate import authenticate, key_digest, stored_caller
from tests.contract.identity.conftest import emptied, keys_in_redis
from tests.redis_servers import RedisServer
from tests.unit.fakes import incoming_of

PROCESSES = 3
HOUR_MS = 3_600_000
SNAPSHOT = ConfigSnapshot({}, {"m": Model("m", ())}, {"search": TeamTerms(Caller("", "", "search"))})

Verdict = str
Step = tuple[Any, ...]

KEYS = st.integers(0, 5)
STEPS = st.one_of(
    st.tuples(st.just("create"), st.sampled_from([None, "1h", "3h"])),
    st.tuples(st.just("rotate"), KEYS, st.sampled_from(["0s", "1h", "2h"])),
    st.tuples(st.sampled_from(["revoke", "disable", "enable"]), KEYS),
    st.tuples(st.just("expire"), KEYS, st.sampled_from([None, "1h", "2h"])),
    st.tuples(st.just("pass an hour")),
    st.tuples(st.just("follow"), st.integers(0, PROCESSES - 1)),
    st.tuples(st.just("reload"), st.integers(0, PROCESSES - 1)),
    st.tuples(st.just("request"), st.integers(0, PROCESSES - 1), KEYS),
)


class ShiftedClock(SystemClock):
    """The gateways' clock: the real one, some hours later."""

    shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


@dataclass
class ModelledKey:
    """`states` are what was true of it, the last one now: revoked or disabled, and when it expires."""

    id: str
    secret: str
    states: list[tuple[bool, int | None]] = field(default_factory=list)
    seen_from: list[int] = field(default_factory=lambda: [0] * PROCESSES)
    """From which state on each process may judge it."""
    revoked: bool = False

    def verdicts(self, process: int, now_ms: int) -> set[Verdict]:
        return {_verdict(*state, now_ms) for state in self.states[self.seen_from[process] :]}


def _verdict(is_refused: bool, expires_ms: int | None, now_ms: int) -> Verdict:
    return "unknown" if is_refused else "expired" if expires_ms is not None and expires_ms <= now_ms else "served"


async def _none_used(_day: str) -> set[str]:
    return set()


class Organisation:
    """Operators, three processes and the model of what they do."""

    def __init__(self, store: KeyStore, directories: list[KeyDirectory], clock: ShiftedClock) -> None:
        self.keys: list[ModelledKey] = []
        self.clock = clock
        self._directories = directories
        self._administration = KeyAdministration(
            store, lambda: SNAPSHOT, ZoneInfo("UTC"), lambda _entry: None, _none_used
        )

    async def take(self, step: Step) -> None:
        name, *given = step
        if name == "create":
            body = {"team": "search", "name": "k"} | ({"expires_at": given[0]} if given[0] else {})
            self._add(await self._ask("POST", "keys", body))
        elif name == "pass an hour":
            self.clock.shift_ms += HOUR_MS
        elif name == "follow":
            await self.follow(given[0])
        elif name == "reload":
            self._directories[given[0]].keep(SNAPSHOT)
        elif self.keys:
            key = self.keys[given[-1 if name == "request" else 0] % len(self.keys)]
            await (self.request(given[0], key) if name == "request" else self._change(name, key, *given[1:]))

    async def _change(self, name: str, key: ModelledKey, argument: str | None = None) -> None:
        requests: dict[str, tuple[str, str, Any]] = {
            "rotate": ("POST", "/rotate", {"overlap": argument}),
            "revoke": ("DELETE", "", None),
            "disable": ("PATCH", "", {"disabled": True}),
            "enable": ("PATCH", "", {"disabled": False}),
            "expire": ("PATCH", "", {"expires_at": argument}),
        }
        method, path, body = requests[name]
        if key.revoked:
            with pytest.raises(FieldInvalid):
                await self._ask(method, f"keys/{key.id}{path}", body)
            return
        answer = await self._ask(method, f"keys/{key.id}{path}", body)
        if name == "rotate":
            self._add(answer)
        await self._note(key)

    async def request(self, process: int, key: ModelledKey) -> None:
        assert await self._judged(process, key.secret) in key.verdicts(process, self.clock.now_ms())

    async def follow(self, process: int) -> None:
        await self._directories[process].catch_up()
        for key in self.keys:
            key.seen_from[process] = len(key.states) - 1

    async def agree(self) -> None:
        """Once all have followed, every process judges every key as the model does."""
        for process in range(PROCESSES):
            await self.follow(process)
            for key in self.keys:
                verdicts = key.verdicts(process, self.clock.now_ms())
                assert len(verdicts) == 1
                assert {await self._judged(process, key.secret)} == verdicts
            assert await self._judged(process, "gw_nobody-has-it") == "unknown"

    def _add(self, answer: dict[str, Any]) -> None:
        key = ModelledKey(answer["id"], answer["key"])
        # Nobody can have asked for it before, so every process sees it from its beginning.
        key.states.append((answer["status"] == "disabled", _ms(answer["expires_at"])))
        self.keys.append(key)

    async def _note(self, key: ModelledKey) -> None:
        now = await self._ask("GET", f"keys/{key.id}")
        key.revoked = now["status"] == "revoked"
        stored = now["status"] in ("revoked", "disabled")
        key.states.append((stored, _ms(now["expires_at"])))

    async def _judged(self, process: int, secret: str) -> Verdict:
        request: IncomingRequest = msgspec.structs.replace(incoming_of(b""), headers={"x-api-key": secret})
        caller = await stored_caller(key_digest(secret), self._directories[process])
        try:
            authenticate(request, caller, self.clock)
        except KeyUnknown:
            return "unknown"
        except KeyExpired:
            return "expired"
        return "served"

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        packed = b"" if body is None else msgspec.json.encode(body)
        return await self._administration.answer(AdministrationRequest(method, path, body=packed, actor="a test"))


def _ms(written: str | None) -> int | None:
    return None if written is None else round(datetime.fromisoformat(written).timestamp() * 1000)


async def _play(open_store: Callable[[], contextlib.AbstractAsyncContextManager[KeyStore]], steps: list[Step]) -> None:
    failures: list[BaseException] = []
    clock = ShiftedClock()
    async with contextlib.AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store()) for _ in range(PROCESSES)]
        tasks = BackgroundTasks(lambda _what, error: failures.append(error))
        directories = [KeyDirectory(store, SNAPSHOT, clock.now_ms, tasks) for store in stores]
        for directory in directories:
            await directory.catch_up()
        organisation = Organisation(stores[0], directories, clock)
        for step in steps:
            await organisation.take(step)
        await organisation.agree()
        await tasks.close()
    assert failures == []


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=40))
def test_changes_in_memory_are_those_of_the_model(steps: list[Step]) -> None:
    shared = InMemoryKeyStore(SystemClock())

    @contextlib.asynccontextmanager
    async def in_memory() -> AsyncIterator[KeyStore]:
        yield shared

    asyncio.run(_play(in_memory, steps))


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=40))
def test_changes_in_redis_are_those_of_the_model(shared_redis: RedisServer, steps: list[Step]) -> None:
    emptied(shared_redis)
    asyncio.run(_play(lambda: keys_in_redis(shared_redis.url), steps))
