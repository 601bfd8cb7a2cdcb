from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.core.errors import StoreUnavailable
from gateway.core.losses import LossSlot
from gateway.runtime.tasks import BackgroundTasks
from gateway.store.in_memory.losses import InMemoryLosses
from gateway.store.loss_writer import LossWriter
from tests.unit.fakes import StandingClock


class Counted:
    """A process that loses one line of its log in each sample."""

    def __init__(self) -> None:
        self.unsaved: list[LossSlot] = []

    def sample(self) -> None:
        self.unsaved = [*self.unsaved, LossSlot(0, {"log_lines_dropped": 1})]

    def saved(self, slots: Sequence[LossSlot]) -> None:
        self.unsaved = self.unsaved[len(slots) :]


class BreakableLosses(InMemoryLosses):
    """A store of losses that can be out."""

    def __init__(self) -> None:
        super().__init__()
        self.is_out = False
        self.news = asyncio.Event()

    async def add_losses(self, now_ms: int, slots: Sequence[LossSlot]) -> None:
        if self.is_out:
            raise StoreUnavailable("Out.")
        await super().add_losses(now_ms, slots)
        self.news.set()


def unfailing(doing: str, error: BaseException) -> None:
    pytest.fail(f"{doing}: {error!r}")


def writer(store: BreakableLosses, source: Counted) -> LossWriter:
    return LossWriter(store, source, StandingClock(), BackgroundTasks(unfailing), write_every_s=0.001)


async def totals(store: BreakableLosses) -> dict[str, int]:
    return (await store.losses(0, 0)).totals


async def test_what_an_outage_keeps_from_the_store_is_written_once_it_is_back() -> None:
    store, source = BreakableLosses(), Counted()
    writing = writer(store, source)
    store.is_out = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await writing.write()
    assert len(source.unsaved) == 3
    store.is_out = False
    await writing.write()
    assert (await totals(store), source.unsaved) == ({"log_lines_dropped": 4}, [])


async def test_it_writes_in_rounds_and_once_more_at_the_end() -> None:
    store, source = BreakableLosses(), Counted()
    writing = writer(store, source)
    writing.start()
    await asyncio.wait_for(store.news.wait(), 5)
    store.is_out = True
    await writing.close()
    waiting, before = len(source.unsaved), (await totals(store))["log_lines_dropped"]
    store.is_out = False
    await writing.close()
    assert await totals(store) == {"log_lines_dropped": before + waiting + 1}
