"""What a request reserves of a rate and of a quota: no rate refuses a large `max_tokens` for good, and requests at one
time neither exhaust a quota of which little is used nor overrun it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from gateway.core.limits import Limit, Mode
from gateway.core.reservation import AdmissionRequest, Charge, Refusal, RefusalReason, Reservation
from gateway.store.contract import Store
from gateway.store.in_memory import InMemoryStore
from gateway.store.in_redis import RedisStore
from tests.contract.store.asking import MILLION, admitted, ask, limit, refused, truth, used_and_held
from tests.contract.store.keepers import LASTING_HOLDS_MS, UTC, FalseClock, redis_options
from tests.redis_servers import RedisServer

LONG = 128_000
"""What the answers of a large model may have."""

SCHEDULES = 200

HOLDS_LAST_MS = LASTING_HOLDS_MS


async def test_a_rate_holds_what_is_likely_of_a_cap_that_it_never_holds(store: Store) -> None:
    rate = limit("tokens", "minute", 100_000)
    reservation = await admitted(store, ask(rate, fixed=500, likely=1_024, most=LONG))
    assert (reservation.granted, reservation.capped) == (LONG, False)
    assert await used_and_held(store, rate) == (0, 1_524)


async def test_a_rate_never_needs_more_than_a_full_bucket_beyond_the_input(store: Store) -> None:
    rate = limit("tokens", "minute", 1_000)
    reservation = await admitted(store, ask(rate, fixed=400, likely=5_000, most=5_000))
    assert await used_and_held(store, rate) == (0, 1_000)
    assert (await refused(store, ask(rate, fixed=400, likely=5_000, most=5_000))).why is RefusalReason.HELD
    await store.settle(truth(reservation, 3_000))
    refusal = await refused(store, ask(rate, fixed=400, likely=5_000, most=5_000))
    assert (refusal.why, refusal.requested) == (RefusalReason.SPENT, 1_000)
    assert 170_000 < refusal.retry_after_ms <= 180_000


async def test_only_an_input_that_a_rate_never_holds_is_refused_for_good(store: Store) -> None:
    rate = limit("tokens", "minute", 1_000)
    await admitted(store, ask(rate, fixed=1_000, likely=1_024, most=LONG))
    refusal = await refused(store, ask(rate, fixed=1_001, likely=1_024, most=LONG))
    assert (refusal.why, refusal.requested) == (RefusalReason.NEVER, 1_001)


@pytest.mark.parametrize("meter", ["tokens", "output_tokens", "usd"])
async def test_a_quota_grants_an_eighth_of_what_is_left_and_holds_no_more(store: Store, meter: str) -> None:
    quota = limit(meter, "month", 160_000)
    entered = 0 if meter == "output_tokens" else 8_000
    reservation = await admitted(store, ask(quota, fixed=entered, most=LONG))
    share = (160_000 - entered) // 8
    assert (reservation.granted, reservation.capped) == (share, True)
    assert await used_and_held(store, quota) == (0, entered + share)


async def test_money_is_shared_by_what_a_token_costs(store: Store) -> None:
    budget = limit("usd", "day", MILLION)
    request = AdmissionRequest.of("r", (Charge(budget, 40_000, 15 * MILLION),), 1_024, LONG)
    assert (await admitted(store, request)).granted == 960_000 // 15 // 8


@pytest.mark.parametrize(("left", "granted"), [(100_000, 12_500), (16_000, 2_048), (1_000, 1_000)])
async def test_a_quota_grants_two_thousand_tokens_as_long_as_it_has_them(store: Store, left: int, granted: int) -> None:
    assert (await admitted(store, ask(limit("tokens", "month", left), fixed=0, most=LONG))).granted == granted


@pytest.mark.parametrize(("most", "granted"), [(LONG, 30_000), (20_000, 20_000)])
async def test_a_quota_grants_what_is_enough_where_so_much_is_asked_for(store: Store, most: int, granted: int) -> None:
    quota = limit("tokens", "month", 100_000)
    assert (await admitted(store, ask(quota, fixed=0, most=most, enough=30_000))).granted == granted


async def test_fifteen_requests_at_one_time_pass_a_quota_that_one_answer_could_take(store: Store) -> None:
    """The worked example of docs/configuration.md."""
    quota = limit("tokens", "month", 100_000)
    verdicts = await asyncio.gather(*[store.admit(ask(quota, fixed=500, likely=1_024, most=LONG)) for _ in range(15)])
    granted = sorted((verdict.granted for verdict in verdicts if isinstance(verdict, Reservation)), reverse=True)
    assert (granted[:2], granted[13:]) == ([12_437, 10_820], [2_048, 2_048])
    assert await used_and_held(store, quota) == (0, 100_000 - 9_648)


async def test_a_shadow_quota_holds_the_share_that_it_would_have_granted(store: Store) -> None:
    shadow, real = limit("tokens", "day", 80_000, mode=Mode.SHADOW), limit("tokens", "month", 400_000)
    reservation = await admitted(store, ask(shadow, real, fixed=0, most=LONG))
    assert reservation.granted == 50_000
    assert [(hold.amount, hold.capped) for hold in reservation.holds] == [(10_000, True), (50_000, False)]
    await store.settle(truth(reservation, 50_000))
    assert await used_and_held(store, shadow) == (10_000, 0)


@dataclass
class Schedule:
    """Random requests on one quota of tokens, each of which may use all of the output that it was granted, and more
    input than was estimated. `excess` is what the estimates missed, over all requests."""

    store: Store
    dice: Random
    quota: Limit
    open: list[tuple[Reservation, int]] = field(default_factory=list)
    excess: int = 0
    verdicts: list[tuple[str, int]] = field(default_factory=list)

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.open and self.dice.random() < 0.4:
                await self.settle()
            else:
                await self.admit()
            await self.check()
        while self.open:
            await self.settle()
            await self.check()

    async def admit(self) -> None:
        dice = self.dice
        entered, most = dice.choice([0, 20, 900, 7_000]), dice.choice([1, 300, 4_096, LONG])
        least = dice.choice([1, 1, 16, 1_025])
        enough = max(2_048, least, 2 * dice.choice([10, 1_024, 6_000]))
        verdict = await self.store.admit(
            ask(self.quota, fixed=entered, likely=min(1_024, most), most=most, least=least, enough=enough)
        )
        if isinstance(verdict, Reservation):
            missed = dice.choice([0, 0, 0, entered // 4])
            self.open.append((verdict, entered + missed))
            self.excess += missed
            self.verdicts.append(("admitted", verdict.granted))
        else:
            self.verdicts.append((verdict.why, verdict.requested))

    async def settle(self) -> None:
        reservation, entered = self.open.pop(self.dice.randrange(len(self.open)))
        output = self.dice.choice([0, reservation.granted // 3, reservation.granted, reservation.granted])
        await self.store.settle(truth(reservation, entered + output))

    async def check(self) -> None:
        used, held = await used_and_held(self.store, self.quota)
        assert used + held <= self.quota.amount + self.excess
        assert used <= self.quota.amount + self.excess


async def test_no_schedule_of_requests_overruns_a_quota_by_more_than_the_estimates_missed(store: Store) -> None:
    seen: set[str] = set()
    for seed in range(SCHEDULES):
        dice = Random(seed)
        quota = limit("tokens", "total", dice.choice([1, 3_000, 30_000, 100_000, 2_000_000]), name=f"q{seed}")
        here, there = Schedule(store, Random(seed), quota), Schedule(memory(), Random(seed), quota)
        await here.run(24)
        await there.run(24)
        assert here.verdicts == there.verdicts, f"seed {seed}"
        seen |= {why for why, _ in here.verdicts}
    assert seen == {"admitted", *RefusalReason}


def memory() -> InMemoryStore:
    return InMemoryStore(FalseClock(), UTC, HOLDS_LAST_MS)


async def test_racing_clients_of_several_gateways_do_not_overrun_a_quota(redis: RedisServer) -> None:
    """Each answer takes all that it was granted, and the next request follows at once."""
    quota, clients, entered = limit("tokens", "month", 300_000), 24, 100
    stores = [
        RedisStore(redis_options(redis.url, process, hold_ttl_ms=HOLDS_LAST_MS), UTC)
        for process in ("a", "b", "c", "d")
    ]

    async def client(store: Store, dice: Random) -> int:
        passed = 0
        while True:
            verdict = await store.admit(ask(quota, fixed=entered, likely=1_024, most=LONG))
            if isinstance(verdict, Refusal):
                if verdict.why is not RefusalReason.HELD:
                    return passed
                await asyncio.sleep(0)
                continue
            passed += 1
            await store.settle(truth(verdict, entered + dice.choice([verdict.granted, verdict.granted // 2])))

    try:
        passed = await asyncio.gather(*[client(stores[number % 4], Random(number)) for number in range(clients)])
        used, held = await used_and_held(stores[0], quota)
    finally:
        for store in stores:
            await store.close()
    assert sum(passed) > clients
    assert held == 0
    assert quota.amount - entered - 1 < used <= quota.amount
