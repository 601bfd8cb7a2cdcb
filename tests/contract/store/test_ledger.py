"""What was used, by everything that it can be asked by."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from gateway.core.end_users import OTHER_USERS
from gateway.core.reservation import LedgerEntry
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import Store, UsageQuery
from gateway.store.ledger import ROWS_OF_A_USER, weight_of
from tests.contract.store.asking import admitted, ask, bill, truth
from tests.contract.store.keepers import USERS_MAX

ODD_NAMES = ["a|b", 'q"]', "line\nfeed", "ü", "\x00", "[]"]


async def settle(store: Store, *entries: LedgerEntry) -> None:
    for entry in entries:
        await store.settle(truth(await admitted(store, ask()), 0, entry))


async def costs(store: Store, *by: str, **filters: Any) -> dict[str, int]:
    """Micro-dollars of each group, whose names are joined."""
    rows = await store.usage(UsageQuery(by=by, **filters))
    return {"/".join(getattr(row, name) for name in by): row.cost for row in rows}


async def test_every_column_is_summed(store: Store) -> None:
    usage = Usage(
        input=90,
        output=40,
        cached_input=4,
        reasoning=2,
        cache_write=5,
        cache_write_1h=6,
        audio_input=7,
        image_input=8,
        audio_output=9,
        image_output=10,
        images=1,
        searches=2,
        audio_ms=1500,
        characters=80,
        source=UsageSource.ESTIMATED,
    )
    # A row that had the first columns alone, and one that has them all.
    await settle(store, bill(), bill(usage=usage), bill(usage=usage, key="k2"), bill(key="k2"))
    [row] = await store.usage(UsageQuery())
    assert (row.requests, row.input, row.cached_input, row.output, row.reasoning) == (4, 200, 16, 90, 8)
    assert (row.estimated, row.cost, row.cache_write, row.cache_write_1h) == (260, 28, 10, 12)
    assert (row.audio_input, row.image_input, row.audio_output, row.image_output) == (14, 16, 18, 20)
    assert (row.images, row.searches, row.audio_ms, row.characters) == (2, 4, 3000, 160)


async def test_a_length_that_is_estimated_is_summed_apart_and_the_tokens_beside_it_are_reported(store: Store) -> None:
    told = Usage(input=14, output=45, audio_ms=9_000)
    guessed = msgspec.structs.replace(told, estimated_ms=9_000, source=UsageSource.ESTIMATED)
    await settle(store, bill(usage=told), bill(usage=guessed), bill(usage=guessed))
    [row] = await store.usage(UsageQuery())
    assert (row.audio_ms, row.estimated_ms, row.input, row.estimated) == (27_000, 18_000, 42, 0)


async def test_usage_is_told_by_upstream_user_cost_center_and_month(store: Store) -> None:
    await settle(
        store,
        bill(cost=1, upstream="up1", user="ann"),
        bill(cost=2, upstream="up2", user="ann"),
        bill(cost=4, upstream="up1", day="2026-10-31"),
        bill(cost=8, upstream="", cost_center="", team="blue"),
    )
    assert await costs(store, "upstream") == {"": 8, "up1": 5, "up2": 2}
    assert await costs(store, "user") == {"": 12, "ann": 3}
    assert await costs(store, "cost_center") == {"": 8, "4711": 7}
    assert await costs(store, "month", "user") == {"2026-10/": 4, "2026-11/": 8, "2026-11/ann": 3}
    assert await costs(store, "upstream", user="ann") == {"up1": 1, "up2": 2}
    assert await costs(store, "user", upstream="up1") == {"": 4, "ann": 1}


async def test_a_team_that_gets_another_cost_center_keeps_its_past(store: Store) -> None:
    await settle(store, bill(cost=1, cost_center="4711"), bill(cost=2, cost_center="4712"))
    assert await costs(store, "cost_center") == {"4711": 1, "4712": 2}


async def test_names_may_have_any_character(store: Store) -> None:
    await settle(store, *[bill(user=name, model=name, upstream=name, cost_center=name) for name in ODD_NAMES[:3]])
    await settle(store, *[bill(user=name, day="2026-11-06") for name in ODD_NAMES[3:]])
    rows = await store.usage(UsageQuery(by=("model", "upstream", "cost_center", "user"), until="2026-11-06"))
    assert {(row.model, row.upstream, row.cost_center, row.user) for row in rows} == {
        (n, n, n, n) for n in ODD_NAMES[:3]
    }
    assert set(await costs(store, "user")) == set(ODD_NAMES)


async def test_rows_of_users_are_bounded_and_those_that_cost_most_are_kept(store: Store) -> None:
    great = [bill(cost=1_000 + number, user=f"great {number}") for number in range(USERS_MAX - 1)]
    small = [bill(cost=1 + number, user=f"small {number}", key="k2") for number in range(20)]
    await settle(store, *small[:10], *great, *small[10:], *great, bill(cost=100_000))
    told = await costs(store, "user")
    assert told.pop("") == 100_000
    assert len(told) == USERS_MAX + 1
    assert {name: cost for name, cost in told.items() if name.startswith("great")} == {
        entry.user: 2 * entry.cost for entry in great
    }
    assert told["small 19"] == 20
    assert told[OTHER_USERS] == sum(entry.cost for entry in small[:19])
    # All other groups are exact.
    assert await costs(store, "key", user=OTHER_USERS) == {"k2": sum(entry.cost for entry in small[:19])}
    assert await costs(store, "key") == {
        "k1": 100_000 + 2 * sum(entry.cost for entry in great),
        "k2": sum(entry.cost for entry in small),
    }


async def test_a_user_that_spends_little_at_a_time_gets_a_row_at_last(store: Store) -> None:
    """Each newcomer takes over the score of the row that it displaces."""
    await settle(store, *[bill(cost=50, user=f"early {number}") for number in range(USERS_MAX)])
    for number in range(30):
        await settle(store, bill(cost=5, user="steady"), bill(cost=1, user=f"once {number}"))
    told = await costs(store, "user")
    # More than a third of all that users cost, which is what a row stands for.
    assert told["steady"] > 0
    assert sum(told.values()) == 50 * USERS_MAX + 180


async def test_users_are_kept_and_not_rows_so_one_of_many_models_keeps_its_place(store: Store) -> None:
    models = [f"m{number}" for number in range(2 * USERS_MAX)]
    great = [bill(cost=1_000, user=f"great {n}", model=model) for n in range(USERS_MAX - 1) for model in models]
    await settle(store, *great, *[bill(cost=1, user=f"small {n}", model=models[n % 2]) for n in range(10)])
    told = await costs(store, "user")
    assert {name: cost for name, cost in told.items() if name.startswith("great")} == {
        f"great {n}": 1_000 * len(models) for n in range(USERS_MAX - 1)
    }
    # All rows of a user that loses its place go to the others, each by its model.
    assert told[OTHER_USERS] == 9
    assert (await costs(store, "model", user=OTHER_USERS)) == {"m0": 5, "m1": 4}
    assert len(await costs(store, "model", user="great 0")) == len(models)


async def test_a_user_that_loses_its_place_loses_all_its_rows(store: Store) -> None:
    await settle(store, *[bill(cost=1, user="many", model=f"m{number}") for number in range(5)])
    await settle(store, *[bill(cost=100, user=f"great {number}") for number in range(USERS_MAX)])
    assert await costs(store, "user") == {OTHER_USERS: 5} | {f"great {n}": 100 for n in range(USERS_MAX)}
    assert await costs(store, "model", user=OTHER_USERS) == {f"m{n}": 1 for n in range(5)}
    # It comes back, and begins with nothing.
    await settle(store, bill(cost=500, user="many", model="m0"))
    assert (await costs(store, "user"))["many"] == 500


async def test_one_user_has_so_many_rows_at_most_and_no_sum_is_lost(store: Store) -> None:
    names = [f"m{number:03}" for number in range(ROWS_OF_A_USER + 3)]
    await settle(store, *[bill(cost=1, user="ann", model=name) for name in [*names, *names]], bill(cost=1, user="bob"))
    assert await costs(store, "user") == {"ann": 2 * ROWS_OF_A_USER, "bob": 1, OTHER_USERS: 6}
    assert await costs(store, "model", user=OTHER_USERS) == dict.fromkeys(names[-3:], 2)
    assert await costs(store, "model") == dict.fromkeys(names, 2) | {"m": 1}


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_users_come_sums_are_exact_and_who_costs_most_is_kept(store: Store, seed: int) -> None:
    chance = Random(seed)
    users = [f"u{number}" for number in range(4 * USERS_MAX)]
    weights = [40, 25] + [1] * (len(users) - 2)
    entries = [
        bill(
            cost=chance.choice((0, 1, 5, 20)),
            user=chance.choices(["", *users], [10, *weights])[0],
            model=chance.choice("ab"),
            key=chance.choice("xy"),
            upstream=chance.choice(("up1", "up2")),
            cost_center=chance.choice(("1", "2")),
        )
        for _ in range(150)
    ]
    await settle(store, *entries)
    for group in ("key", "model", "upstream", "cost_center"):
        expected: Counter[str] = Counter()
        for entry in entries:
            expected[getattr(entry, group)] += entry.cost
        assert await costs(store, group) == expected
        # Also of the rows with users alone.
        by_user = await store.usage(UsageQuery(by=(group, "user")))
        for name, cost in expected.items():
            assert sum(row.cost for row in by_user if getattr(row, group) == name) == cost
    told = await store.usage(UsageQuery(by=("user",)))
    assert sum(row.requests for row in told) == len(entries)
    kept = {row.user: row.cost for row in told}
    assert len(kept.keys() - {"", OTHER_USERS}) <= USERS_MAX
    true: Counter[str] = Counter()
    for entry in entries:
        if entry.user:
            true[entry.user] += entry.cost
    share = sum(weight_of(entry) for entry in entries if entry.user) / USERS_MAX
    for user, cost in true.items():
        assert kept.get(user, 0) <= cost
        if cost > share:
            assert kept[user] >= cost - share


@pytest.mark.parametrize("user", ["", "ann"])
async def test_settling_again_bills_no_user_again(store: Store, user: str) -> None:
    settlement = truth(await admitted(store, ask()), 0, bill(user=user))
    for _ in range(3):
        await store.settle(settlement)
    assert await costs(store, "user", "upstream") == {f"{user}/up1": 7}
