from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import FieldInvalid
from gateway.core.limits import Scope
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.store.contract import UsageQuery
from gateway.store.in_memory import InMemoryStore
from gateway.store.usage_report import COLUMNS, REPORTS, UsageSums
from tests.contract.store.asking import limit
from tests.contract.store.keepers import UTC, FalseClock

FIGURES = [1, 10, 4, 5, 2, 0, 7]


@given(rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=20))
def test_rows_add_up_whatever_their_order(rows: list[tuple[str, str]]) -> None:
    one, other = (UsageSums(UsageQuery(by=("team",), model="x")) for _ in range(2))
    for sums, given_rows in ((one, rows), (other, rows[::-1])):
        for team, model in given_rows:
            sums.add({"day": "2026-11-05", "team": team, "key": "k", "model": model}, FIGURES)
    assert one.rows() == other.rows()
    assert sum(row.requests for row in one.rows()) == sum(model == "x" for _, model in rows)
    assert len(COLUMNS) == len(FIGURES)


@pytest.mark.parametrize("query", [{"by": "hour"}, {"since": "yesterday"}, {"colour": "red"}])
async def test_a_query_that_says_nothing_known_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(FieldInvalid):
        await REPORTS["usage"](InMemoryStore(FalseClock(), UTC), snapshot_of(0), query)


async def test_a_report_of_many_limits_leaves_the_loop_to_others() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    report = await REPORTS["limits"](InMemoryStore(FalseClock(), UTC), snapshot_of(2_000), {})
    running.cancel()
    assert len(report["data"]) == 2_000
    assert turns >= 10


def snapshot_of(keys: int) -> ConfigSnapshot:
    """A configuration of so many keys, each with a limit of its own."""
    names = [f"k{number}" for number in range(keys)]
    each = {name: limit("tokens", "day", 9, scope=Scope.KEY, subject=name) for name in names}
    return ConfigSnapshot({name: Caller(name, name, "red", limits=(one,)) for name, one in each.items()}, {})
