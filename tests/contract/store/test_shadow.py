"""A shadow limit counts exactly what the same limit would refuse if it were enforced alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.limits import Limit, Mode
from gateway.core.reservation import Refusal, Reservation, Settlement
from gateway.store.contract import Store
from gateway.store.in_memory import InMemoryStore
from tests.contract.store.asking import ask, limit
from tests.contract.store.keepers import HOLD_TTL_MS, UTC, FalseClock

RATES = [limit("requests", "second", 7, burst=3), limit("tokens", "second", 900, burst=400)]
REFILLING = [*RATES, limit("output_tokens", "minute", 9_000, burst=300), limit("usd", "hour", 700_000, burst=500)]
"""Of these something comes back in the time of a schedule."""

LASTING = [
    limit("requests", "day", 9),
    limit("tokens", "day", 1_500),
    limit("output_tokens", "month", 900),
    limit("input_tokens", "total", 600),
    limit("usd", "week", 1_200),
    limit("concurrent", None, 3),
]


@dataclass(frozen=True)
class Step:
    """A request after a pause: its input, what its answer may need and does, and how many requests later it ends."""

    pause_ms: int
    entered: int
    likely: int
    most: int
    needed: int
    lasts: int


steps = st.builds(
    Step,
    pause_ms=st.sampled_from([0, 1, 20, 150, 900]),
    entered=st.integers(0, 120),
    likely=st.integers(0, 60),
    most=st.integers(0, 300),
    needed=st.integers(0, 300),
    lasts=st.integers(0, 5),
)


def settled(reservation: Reservation, step: Step) -> Settlement:
    output = min(step.needed, reservation.granted)
    used = {"tokens": step.entered + output, "usd": step.entered + output, "output_tokens": output}
    used |= {"input_tokens": step.entered, "requests": 0, "concurrent": 0}
    actual = [used[limit.meter] for limit in reservation.holds.limits]
    return Settlement(reservation.id, reservation.at_ms, reservation.holds, actual, None)


async def refused_by(store: Store, one: Limit, schedule: list[Step], clock: FalseClock | None = None) -> list[int]:
    """Which requests of the schedule the limit refuses, or would refuse."""
    ends: list[tuple[int, Reservation, Step]] = []
    refused: list[int] = []
    for number, step in enumerate(schedule):
        if clock is not None:
            clock.at_ms += step.pause_ms
        question = ask(one, fixed=step.entered, likely=min(step.likely, step.most), most=step.most)
        verdict = await store.admit(question)
        if isinstance(verdict, Refusal) or verdict.would_refuse:
            refused.append(number)
        if isinstance(verdict, Reservation):
            ends.append((number + step.lasts, verdict, step))
        for at, reservation, of in list(ends):
            if at <= number:
                await store.settle(settled(reservation, of))
                ends.remove((at, reservation, of))
    return refused


def in_shadow(one: Limit) -> Limit:
    """The same limit with a counter of its own."""
    return msgspec.structs.replace(one, mode=Mode.SHADOW, name=f"{one.name}-shadow")


@given(one=st.sampled_from([*REFILLING, *LASTING]), schedule=st.lists(steps, max_size=40))
def test_a_shadow_limit_counts_what_enforcing_it_would_refuse(one: Limit, schedule: list[Step]) -> None:
    async def compare() -> None:
        clocks = FalseClock(), FalseClock()
        stores = [InMemoryStore(clock, UTC, HOLD_TTL_MS * 1_000) for clock in clocks]
        enforced = await refused_by(stores[0], one, schedule, clocks[0])
        assert await refused_by(stores[1], in_shadow(one), schedule, clocks[1]) == enforced

    asyncio.run(compare())


@pytest.mark.parametrize("one", LASTING, ids=lambda one: one.name)
async def test_every_store_counts_what_enforcing_would_refuse(store: Store, one: Limit) -> None:
    dice = Random(one.name)
    schedule = [
        Step(
            0, dice.randint(0, 120), dice.randint(0, 60), dice.randint(0, 300), dice.randint(0, 300), dice.randint(0, 3)
        )
        for _ in range(40)
    ]
    enforced = await refused_by(store, one, schedule)
    assert 5 < len(enforced) < 40
    assert await refused_by(store, in_shadow(one), schedule) == enforced
    for seen in zip(*[await store.limit_statuses([each]) for each in (one, in_shadow(one))], strict=True):
        assert seen[0].used == seen[1].used


async def test_a_shadow_limit_beside_an_enforced_one_leaves_that_as_it_is(store: Store) -> None:
    shadow, real = limit("tokens", "day", 50, mode=Mode.SHADOW), limit("tokens", "month", 10_000)
    for _ in range(3):
        verdict = await store.admit(ask(shadow, real, fixed=10, likely=20, most=300))
        assert isinstance(verdict, Reservation)
        assert (verdict.granted, verdict.capped) == (300, False)
        await store.settle(settled(verdict, Step(0, 10, 20, 300, 100, 0)))
    assert [one.used for one in await store.limit_statuses([shadow, real])] == [50, 330]
