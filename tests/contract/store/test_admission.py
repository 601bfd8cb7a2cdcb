"""Who is admitted, who is refused, and what the refused are told."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from gateway.core.limits import Mode, Scope
from gateway.core.reservation import CHARGE_MAX, Refusal, RefusalReason, Reservation
from gateway.store.contract import Store
from tests.contract.store.asking import MILLION, admitted, ask, limit, refused, truth, used_and_held
from tests.contract.store.keepers import Keeper

EVERY_LIMIT = [
    limit("requests", "hour", 3),
    limit("requests", "day", 3),
    limit("tokens", "hour", 90),
    limit("input_tokens", "hour", 30),
    limit("output_tokens", "hour", 60),
    limit("usd", "hour", 90),
    limit("tokens", "month", 90),
    limit("input_tokens", "week", 30),
    limit("usd", "total", 90),
    limit("concurrent", None, 3),
]


@pytest.mark.parametrize("one", EVERY_LIMIT, ids=lambda one: one.name)
async def test_each_limit_admits_what_it_holds_and_no_more(store: Store, one: object) -> None:
    verdicts = [await store.admit(ask(one, least=20)) for _ in range(5)]  # type: ignore[arg-type]
    assert [type(verdict) for verdict in verdicts] == [Reservation] * 3 + [Refusal] * 2


@pytest.mark.parametrize("one", EVERY_LIMIT, ids=lambda one: one.name)
async def test_a_storm_is_admitted_as_far_as_the_limit_goes(store: Store, one: object) -> None:
    verdicts = await asyncio.gather(*[store.admit(ask(one, least=20)) for _ in range(40)])  # type: ignore[arg-type]
    assert sum(isinstance(verdict, Reservation) for verdict in verdicts) == 3


@pytest.mark.parametrize("per", ["day", "total"])
async def test_a_storm_on_a_cold_quota_is_granted_no_more_than_there_is(store: Store, per: str) -> None:
    quota = limit("tokens", per, 1_000)
    verdicts = await asyncio.gather(*[store.admit(ask(quota, fixed=10, likely=30, most=290)) for _ in range(40)])
    granted = [verdict.granted for verdict in verdicts if isinstance(verdict, Reservation)]
    assert granted == [290, 290, 290, 90]
    assert await used_and_held(store, quota) == (0, 1_000)


async def test_a_request_without_limits_is_admitted(store: Store) -> None:
    reservation = await admitted(store, ask(most=70))
    assert (reservation.granted, reservation.capped, [*reservation.holds]) == (70, False, [])


async def test_a_refusal_charges_nothing(store: Store) -> None:
    tight = limit("concurrent", None, 1)
    await admitted(store, ask(tight))
    before = await store.limit_statuses(EVERY_LIMIT)
    await refused(store, ask(*EVERY_LIMIT[:-1], tight))
    after = await store.limit_statuses(EVERY_LIMIT)
    assert [(one.used, one.held) for one in after] == [(one.used, one.held) for one in before]


async def test_standings_count_the_admitted_request_in(store: Store) -> None:
    requests, tokens, month = limit("requests", "hour", 5), limit("tokens", "hour", 500), limit("tokens", "month", 900)
    reservation = await admitted(store, ask(requests, tokens, month, fixed=10, likely=20, most=80))
    assert [(one.used, one.held, one.left) for one in reservation.limit_statuses] == [
        (1, 0, 4),
        (0, 30, 470),
        (0, 90, 810),
    ]
    assert [one.limit for one in reservation.limit_statuses] == [requests, tokens, month]


async def test_rates_hold_what_is_likely_and_quotas_what_is_possible(store: Store) -> None:
    rate, quota = limit("tokens", "hour", 1000), limit("tokens", "day", 1000)
    reservation = await admitted(store, ask(rate, quota, fixed=10, likely=20, most=300))
    assert [hold.amount for hold in reservation.holds] == [30, 310]
    assert (reservation.granted, reservation.capped) == (300, False)


async def test_a_quota_near_its_end_grants_what_is_left(store: Store) -> None:
    quota = limit("tokens", "day", 100)
    reservation = await admitted(store, ask(quota, fixed=40, likely=200, most=300))
    assert (reservation.granted, reservation.capped) == (60, True)
    assert await used_and_held(store, quota) == (0, 100)


async def test_the_tightest_quota_decides_the_grant_and_every_limit_holds_it(store: Store) -> None:
    wide, tight, rate = limit("tokens", "week", 1000), limit("usd", "day", 60), limit("tokens", "minute", 500)
    reservation = await admitted(store, ask(wide, tight, rate, fixed=10, likely=200, most=300))
    assert reservation.granted == 50
    assert [hold.amount for hold in reservation.holds] == [60, 60, 60]


async def test_a_quota_that_does_not_pay_for_the_least_refuses(store: Store) -> None:
    quota = limit("tokens", "day", 100)
    await store.settle(truth(await admitted(store, ask(quota)), 80))
    refusal = await refused(store, ask(quota, fixed=10, most=300, least=11))
    assert (refusal.why, refusal.requested) == (RefusalReason.SPENT, 21)
    assert (await admitted(store, ask(quota, fixed=10, most=300, least=10))).granted == 10


async def test_the_least_does_not_matter_where_no_output_is_wanted(store: Store) -> None:
    quota = limit("tokens", "day", 10)
    assert (await admitted(store, ask(quota, fixed=10, likely=0, most=0, least=1))).granted == 0


async def test_a_spent_quota_tells_when_its_window_resets(store: Store) -> None:
    quota = limit("tokens", "day", 30)
    await store.settle(truth(await admitted(store, ask(quota)), 30))
    refusal = await refused(store, ask(quota))
    assert refusal.why is RefusalReason.SPENT
    assert refusal.at_ms + refusal.retry_after_ms == refusal.limit_status.resets_ms
    assert (refusal.limit_status.used, refusal.limit_status.held, refusal.limit_status.left) == (30, 0, 0)


async def test_a_quota_that_is_only_held_says_so(store: Store) -> None:
    quota = limit("tokens", "day", 30)
    await admitted(store, ask(quota))
    refusal = await refused(store, ask(quota))
    assert (refusal.why, refusal.retry_after_ms) == (RefusalReason.HELD, 1_000)


@pytest.mark.parametrize("per", ["minute", "day"])
async def test_what_never_fits_is_told_at_once(store: Store, per: str) -> None:
    small = limit("tokens", per, 30)
    refusal = await refused(store, ask(small, fixed=40, likely=0, most=0))
    assert (refusal.why, refusal.requested, refusal.retry_after_ms) == (RefusalReason.NEVER, 40, 0)


async def test_a_client_that_obeys_the_wait_passes_at_the_first_try(keeper: Keeper) -> None:
    store, rate = keeper.store, limit("requests", "second", 5)
    for _ in range(5):
        await admitted(store, ask(rate))
    refusal = await refused(store, ask(rate))
    assert refusal.why is RefusalReason.SPENT
    assert 0 < refusal.retry_after_ms <= 200
    await keeper.pass_ms(refusal.retry_after_ms)
    await admitted(store, ask(rate))


async def test_a_burst_is_what_a_bucket_holds(store: Store) -> None:
    rate = limit("requests", "hour", 60, burst=2)
    for _ in range(2):
        await admitted(store, ask(rate))
    refusal = await refused(store, ask(rate))
    assert 50_000 < refusal.retry_after_ms <= 60_000


async def test_of_several_refusals_the_longest_wait_is_told(store: Store) -> None:
    soon, later = limit("requests", "minute", 60, burst=1), limit("requests", "hour", 60, burst=1)
    spent = limit("requests", "month", 1)
    never = limit("tokens", "minute", 5)
    await admitted(store, ask(soon, later, spent))
    assert (await refused(store, ask(soon, later))).limit_status.limit == later
    assert (await refused(store, ask(soon, later, spent))).limit_status.limit == spent
    assert (await refused(store, ask(spent, soon, never))).limit_status.limit == never


async def test_a_refusal_tells_how_every_limit_stands(store: Store) -> None:
    one, other = limit("requests", "hour", 1), limit("tokens", "hour", 100)
    await admitted(store, ask(one, other))
    refusal = await refused(store, ask(one, other))
    assert [(seen.limit, seen.used, seen.held) for seen in refusal.limit_statuses] == [(one, 1, 0), (other, 0, 30)]


async def test_a_shadow_limit_refuses_nobody_and_counts_as_if_it_had(store: Store) -> None:
    shadow, real = limit("requests", "hour", 1, mode=Mode.SHADOW), limit("tokens", "day", 100)
    first, second = await admitted(store, ask(shadow, real)), await admitted(store, ask(shadow, real))
    assert (first.would_refuse, second.would_refuse) == ((), (shadow,))
    assert [hold.limit for hold in second.holds] == [real]
    assert [(one.limit, one.used) for one in second.limit_statuses] == [(shadow, 1), (real, 0)]
    assert await used_and_held(store, shadow) == (1, 0)
    assert await used_and_held(store, real) == (0, 60)


async def test_a_shadow_quota_caps_no_output(store: Store) -> None:
    shadow = limit("tokens", "day", 50, mode=Mode.SHADOW)
    reservation = await admitted(store, ask(shadow, fixed=10, most=300))
    assert (reservation.granted, reservation.capped, reservation.would_refuse) == (300, False, ())


async def test_a_refusal_names_the_shadow_limits_too(store: Store) -> None:
    shadow, real = limit("requests", "day", 1, mode=Mode.SHADOW), limit("requests", "hour", 1)
    await admitted(store, ask(shadow, real))
    assert (await refused(store, ask(shadow, real))).would_refuse == (shadow,)


async def test_subjects_are_counted_apart(store: Store) -> None:
    each = limit("requests", "hour", 1, scope=Scope.USER, subject="")
    await admitted(store, ask(each.for_user("ann")))
    await refused(store, ask(each.for_user("ann")))
    await admitted(store, ask(each.for_user("bob")))


async def test_teams_models_and_the_organisation_bind_one_request_together(store: Store) -> None:
    everybody = limit("requests", "hour", 3, scope=Scope.ORGANISATION, subject="", team="")
    model = limit("tokens", "hour", 100, scope=Scope.MODEL, subject="org/m", team="")
    red, blue = limit("requests", "day", 2), limit("requests", "day", 2, subject="blue", team="blue")
    for _ in range(2):
        await admitted(store, ask(everybody, model, red))
    assert (await refused(store, ask(everybody, model, red))).limit_status.limit == red
    await admitted(store, ask(everybody, model, blue))
    assert (await refused(store, ask(everybody, model, blue))).limit_status.limit == everybody
    assert await used_and_held(store, everybody) == (3, 0)
    assert await used_and_held(store, model) == (0, 90)


async def test_a_changed_amount_keeps_the_count(store: Store) -> None:
    for per in ("hour", "day"):
        before, after = limit("requests", per, 2), limit("requests", per, 3)
        for _ in range(2):
            await admitted(store, ask(before))
        await refused(store, ask(before))
        await admitted(store, ask(after))
        await refused(store, ask(after))


async def test_fractions_of_a_unit_are_charged_whole(store: Store) -> None:
    money = limit("usd", "month", 1000)
    question = msgspec.structs.replace(ask(money, likely=1, most=10), fixed=[0], per_output=[150_000])
    reservation = await admitted(store, question)
    assert reservation.holds[0].amount == 2
    assert await used_and_held(store, money) == (0, 2)


async def test_large_amounts_are_counted_exactly(store: Store) -> None:
    budget = limit("usd", "month", 10_000_000 * MILLION)
    reservation = await admitted(store, ask(budget, fixed=3_000_000 * MILLION + 1, most=0))
    await store.settle(truth(reservation, 3_000_000 * MILLION + 1))
    assert await used_and_held(store, budget) == (3_000_000 * MILLION + 1, 0)


async def test_a_limit_nobody_has_used_is_whole(store: Store) -> None:
    limit_statuses = await store.limit_statuses(EVERY_LIMIT)
    assert [one.limit for one in limit_statuses] == EVERY_LIMIT
    assert [(one.used, one.held, one.left) for one in limit_statuses] == [(0, 0, one.amount) for one in EVERY_LIMIT]


async def test_the_largest_charge_is_refused_and_no_other_request_of_its_turn(store: Store) -> None:
    quota, rate = limit("usd", "month", 2**53), limit("tokens", "minute", 1_000_000)
    others = [ask(quota, rate, fixed=10 * number) for number in range(1, 5)]
    first, *verdicts = await asyncio.gather(
        *[store.admit(one) for one in (ask(quota, fixed=CHARGE_MAX, most=2**40), *others)]
    )
    assert isinstance(first, Refusal)
    assert (first.why, first.limit_status.limit) == (RefusalReason.NEVER, quota)
    assert [one.id for one in verdicts if isinstance(one, Reservation)] == [one.id for one in others]
