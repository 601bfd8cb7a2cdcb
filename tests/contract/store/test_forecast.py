"""Every store reports when a quota will be used up."""

from __future__ import annotations

import pytest

from gateway.core.forecast import HOUR_MS
from gateway.core.limits import Limit
from tests.contract.store.asking import admitted, ask, limit, truth
from tests.contract.store.keepers import Keeper

TOTAL = limit("tokens", "total", 1_000)
REQUESTS = limit("requests", "total", 4)
RATE = limit("tokens", "hour", 10_000)


async def hours_left(keeper: Keeper, one: Limit) -> float | None:
    (status,) = await keeper.store.limit_statuses([one])
    return status.runs_out_ms / HOUR_MS if status.runs_out_ms else None


@pytest.mark.parametrize("one", [TOTAL, RATE, limit("concurrent", None, 3)], ids=lambda one: one.name)
async def test_what_was_never_settled_does_not_run_out(keeper: Keeper, one: Limit) -> None:
    assert await hours_left(keeper, one) is None
    await admitted(keeper.store, ask(one))
    assert await hours_left(keeper, one) is None


async def test_a_quota_that_is_being_used_runs_out(keeper: Keeper) -> None:
    # 100 in what counts as an hour are 118.3 an hour; the 600 that are left take more than five.
    for _ in range(4):
        await keeper.store.settle(truth(await admitted(keeper.store, ask(TOTAL)), 100))
    now, later = [await hours_left(keeper, one) for one in (spent(), TOTAL)]
    assert now is not None
    assert later is not None
    assert later - now == pytest.approx(600 / (400 * 1.18342), abs=0.01)


def spent() -> Limit:
    """The same counter, of an amount that is used up: it runs out at the time of the report."""
    return limit("tokens", "total", 100)


async def test_requests_that_were_counted_at_their_admission_are_a_pace_too(keeper: Keeper) -> None:
    await keeper.store.settle(truth(await admitted(keeper.store, ask(REQUESTS)), 0))
    now, later = [await hours_left(keeper, one) for one in (limit("requests", "total", 1), REQUESTS)]
    assert now is not None
    assert later is not None
    assert later - now == pytest.approx(3 / 1.18342, abs=0.01)


async def test_what_is_held_by_others_leaves_the_forecast_as_it_is(keeper: Keeper) -> None:
    await keeper.store.settle(truth(await admitted(keeper.store, ask(TOTAL)), 100))
    before = await hours_left(keeper, TOTAL)
    await admitted(keeper.store, ask(TOTAL, fixed=500))
    after = await hours_left(keeper, TOTAL)
    assert before is not None
    assert after == pytest.approx(before, abs=0.01)


async def test_a_rate_never_runs_out(keeper: Keeper) -> None:
    await keeper.store.settle(truth(await admitted(keeper.store, ask(RATE)), 9_000))
    assert await hours_left(keeper, RATE) is None
