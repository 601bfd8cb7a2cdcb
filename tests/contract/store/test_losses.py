"""Every store keeps what was lost, by time and in sum, whichever process counted it."""

from __future__ import annotations

import pytest

from gateway.core.calendar import DAY_MS
from gateway.core.losses import SLOT_MS, LossReport, LossSlot, slot_of
from gateway.store.contract import LossStore
from tests.contract.store.keepers import Keeper

NOW_MS = slot_of(1_793_880_000_000)
"""Noon in UTC."""


@pytest.fixture
def losses(keeper: Keeper) -> LossStore:
    found: LossStore = keeper.store.losses  # type: ignore[attr-defined]  # of both backends
    return found


async def last_day(losses: LossStore, now_ms: int = NOW_MS) -> LossReport:
    return await losses.losses(now_ms - DAY_MS, now_ms)


async def test_nothing_is_known_before_anything_was_counted(losses: LossStore) -> None:
    assert await last_day(losses) == LossReport(None, {}, [])


async def test_counting_begins_with_the_first_process_that_counts(losses: LossStore) -> None:
    await losses.add_losses(NOW_MS - 5, [])
    await losses.add_losses(NOW_MS, [])
    assert await last_day(losses) == LossReport(NOW_MS - 5, {}, [])


async def test_counts_are_added_and_states_are_replaced(losses: LossStore) -> None:
    await losses.add_losses(NOW_MS, [LossSlot(NOW_MS, {"spans_dropped": 2}, {"a": 5}, {"a": 3})])
    await losses.add_losses(NOW_MS, [LossSlot(NOW_MS, {"spans_dropped": 1, "streams_cut": 1}, {"a": 7, "b": 1})])
    await losses.add_losses(NOW_MS, [LossSlot(NOW_MS, {}, {}, {"b": 9})])
    counts = {"spans_dropped": 3, "streams_cut": 1}
    expected = LossSlot(NOW_MS, counts, {"a": 7, "b": 1}, {"a": 3, "b": 9})
    assert await last_day(losses) == LossReport(NOW_MS, counts, [expected])


async def test_slots_are_of_the_time_that_is_asked_for_and_sums_of_all(losses: LossStore) -> None:
    times = [NOW_MS - DAY_MS - SLOT_MS, NOW_MS - DAY_MS, NOW_MS - DAY_MS // 2 - SLOT_MS, NOW_MS]
    await losses.add_losses(NOW_MS, [LossSlot(at_ms, {"streams_cut": 1}) for at_ms in reversed(times)])
    found = await losses.losses(NOW_MS - DAY_MS + 1, NOW_MS)
    assert ([slot.at_ms for slot in found.slots], found.totals) == (times[1:], {"streams_cut": 4})
