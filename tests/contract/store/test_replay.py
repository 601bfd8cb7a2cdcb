"""Thousands of random steps through both keepers, with equal verdicts.

The store in memory is given a clock that shows the time which Redis told with its last answer, so both
judge the same question at the same millisecond.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest

from gateway.core.end_users import OTHER_USERS
from gateway.core.limits import Limit, Mode, Scope
from gateway.core.reservation import AdmissionRequest, LedgerEntry, Refusal, Reservation, Settlement
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import NotificationOutbox, UsageQuery
from gateway.store.in_memory import InMemoryStore
from gateway.store.in_redis import RedisStore
from gateway.store.in_redis.client import ServerClock
from gateway.store.ledger import GROUPS
from tests.contract.store.asking import bill, charge, limit, truth
from tests.contract.store.keepers import HOLD_TTL_MS, FalseClock, redis_options
from tests.contract.store.zones import zone_whose_midnight_is_at
from tests.redis_servers import RedisServer

STEPS = 6_000
USERS_MAX = 6
USERS = [f"user {number}" for number in range(12)]

EVERYBODY = {"scope": Scope.ORGANISATION, "subject": "", "team": ""}
PARTS = (5, 20, 50, 100)
LIMITS = [
    limit("requests", "second", 300, burst=40),
    limit("requests", "day", 900, notify_at=PARTS),
    limit("requests", "total", 60, name="few", notify_at=PARTS),
    limit("tokens", "second", 30_000, burst=9_000),
    limit("tokens", "minute", 900_000, burst=19_000, **EVERYBODY),
    limit("tokens", "day", 70_000, notify_at=PARTS),
    limit("tokens", "month", 400_000, **EVERYBODY),
    limit("output_tokens", "second", 9_999, burst=12_000),
    limit("input_tokens", "hour", 36_000_000, burst=4_000),
    limit("usd", "day", 30_000, scope=Scope.KEY, subject="k1", notify_at=PARTS),
    limit("usd", "minute", 77_777, burst=9_999, mode=Mode.SHADOW),
    limit("tokens", "day", 20_000, name="shadow", mode=Mode.SHADOW, notify_at=PARTS),
    limit("concurrent", None, 12),
    limit("concurrent", None, 30, **EVERYBODY),
    limit("requests", "second", 100, burst=9, scope=Scope.USER, subject="ann"),
    limit("requests", "second", 50, burst=9, scope=Scope.USER, subject="bob"),
]


class RecordingClock(ServerClock):
    """Keeps the latest time that the server gave, to the millisecond."""

    last_ms = round(time.time() * 1000)

    def learn(self, now_ms: int, asked_at: float, read_at: float) -> None:
        self.last_ms = now_ms
        super().learn(now_ms, asked_at, read_at)


@dataclass
class Run:
    redis: RedisStore
    redis_clock: RecordingClock
    memory: InMemoryStore
    clock: FalseClock
    dice: Random
    limits: list[Limit] = field(default_factory=lambda: list(LIMITS))
    open: list[Reservation] = field(default_factory=list)
    over: list[Settlement] = field(default_factory=list)
    seen: Tally[str] = field(default_factory=Tally)
    billed: int = 0

    async def step(self, number: int) -> None:
        deeds = [self.admit, self.settle, self.settle_again, self.renew, self.look, self.reload, self.abandon]
        deed = self.dice.choices(deeds, [60, 26, 5, 2, 4, 1, 4])[0]
        if deed == self.admit or self.open:
            await deed(number)
        if self.dice.random() < 0.3:
            await asyncio.sleep(self.dice.random() * 0.004)

    def same_time(self) -> None:
        self.clock.at_ms = self.redis_clock.last_ms

    async def admit(self, number: int) -> None:
        dice = self.dice
        chosen = dice.sample(self.limits, dice.randint(0, 5))
        fixed, most = dice.choice([0, 1, 50, 400]), dice.choice([0, 1, 100, 100, 1_500, 9_500])
        charges = tuple(charge(one, fixed) for one in chosen)
        if dice.random() < 0.2:
            charges = tuple(msgspec.structs.replace(one, per_output=one.per_output // 7) for one in charges)
        least, enough = dice.choice([1, 1, 10]), dice.choice([10, 600, 2_048])
        question = AdmissionRequest.of(f"r{number}", charges, dice.randint(0, most), most, least, enough)
        told = await self.redis.admit(question)
        self.same_time()
        known = await self.memory.admit(question)
        if isinstance(told, Reservation) and isinstance(known, Reservation):
            self.open.append(told)
            # The time that the gateway asked at, by which its record is found; it is only nearly that of Redis.
            assert abs(told.at_ms - known.at_ms) < 1_000
            told = msgspec.structs.replace(told, at_ms=known.at_ms)
            self.seen["capped" if told.capped else "admitted"] += 1
            self.seen["shadow"] += bool(told.would_refuse)
        elif isinstance(told, Refusal):
            self.seen[
                f"{told.why} {'quota' if told.limit_status.limit.is_quota else told.limit_status.limit.meter}"
            ] += 1
        assert differences(told, known) == [], f"step {number}"

    async def settle(self, number: int) -> None:
        reservation = self.open.pop(self.dice.randrange(len(self.open)))
        entry = self.bill() if self.dice.random() < 0.8 else None
        await self.both(truth(reservation, self.dice.choice([0, 1, 60, 450, 2_000]), entry))

    def bill(self) -> LedgerEntry:
        dice = self.dice
        usage = Usage(
            input=dice.choice([0, 9, 400]),
            output=dice.choice([0, 7]),
            cache_write=dice.choice([0, 0, 3]),
            cache_write_1h=dice.choice([0, 0, 2]),
            images=dice.choice([0, 0, 0, 1]),
            characters=dice.choice([0, 0, 0, 50]),
            source=dice.choice(list(UsageSource)),
        )
        # No two costs are equal: which of two rows with equal scores goes first is not promised.
        self.billed += 1
        return bill(
            key=dice.choice("ab"),
            model=dice.choice(["m", "a|b", 'q"]']),
            day=dice.choice(["2026-10-31", "2026-11-05"]),
            upstream=dice.choice(["", "up1", "up2"]),
            user=dice.choice(["", "", *USERS]),
            cost_center=dice.choice(["", "4711"]),
            usage=usage,
            cost=2**self.billed % 1_000_003,
        )

    async def settle_again(self, number: int) -> None:
        if self.over:
            await self.both(self.dice.choice(self.over[-200:]))

    async def both(self, settlement: Settlement) -> None:
        await self.redis.settle(settlement)
        self.same_time()
        await self.memory.settle(settlement)
        self.over.append(settlement)

    async def renew(self, number: int) -> None:
        names = [one.id for one in self.dice.sample(self.open, len(self.open) // 2)]
        if names:
            await self.redis.renew(names)
            self.same_time()
            await self.memory.renew(names)

    async def abandon(self, number: int) -> None:
        """Let one die, and settle it long after, or never."""
        self.open.insert(0, self.open.pop())
        if len(self.open) > 60:
            del self.open[:30]

    async def look(self, number: int) -> None:
        told = await self.redis.limit_statuses(self.limits)
        self.same_time()
        assert told == await self.memory.limit_statuses(self.limits), f"step {number}"

    async def reload(self, number: int) -> None:
        """Change an amount. Not of rates: by which of two paces the time before flowed back is not promised."""
        place = self.dice.choice([place for place, one in enumerate(LIMITS) if not one.is_rate])
        one = LIMITS[place]
        factor = self.dice.choice([1, 1, 2, 3])
        self.limits[place] = msgspec.structs.replace(one, amount=one.amount * factor // 2 or 1)


async def crossings(outbox: NotificationOutbox) -> list[tuple[str, ...]]:
    """What settlements have put in: the limit, the window, the percent and what was used, and when."""
    names = {outbox.counter_name(one): str(one.identity) for one in LIMITS}
    found = [entry.split("\n")[1:] for entry in await outbox.claim(10_000, 60_000)]
    return sorted((names[counter], *figures) for counter, *figures in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_random_steps_have_equal_verdicts(redis: RedisServer, seed: int) -> None:
    zone = zone_whose_midnight_is_at(int(time.time() * 1000) + 4_000)
    clock = FalseClock()
    store = RedisStore(msgspec.structs.replace(redis_options(redis.url), users_max=USERS_MAX), zone)
    redis_clock = RecordingClock()
    node = store._servers.node_of("")
    assert node is not None
    node.clock = redis_clock
    run = Run(store, redis_clock, InMemoryStore(clock, zone, HOLD_TTL_MS, USERS_MAX), clock, Random(seed))
    try:
        for number in range(STEPS // 2):
            await run.step(number)
        for query in (UsageQuery(by=GROUPS), UsageQuery(by=GROUPS[:-1]), UsageQuery(by=("month",))):
            told, known = [await one.usage(query) for one in (run.redis, run.memory)]
            assert told == known
        crossed = [await crossings(one.notifications) for one in (run.redis, run.memory)]
        assert crossed[0] == crossed[1]
        assert len(crossed[0]) > len(PARTS)
        assert OTHER_USERS in [row.user for row in await run.redis.usage(UsageQuery(by=("user",)))]
    finally:
        await store.close()
    # Which else is met depends on when the day ends.
    assert {"admitted", "capped", "shadow", "spent quota", "held concurrent"} <= set(run.seen), run.seen


def differences(told: object, known: object) -> list[str]:
    """Where two verdicts differ, field by field."""
    if type(told) is not type(known) or not isinstance(told, msgspec.Struct):
        return [f"{told} is not {known}"] if told != known else []
    found = []
    for name in told.__struct_fields__:
        mine, other = getattr(told, name), getattr(known, name)
        pairs = (
            zip(mine, other, strict=True) if isinstance(mine, tuple) and len(mine) == len(other) else [(mine, other)]
        )
        found += [f"{name}: {difference}" for one, another in pairs for difference in differences(one, another)]
    return found
