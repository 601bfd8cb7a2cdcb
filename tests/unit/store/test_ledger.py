from __future__ import annotations

import gc
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage import Usage
from gateway.store.contract import UsageQuery, UsageRow
from gateway.store.ledger import COLUMNS, GROUPS, Figures, RowName, UsageSums, add_figures, figures_of, weight_of
from tests.contract.store.asking import bill

FIGURES = [1, 10, 4, 5, 2, 0, 7]
LONG = [*FIGURES, 3, 2, 0, 0, 0, 0, 1, 0, 0, 9]


@given(rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.booleans()), max_size=20))
async def test_rows_add_up_whatever_their_order(rows: list[tuple[str, str, bool]]) -> None:
    one, other = (UsageSums(UsageQuery(by=("team",), model="x")) for _ in range(2))
    for sums, given_rows in ((one, rows), (other, rows[::-1])):
        for team, model, is_long in given_rows:
            sums.add("2026-11-05", team, RowName("k", model), LONG if is_long else FIGURES)
    found = await one.rows()
    assert found == await other.rows()
    assert found == sorted(found, key=lambda row: row.team)
    assert sum(row.requests for row in found) == sum(model == "x" for _, model, _ in rows)
    assert sum(row.characters for row in found) == 9 * sum(model == "x" and is_long for _, model, is_long in rows)


def test_the_search_for_garbage_looks_at_no_row() -> None:
    rows: dict[Any, Figures] = {}
    add_figures(rows, "a", FIGURES)
    add_figures(rows, "a", LONG)
    gc.collect(0)
    assert not gc.is_tracked(rows["a"])
    assert list(rows["a"]) == [2 * figure for figure in FIGURES] + LONG[len(FIGURES) :]


def test_a_row_has_every_group_and_every_column() -> None:
    assert UsageRow.__struct_fields__ == (*GROUPS, *COLUMNS)
    assert RowName._fields == GROUPS[3:]


def test_every_count_of_an_answer_is_in_the_ledger() -> None:
    others = ("source", "service_tier", "region", "model", "parts")
    counts = [name for name in Usage.__struct_fields__ if name not in others]
    usage = msgspec.structs.replace(Usage(), **{name: place for place, name in enumerate(counts, 2)})
    figures = dict(zip(COLUMNS, figures_of(bill(usage=usage)), strict=True))
    assert {name: figures[name] for name in counts} == {name: getattr(usage, name) for name in counts}


def test_what_costs_nothing_is_weighed_by_its_tokens() -> None:
    free, longer = (bill(cost=0, usage=Usage(input=tokens)) for tokens in (10, 11))
    assert 0 < weight_of(free) < weight_of(longer) < weight_of(bill(cost=1))
