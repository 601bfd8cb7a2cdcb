"""Settlement and renewal: what happens to reservations after they were made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from gateway.core.reservation import Reservation, Settlement
from gateway.store.contract import LEDGER_DAYS
from gateway.store.in_redis.calls import Part, bill_of, due_numbers, numbers
from gateway.store.in_redis.keys import ORGANISATION, team_home
from gateway.store.in_redis.kit import Kit
from gateway.store.in_redis.records import LONG_MS, SHORT_MS
from gateway.store.in_redis.script import RENEW, SETTLE

LEDGER_MS = LEDGER_DAYS * 86_400_000

_RENEWED_AT_ONCE = 50
"""Reservations in one call: Redis does nothing else meanwhile."""


class Origin(msgspec.Struct, frozen=True):
    """Who made the reservation, and where its settlement stands in that process's journal (0: in none)."""

    process: str
    place: int = 0


async def settle(kit: Kit, settlement: Settlement, origin: Origin) -> None:
    """In every slot that the settlement speaks of. What fails in one is repeated in all: each settles it once."""
    asked = kit.clock.moment()
    entry = settlement.entry
    billing = ""
    if entry is not None:
        billing = team_home(entry.team) if kit.by_slot else ORGANISATION
        await kit.teams.know(entry.team)
    parts = [part for part in kit.parts([due.hold.limit for due in settlement.dues]) if part.places]
    if billing and all(part.home != billing for part in parts):
        parts.append(Part(billing, (), ()))
    calls = []
    for part in parts:
        spoken = settlement if part.home == billing else msgspec.structs.replace(settlement, entry=None)
        keys, args = settle_call(kit, spoken, part, origin)
        calls.append(kit.courier.run(SETTLE, keys, args))
    # A single call needs no task of its own.
    for reply in [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls):
        kit.clock.learn(reply[1], asked)


def settle_call(
    kit: Kit, settlement: Settlement, part: Part, origin: Origin
) -> tuple[list[str], tuple[str | int | bytes, ...]]:
    record = kit.keys.record(part.home, origin.process, settlement.at_ms)
    entry = settlement.entry
    ledger, days = (kit.keys.ledger(entry.team, entry.day), kit.keys.days(entry.team)) if entry else (record, record)
    keys = [record, ledger, days, kit.keys.journal(part.home, origin.process)]
    field, figures = bill_of(entry)
    # The journal's mark is kept as long as the ledger: what is older than both is not in doubt any more.
    told = [kit.timing.step_ms, origin.place, LEDGER_MS, LEDGER_MS, *figures]
    for place, terms in zip(part.places, part.terms, strict=True):
        due = settlement.dues[place]
        key, first, second = kit.words.counter(terms, due.hold.window_ms)
        keys.append(key)
        told += (terms.kind, *due_numbers(due, terms), first, second)
    return keys, (settlement.id, LONG_MS, field, entry.day if entry else "", numbers(told))


async def renew(kit: Kit, reservations: Sequence[Reservation]) -> None:
    """Each in every slot that holds something for it."""
    asked = kit.clock.moment()
    by_home: dict[str, list[tuple[Reservation, Part]]] = {}
    for reservation in reservations:
        for part in kit.parts([hold.limit for hold in reservation.holds]):
            by_home.setdefault(part.home, []).append((reservation, part))
    calls = []
    for held in by_home.values():
        for at in range(0, len(held), _RENEWED_AT_ONCE):
            keys, args = renew_call(kit, held[at : at + _RENEWED_AT_ONCE])
            calls.append(kit.courier.run(RENEW, keys, args))
    for reply in await asyncio.gather(*calls):
        kit.clock.learn(reply[1], asked)


def renew_call(kit: Kit, held: Sequence[tuple[Reservation, Part]]) -> tuple[list[str], tuple[str | int | bytes, ...]]:
    places: dict[str, int] = {}
    told = [kit.timing.step_ms]
    for reservation, part in held:
        holding: list[int] = []
        for place, terms in zip(part.places, part.terms, strict=True):
            hold = reservation.holds[place]
            if not terms.at_once:
                key = kit.words.counter(terms, hold.window_ms)[0]
                holding += (places.setdefault(key, len(places) + 1), terms.kind, hold.amount)
        record = places.setdefault(kit.record(part, reservation.at_ms), len(places) + 1)
        told += (record, len(holding) // 3, *holding)
    return list(places), (LONG_MS, numbers(told), *[reservation.id for reservation, _ in held])


async def shorten(kit: Kit) -> None:
    """Let the records end in an hour of which everything is known."""
    done = kit.records.done(kit.clock.now_ms())
    await asyncio.gather(*[kit.courier.ask(key, ("PEXPIRE", key, SHORT_MS)) for key in done])
