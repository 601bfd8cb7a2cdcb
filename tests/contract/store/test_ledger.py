"""What was used, by everything that it can be asked by."""

from __future__ import annotations

import pytest

from gateway.core.reservation import LedgerEntry
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import Store, UsageQuery
from gateway.store.ledger import OTHER_USERS
from tests.contract.store.asking import admitted, ask, bill, truth
from tests.contract.store.keepers import USER_ROWS

ODD_NAMES = ["a|b", 'q"]', "line\nfeed", "ü", "\x00", "[]"]


async def settle(store: Store, *entries: LedgerEntry) -> None:
    for entry in entries:
        await store.settle(truth(await admitted(store, ask()), 0, entry))


async def costs(store: Store, *by: str, **filters: str) -> dict[str, int]:
    """Micro-dollars of each group, whose names are joined."""
    rows = await store.usage(UsageQuery(by=by, **filters))  # type: ignore[arg-type]
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
    )  # type: ignore[arg-type]
    # A row that had the first columns alone, and one that has them all.
    await settle(store, bill(), bill(usage=usage), bill(usage=usage, key="k2"), bill(key="k2"))
    [row] = await store.usage(UsageQuery())
    assert (row.requests, row.input, row.cached_input, row.output, row.reasoning) == (4, 200, 16, 90, 8)
    assert (row.estimated, row.cost, row.cache_write, row.cache_write_1h) == (260, 28, 10, 12)
    assert (row.audio_input, row.image_input, row.audio_output, row.image_output) == (14, 16, 18, 20)
    assert (row.images, row.searches, row.audio_ms, row.characters) == (2, 4, 3000, 160)


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
    great = [bill(cost=1_000 + number, user=f"great {number}") for number in range(USER_ROWS - 1)]
    small = [bill(cost=1 + number, user=f"small {number}", key="k2") for number in range(20)]
    await settle(store, *small[:10], *great, *small[10:], *great, bill(cost=100_000))
    told = await costs(store, "user")
    assert told.pop("") == 100_000
    assert len(told) == USER_ROWS + 1
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
    await settle(store, *[bill(cost=50, user=f"early {number}") for number in range(USER_ROWS)])
    for number in range(30):
        await settle(store, bill(cost=5, user="steady"), bill(cost=1, user=f"once {number}"))
    told = await costs(store, "user")
    # More than a third of all that users cost, which is what a row stands for.
    assert told["steady"] > 0
    assert sum(told.values()) == 50 * USER_ROWS + 180


@pytest.mark.parametrize("user", ["", "ann"])
async def test_settling_again_bills_no_user_again(store: Store, user: str) -> None:
    settlement = truth(await admitted(store, ask()), 0, bill(user=user))
    for _ in range(3):
        await store.settle(settlement)
    assert await costs(store, "user", "upstream") == {f"{user}/up1": 7}
