from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from gateway.core.errors import FieldInvalid
from gateway.core.limits import Scope
from gateway.core.reservation import LedgerEntry
from gateway.core.snapshot import Caller, ConfigSnapshot
from gateway.core.usage import Usage
from gateway.store.contract import UsageQuery, UsageRow
from gateway.store.in_memory import InMemoryStore
from gateway.store.ledger import SLICE, RowName, UsageSums
from gateway.store.operator_reports import REPORTS
from tests.contract.store.asking import admitted, ask, bill, limit, truth
from tests.contract.store.keepers import UTC, FalseClock
from tests.event_loop_turns import turns_during

TODAY = date(2026, 11, 5)
NOBODY = ConfigSnapshot({}, {})


async def store_with(*entries: LedgerEntry) -> InMemoryStore:
    store = InMemoryStore(FalseClock(), UTC)
    for entry in entries:
        await store.settle(truth(await admitted(store, ask()), 0, entry))
    return store


async def report(store: InMemoryStore, **query: str) -> dict[str, Any]:
    return await REPORTS["usage"](store, NOBODY, query, TODAY)


async def test_a_row_has_its_group_and_the_names_of_the_contract() -> None:
    usage = Usage(input=30, output=5, cached_input=4, reasoning=2, cache_write=6, cache_write_1h=1, images=3)
    given = await report(await store_with(bill(usage=usage, cost=1_500_000)), by="team,month")
    [row] = given["rows"]
    assert {name: figure for name, figure in row.items() if figure} == {
        "team": "red",
        "month": "2026-11",
        "requests": 1,
        "input_tokens": 30,
        "cached_input_tokens": 4,
        "cache_write_tokens": 7,
        "cache_write_1h_tokens": 1,
        "output_tokens": 5,
        "reasoning_tokens": 2,
        "images": 3,
        "usd": 1.5,
    }
    assert row == {"team": "red", "month": "2026-11"} | given["total"]


async def test_rows_are_sorted_by_a_figure_and_cut_but_the_total_is_of_all() -> None:
    costs = {"a": 1, "b": 5, "c": 3}
    store = await store_with(*[bill(model=model, cost=cost) for model, cost in costs.items()])
    assert [row["model"] for row in (await report(store, by="model"))["rows"]] == ["a", "b", "c"]
    assert [row["model"] for row in (await report(store, by="model", sort="usd"))["rows"]] == ["b", "c", "a"]
    cut = await report(store, by="model", top="2")
    assert [row["model"] for row in cut["rows"]] == ["b", "c"]
    assert (cut["total"]["requests"], cut["total"]["usd"]) == (3, 9 / 1_000_000)


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ({"since": "7d"}, ["2026-10-30", "2026-11-01", "2026-11-05"]),
        ({"since": "1d"}, ["2026-11-05"]),
        ({"since": "month"}, ["2026-11-01", "2026-11-05"]),
        ({"since": "2026-10-01", "until": "month"}, ["2026-10-29", "2026-10-30"]),
        ({"since": "2026-10-30", "until": "2026-11-05"}, ["2026-10-30", "2026-11-01"]),
    ],
)
async def test_days_can_be_named_from_today(query: dict[str, str], days: list[str]) -> None:
    store = await store_with(*[bill(day=day) for day in ("2026-10-29", "2026-10-30", "2026-11-01", "2026-11-05")])
    assert [row["day"] for row in (await report(store, by="day", **query))["rows"]] == days


@pytest.mark.parametrize("day", ["0001-01-01", "2999-12-31", "9000-01-01", "9999-12-31"])
async def test_a_day_of_any_year_is_a_beginning_and_an_end(day: str) -> None:
    store = await store_with(bill(day="2026-11-05"))
    assert len((await report(store, since=day))["rows"]) == (day < "2026")
    assert len((await report(store, until=day))["rows"]) == (day > "2026")


@pytest.mark.parametrize(
    "query",
    [
        {"by": "hour"},
        {"since": "yesterday"},
        {"since": "0d"},
        {"until": "2026-02-30"},
        {"sort": "cost"},
        {"top": "0"},
        {"top": "ten"},
        {"colour": "red"},
    ],
    ids=str,
)
async def test_a_query_that_means_nothing_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(FieldInvalid) as refusal:
        await report(InMemoryStore(FalseClock(), UTC), **query)
    assert refusal.value.param == next(iter(query))


async def test_a_report_of_limits_refuses_what_it_does_not_know() -> None:
    with pytest.raises(FieldInvalid):
        await REPORTS["limits"](InMemoryStore(FalseClock(), UTC), NOBODY, {"by": "team"}, TODAY)


async def test_a_report_of_many_limits_leaves_the_loop_to_others() -> None:
    store = InMemoryStore(FalseClock(), UTC)
    shown, turns = await turns_during(REPORTS["limits"](store, snapshot_of(2_000), {}, TODAY))
    assert len(shown["data"]) == 2_000
    assert turns >= 2_000 / SLICE + 2 * 2_000 / 50


async def test_a_report_of_many_keys_leaves_the_loop_to_others() -> None:
    class ManyKeys(InMemoryStore):
        async def usage(self, query: UsageQuery) -> list[UsageRow]:
            sums = UsageSums(query)
            for number in range(2_000):
                sums.add("2026-11-05", "red", RowName(f"k{number:04}", "m"), [1, 2, 0, 3, 0, 0, number])
            return await sums.rows()

    store = ManyKeys(FalseClock(), UTC)
    for query in ({"by": "key"}, {"by": "key", "sort": "usd"}):
        shown, turns = await turns_during(REPORTS["usage"](store, NOBODY, query, TODAY))
        assert len(shown["rows"]) == shown["total"]["requests"] == 2_000
        steps = 4 + 2 * ("sort" in query)
        assert turns >= steps * 2_000 / SLICE, "sorted, merged, made rows, summed, shown"
    assert [row["usd"] for row in shown["rows"][:2]] == [0.001999, 0.001998]


def snapshot_of(keys: int) -> ConfigSnapshot:
    """A configuration of so many keys, each with a limit of its own."""
    names = [f"k{number}" for number in range(keys)]
    each = {name: limit("tokens", "day", 9, scope=Scope.KEY, subject=name) for name in names}
    return ConfigSnapshot({name: Caller(name, name, "red", limits=(one,)) for name, one in each.items()}, {})
