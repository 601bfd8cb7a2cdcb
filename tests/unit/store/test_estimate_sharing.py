from __future__ import annotations

import asyncio
from collections.abc import Mapping
from zoneinfo import ZoneInfo

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.estimate import Estimates, EstimateSubject, LearnedEstimate
from gateway.core.input_size import InputSize
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.contract import CallRefused
from gateway.store.estimate_sharing import EstimateSharing
from gateway.store.in_memory import InMemoryStore
from tests.contract.store.keepers import FalseClock

RED = EstimateSubject("red", "m")
SIZE = InputSize(400)


class SharingStore(InMemoryStore):
    """Reports each call, and fails those that it is told to."""

    def __init__(self, *failures: StoreUnavailable | None) -> None:
        super().__init__(FalseClock(), ZoneInfo("UTC"))
        self.calls: asyncio.Queue[str] = asyncio.Queue()
        self._failures = list(failures)

    async def share_estimates(self, learned: Mapping[EstimateSubject, LearnedEstimate]) -> None:
        self._called("share")
        await super().share_estimates(learned)

    async def shared_estimates(self) -> dict[EstimateSubject, LearnedEstimate]:
        self._called("read")
        return await super().shared_estimates()

    def _called(self, call: str) -> None:
        self.calls.put_nowait(call)
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure

    async def next_calls(self, number: int) -> list[str]:
        async with asyncio.timeout(5):
            return [await self.calls.get() for _ in range(number)]


def sharing(store: SharingStore, estimates: Estimates, share_every_s: float = 0.005) -> EstimateSharing:
    tasks = BackgroundTasks(lambda _what, error: pytest.fail(repr(error)))
    return EstimateSharing(store, estimates, tasks, share_every_s, retry_every_s=0.005)


def taught() -> Estimates:
    estimates = Estimates()
    teach(estimates)
    return estimates


def teach(estimates: Estimates) -> None:
    for _ in range(100):
        estimates.of(*RED).learn(SIZE, 200, 50)


async def test_a_process_goes_on_where_the_one_before_ended() -> None:
    store, before, after = SharingStore(), taught(), Estimates()
    await sharing(store, before).close()
    second = sharing(store, after, share_every_s=60)
    second.start()
    assert await store.next_calls(2) == ["share", "read"]
    await second.close()
    assert after.of(*RED).input_tokens(SIZE) == before.of(*RED).input_tokens(SIZE) == 199


async def test_what_is_learned_is_shared_now_and_then_and_nothing_twice() -> None:
    store, estimates = SharingStore(), Estimates()
    running = sharing(store, estimates)
    running.start()
    # The first rounds have nothing to share.
    assert await store.next_calls(2) == ["read"] * 2
    teach(estimates)
    assert await store.next_calls(3) == ["share", "read", "read"]
    await running.close()
    assert list(await store.shared_estimates()) == [RED]


async def test_others_are_read_again_now_and_then() -> None:
    store, estimates = SharingStore(), Estimates()
    running = sharing(store, estimates)
    running.start()
    assert await store.next_calls(1) == ["read"]
    await InMemoryStore.share_estimates(store, {RED: LearnedEstimate(100, 0, 2.0, 4.0, 10, 10)})
    assert await store.next_calls(2) == ["read"] * 2
    assert estimates.of(*RED).input_tokens(SIZE) == 200
    await running.close()


async def test_a_store_that_is_out_is_asked_again_and_loses_nothing() -> None:
    gone = StoreUnavailable("away")
    store, estimates = SharingStore(gone, gone, None, gone), taught()
    running = sharing(store, estimates)
    running.start()
    assert await store.next_calls(5) == ["read", "read", "read", "share", "share"]
    await running.close()
    assert list(await store.shared_estimates()) == [RED]


async def test_a_store_that_refuses_is_not_asked_at_once_again() -> None:
    store = SharingStore(CallRefused("WRONGTYPE"))
    running = sharing(store, taught())
    running.start()
    assert await store.next_calls(3) == ["read", "share", "read"]
    await running.close()


async def test_a_process_that_ends_while_the_store_is_out_just_ends() -> None:
    store = SharingStore(StoreUnavailable("away"))
    await sharing(store, taught()).close()
    assert await store.next_calls(1) == ["share"]
    assert await InMemoryStore.shared_estimates(store) == {}
