from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_memory import InMemoryStore
from gateway.store.leases import LeaseRenewer
from tests.contract.store.asking import admitted, ask, limit, truth
from tests.contract.store.keepers import FalseClock

LANES = limit("concurrent", None, 5)


class CountingStore(InMemoryStore):
    """Reports when it was asked to renew, and can be out."""

    def __init__(self) -> None:
        super().__init__(FalseClock(), ZoneInfo("UTC"))
        self.rounds: asyncio.Queue[list[str]] = asyncio.Queue()
        self.out = False

    async def renew(self, ids: Sequence[str]) -> None:
        self.rounds.put_nowait(sorted(ids))
        if self.out:
            raise StoreUnavailable("away")
        await super().renew(ids)


def renewing(store: CountingStore, hold_ttl_ms: int = 60) -> LeaseRenewer:
    return LeaseRenewer(store, BackgroundTasks(lambda _what, error: pytest.fail(repr(error))), hold_ttl_ms)


async def test_what_runs_for_long_is_renewed_until_it_is_settled() -> None:
    store = CountingStore()
    leases = renewing(store)
    first = await admitted(store, ask(LANES, name="a"))
    leases.start()
    assert [await store.rounds.get() for _ in range(3)] == [["a"]] * 3
    store.out = True
    assert await store.rounds.get() == ["a"]
    store.out = False
    second = await admitted(store, ask(LANES, name="b"))
    async with asyncio.timeout(5):
        while await store.rounds.get() != ["a", "b"]:
            pass
        await store.settle(truth(first, 0))
        while await store.rounds.get() != ["b"]:
            pass
        await store.settle(truth(second, 0))
        while await store.rounds.get():
            pass
    await leases.close()
    await store.close()


async def test_many_renewals_are_spread_over_the_round() -> None:
    store = CountingStore()
    leases = renewing(store, hold_ttl_ms=1_200)
    many = limit("concurrent", None, 500)
    for number in range(120):
        await admitted(store, ask(many, name=f"{number:03}"))
    leases.start()
    began = asyncio.get_running_loop().time()
    for chunk, size in enumerate((50, 50, 20), 1):
        assert len(await store.rounds.get()) == size
        assert asyncio.get_running_loop().time() - began > 0.2 * chunk / 3 - 0.01
    await leases.close()
    await store.close()


async def test_what_ends_in_the_middle_of_a_round_is_not_renewed_in_it() -> None:
    store = CountingStore()
    leases = renewing(store, hold_ttl_ms=600)
    made = [await admitted(store, ask(limit("concurrent", None, 500), name=f"{n:03}")) for n in range(100)]
    leases.start()
    assert await store.rounds.get() == [one.id for one in made[:50]]
    for one in made[50:99]:
        await store.settle(truth(one, 0))
    assert await store.rounds.get() == ["099"]
    await leases.close()
    await store.close()


async def test_a_refusal_is_not_renewed() -> None:
    store = CountingStore()
    leases = renewing(store)
    await store.admit(ask(limit("concurrent", None, 0), name="a"))
    leases.start()
    assert [await store.rounds.get() for _ in range(3)] == [[], [], []]
    await leases.close()
    await store.close()


async def test_a_renewal_that_fails_in_an_unexpected_way_does_not_end_the_others() -> None:
    class BrokenOnce(CountingStore):
        async def renew(self, ids: Sequence[str]) -> None:
            await super().renew(ids)
            if self.rounds.qsize() == 1 and not failures:
                raise ZeroDivisionError

    failures: list[str] = []
    store = BrokenOnce()
    leases = LeaseRenewer(store, BackgroundTasks(lambda what, _: failures.append(what), first_pause_s=0.01), 60)
    await admitted(store, ask(LANES, name="a"))
    leases.start()
    async with asyncio.timeout(5):
        assert [await store.rounds.get() for _ in range(3)] == [["a"]] * 3
    assert failures == ["background task lease renewals failed"]
    await leases.close()
    await store.close()
