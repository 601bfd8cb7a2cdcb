"""What the suite says to a store: limits, asks and settlements in few words."""

from __future__ import annotations

from itertools import count

from gateway.core.limits import Limit, Meter, Mode, Per, Scope
from gateway.core.reservation import (
    OUTPUT_SHARE_FLOOR,
    AdmissionRequest,
    Charge,
    LedgerEntry,
    Refusal,
    Reservation,
    Settlement,
)
from gateway.core.usage import Usage, UsageSource
from gateway.store.contract import Store
from gateway.store.in_redis.client import ServerClock
from gateway.store.in_redis.store import RedisStore

MILLION = 1_000_000

_numbers = count()


def limit(meter: str, per: str | None, amount: int, **other: object) -> Limit:
    """A limit of team `red`, unless `other` says more."""
    fields: dict[str, object] = {
        "name": f"{meter}-{per}",
        "scope": Scope.TEAM,
        "subject": "red",
        "team": "red",
        "burst": amount,
        "mode": Mode.ENFORCE,
    }
    return Limit(meter=Meter(meter), per=Per(per) if per else None, amount=amount, **(fields | other))  # type: ignore[arg-type]


def ask(
    *limits: Limit,
    fixed: int = 10,
    likely: int = 20,
    most: int = 20,
    least: int = 1,
    enough: int = OUTPUT_SHARE_FLOOR,
    name: str = "",
) -> AdmissionRequest:
    """A request with so many tokens of input and output; a dollar limit counts a micro-dollar a token."""
    return AdmissionRequest.of(
        name or f"r{next(_numbers)}", tuple(charge(one, fixed) for one in limits), likely, most, least, enough
    )


def clock_of(store: RedisStore) -> ServerClock:
    """Of its only server."""
    return store.client.admissions.clock_of("")


def set_clock(clock: ServerClock, now_ms: int) -> None:
    """What a gateway believes of a server's clock is from now on that it shows this."""
    clock.learn(now_ms, clock.moment(), clock.moment())


def charge(one: Limit, fixed: int) -> Charge:
    match one.meter:
        case Meter.REQUESTS | Meter.CONCURRENT:
            return Charge(one, 1)
        case Meter.INPUT_TOKENS:
            return Charge(one, fixed)
        case Meter.OUTPUT_TOKENS:
            return Charge(one, 0, MILLION)
        case _:
            return Charge(one, fixed, MILLION)


def truth(of: Reservation, used: int, entry: LedgerEntry | None = None) -> Settlement:
    """Every limit of tokens or money bears `used`, the others nothing more."""
    without = (Meter.REQUESTS, Meter.CONCURRENT)
    actual = [0 if limit.meter in without else used for limit in of.holds.limits]
    return Settlement(of.id, of.at_ms, of.holds, actual, entry)


def bill(**other: object) -> LedgerEntry:
    fields: dict[str, object] = {
        "day": "2026-11-05",
        "team": "red",
        "key": "k1",
        "model": "m",
        "usage": Usage(input=10, output=5, cached_input=4, reasoning=2, source=UsageSource.REPORTED),
        "cost": 7,
        "upstream": "up1",
        "cost_center": "4711",
    }
    return LedgerEntry(**(fields | other))  # type: ignore[arg-type]


async def verdict_on(store: Store, question: AdmissionRequest) -> Reservation | Refusal:
    """As the admit stage asks for it."""
    return store.repeated_refusal(question) or await store.admit(question)


async def admitted(store: Store, question: AdmissionRequest) -> Reservation:
    verdict = await verdict_on(store, question)
    assert isinstance(verdict, Reservation), verdict
    return verdict


async def refused(store: Store, question: AdmissionRequest) -> Refusal:
    verdict = await verdict_on(store, question)
    assert isinstance(verdict, Refusal), verdict
    return verdict


async def used_and_held(store: Store, one: Limit) -> tuple[int, int]:
    limit_status = (await store.limit_statuses([one]))[0]
    return limit_status.used, limit_status.held
