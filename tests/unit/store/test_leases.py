from __future__ import annotations

import asyncio
from collections.abc import Sequence
from zoneinfo import ZoneInfo

from gateway.core.errors import StoreUnavailable
from gateway.store.in_memory import InMemoryStore
from gateway.store.leases import LeaseRenewer
from tests.contract.store.asking import admitted, ask, limit, truth
from tests.contract.store.keepers import FalseClock

LANES = limit("concurrent", None, 5)


class CountingStore(InMemoryStore):
    """Tells when it was asked to renew, and can be out."""

    def __init__(self) -> None:
        super().__init__(FalseClock(), ZoneInfo("UTC"))
        self.rounds: asyncio.Queue[list[str]] = asyncio.Queue()
        self.out = False

    async def renew(self, ids: Sequence[str]) -> None:
        self.rounds.put_nowait(sorted(ids))
        if self.out:
            raise StoreUnavailable("away")
        await super().renew(ids)


async def test_what_runs_for_long_is_renewed_until_it_is_settled() -> None:
    store = CountingStore()
    vigil = LeaseRenewer(store, hold_ttl_ms=60)
    first = await admitted(vigil, ask(LANES, name="a"))
    vigil.start()
    assert [await store.rounds.get() for _ in range(3)] == [[], ["a"], ["a"]]
    store.out = True
    assert await store.rounds.get() == ["a"]
    store.out = False
    second = await admitted(vigil, ask(LANES, name="b"))
    async with asyncio.timeout(5):
        while await store.rounds.get() != ["a", "b"]:
            pass
        await vigil.settle(truth(first, 0))
        while await store.rounds.get() != ["b"]:
            pass
        await vigil.settle(truth(second, 0))
        while await store.rounds.get():
            pass
    await vigil.close()


async def test_a_refusal_is_not_renewed() -> None:
    store = CountingStore()
    vigil = LeaseRenewer(store, hold_ttl_ms=60)
    await vigil.admit(ask(limit("concurrent", None, 0), name="a"))
    vigil.start()
    assert [await store.rounds.get() for _ in range(3)] == [[], [], []]
    await vigil.close()
